"""Write the tables of settings into README.md and docs/models.md.

python scripts/reference.py [--check]
"""

import pathlib
import sys

from detjax import reference

ROOT = pathlib.Path(__file__).parents[1]
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->\n"
MODELS = """# Settings of models

The section `model` of a config, family by family. Stages are named by their key
(`model.rpn`); None switches one off. The tables are written by scripts/reference.py.

"""


def pages() -> dict[pathlib.Path, str]:
    """The text of each page as it should be."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    runs = "".join(
        f"<details><summary><code>{name}</code></summary>\n\n"
        f"{reference.table(rows)}\n\n</details>\n"
        for name, rows in reference.of_runs().items()
    )
    families = "\n\n".join(
        f"## {name}\n\n{reference.table(rows)}"
        for name, rows in reference.of_models().items()
    )
    return {
        readme: f"{before}{BEGIN}{runs}{END}{after}",
        ROOT / "docs" / "models.md": f"{MODELS}{families}\n",
    }


def main() -> None:
    for path, text in pages().items():
        if "--check" in sys.argv:
            if path.read_text() != text:
                sys.exit(f"{path} is not up to date: python scripts/reference.py")
        else:
            path.write_text(text)


if __name__ == "__main__":
    main()
