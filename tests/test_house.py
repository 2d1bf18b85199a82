"""Who may know whom: no import runs upward, families do not know each other."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "detjax"
LAYERS = ["errors", "types", "ops", "losses", "nn", "backbones", "models"]
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"tensorflow", "torch", "torchvision"}


def imports(path):
    """The modules that `path` imports, with whether at the top of the file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield node.module, top
            yield from ((f"{node.module}.{alias.name}", top) for alias in node.names)


def room(parts):
    return parts[1].removesuffix(".py") if len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    here = room(path.relative_to(PACKAGE.parent).parts)
    for name, top in imports(path):
        there = room(name.split("."))
        if name.startswith("detjax.") and here in LAYERS:
            assert there in LAYERS[: LAYERS.index(here) + 1], name
        if name.startswith("detjax.") and here in ("data", "eval"):
            assert there in (here, "errors", "files", "types", "ops"), name
        if name.split(".")[0] in HEAVY:
            # torch only where a user hands in a torch file, and only then.
            assert here == "weights", name
            assert not top, name


def test_families_do_not_know_each_other():
    for folder in ("models", "backbones"):
        for path in (PACKAGE / folder).glob("[!_]*.py"):
            for name, _ in imports(path):
                assert not name.startswith(f"detjax.{folder}."), (path, name)
