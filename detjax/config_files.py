"""The configs that come with detjax, by name, and files of a user's own."""

import pathlib
import runpy
import sys
import types

from ml_collections import ConfigDict

import detjax
from detjax import files
from detjax.errors import MissingFileError, UserError
from detjax.settings import nearest

# Inside an installed package, beside it in a clone.
_PACKAGE = pathlib.Path(detjax.__file__).parent
HERE = next(
    (p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir()),
    _PACKAGE / "configs",
)


def paths() -> list[pathlib.Path]:
    """The files of the configs that come with detjax."""
    return sorted(path for path in HERE.glob("*.py") if path.stem != "__init__")


def find(given: str) -> str:
    """The path of a config: `given`, or of the one that comes with detjax.

    `given` may be a name, "quickstart", or the path that it has in a clone. Raises
    UserError where there is none.
    """
    known = {path.stem: path for path in paths()}
    path = pathlib.Path(given)
    # ml_collections hands what follows a colon to get_config.
    if path.exists() or pathlib.Path(given.partition(":")[0]).exists():
        return given
    named = given in known or path == pathlib.Path("configs", path.name)
    if named and path.stem in known:
        return str(known[path.stem])
    if path.suffix:
        close = files.near(path, [f"{name}.py" for name in known])
        raise MissingFileError(f"there is no config {given}{close}")
    raise UserError(
        f"no config is called {given!r}{nearest(given, known)}; give a file, or one of "
        f"{', '.join(known)}"
    )


def load(given: str | pathlib.Path) -> ConfigDict:
    """The config in the file `given`, or the one of that name that comes with detjax.

    Raises UserError if there is none.
    """
    path = find(str(given))
    with files.reading(path):
        make_importable()
        return runpy.run_path(path)["get_config"]()


def make_importable() -> None:
    """Lets configs import their neighbours as `configs.<name>`.

    Those of a folder `configs` in the working directory come first.
    """
    if "configs" not in sys.modules:
        found = types.ModuleType("configs", "Experiments.")
        beside = pathlib.Path("configs").absolute()
        found.__path__ = [str(beside), str(HERE)]
        sys.modules["configs"] = found
