"""Weights that a new run starts from: a run's folder, or an imported one."""

import json
import pathlib
from typing import Any, NamedTuple

from detjax import files, models
from detjax.checkpoint import Checkpoints
from detjax.errors import UserError
from detjax.models import ema

BEST, NEWEST = "best", "checkpoints"


class Source(NamedTuple):
    """The weights of a folder."""

    folder: pathlib.Path  # of the checkpoint
    step: int
    params: Any
    state: Any


def read(init_from: str | pathlib.Path) -> Source:
    """The weights of the work directory or imported folder `init_from`.

    Those of its best checkpoint, where `train.best` kept one, else of its newest; a
    path that ends in "best" or "checkpoints" names the one. Averages (`models.ema`)
    are taken in place of the weights that they are of.

    Raises MissingFileError if there is no checkpoint.
    """
    workdir, folder = run_and_folder(init_from)
    checkpoints = Checkpoints(workdir, folder=folder, read_only=True)
    step, params, state = checkpoints.restore_weights()
    checkpoints.close()
    return Source(workdir / folder, step, *ema.weights(params, state))


def run_and_folder(init_from: str | pathlib.Path) -> tuple[pathlib.Path, str]:
    """The work directory that `init_from` names, and its folder of checkpoints."""
    path = pathlib.Path(init_from)
    if path.name in (BEST, NEWEST) and not (path / NEWEST).is_dir() and path.is_dir():
        return path.parent, path.name
    kept = path / BEST
    held = kept.is_dir() and any(p.name.isdecimal() for p in kept.iterdir())
    return path, BEST if held else NEWEST


def config(init_from: str | pathlib.Path) -> dict[str, Any]:
    """The config.json beside the weights of `init_from`; empty where there is none."""
    path = run_and_folder(init_from)[0] / "config.json"
    if not path.is_file():
        return {}
    found = files.read_json(path, "put back the one that the run wrote")
    return found if isinstance(found, dict) else {}


def pixels(init_from: str | pathlib.Path) -> str | None:
    """How the weights of `init_from` saw pixels (`model.pixels`); None if unknown."""
    held = dict(config(init_from).get("model") or {})
    name = held.pop("name", None)
    if name not in models.MODELS:
        return None
    try:
        model = models.make(name, **models.current(name, held))
    except UserError:  # of another version; the weights may fit nonetheless
        return None
    return getattr(model.net, "pixels", None)


def other_classes(init_from: str | pathlib.Path, classes: Any) -> list[str] | None:
    """The classes of `init_from` where they are as many as `classes`, but others."""
    theirs = config(init_from).get("classes")
    if not isinstance(theirs, list) or len(theirs) != len(classes):
        return None
    same = json.dumps(theirs) == json.dumps(list(classes))
    return None if same else [str(name) for name in theirs]
