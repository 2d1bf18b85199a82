"""List the configs that come with detjax, or print one to begin a copy.

    [NAME]

`detjax configs yolact_bccd > mine.py` writes a copy to change; `detjax configs --keys`
lists every setting that it may have, with its default and range.
"""

import ast
import pathlib

from absl import flags

from detjax import cli, config_files, reference
from detjax.errors import UserError

KEYS = flags.DEFINE_bool("keys", False, "List the settings that configs may have.")


def main() -> None:
    cli.launch(_configs, __doc__)


def _configs(names: list[str]) -> None:
    if KEYS.value:
        for section, rows in (reference.of_runs() | reference.of_models()).items():
            print(f"{section}\n\n{reference.listed(rows)}\n")
    elif names:
        print(pathlib.Path(config_files.find(names[0])).read_text(), end="")
    else:
        for path in config_files.paths():
            said = ast.get_docstring(ast.parse(path.read_text())) or ""
            print(f"{path.stem:28} {said.splitlines()[0] if said else ''}")
    if len(names) > 1:
        raise UserError("give one name of a config")
