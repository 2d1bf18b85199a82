"""Initialising a run from weights of the same model, or of a backbone."""

import pathlib
from typing import Any

from flax import traverse_util

from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import UserError
from detjax.models import ema
from detjax.weights import darknet
from detjax.weights.convert import Report
from detjax.weights.read import matches

# Parameters of a detector that a classifier's file cannot have: all but the backbone, a
# pyramid or extra levels inside it, and those of deformable convolutions.
NOT_OF_A_BACKBONE = (
    r"^(?!backbone\.)|^backbone\.(fpn\.|scale_weight$|extra\.[1-9])"
    r"|^backbone\.extra\.0\.\d+\.\d|\.conv2\.(bias|conv_offset_mask\.)"
)
# SSD's VGG-16 has its last group of convolutions in a list of their own.
_LAST_GROUP = {
    "features.24": "extra.0.1",
    "features.26": "extra.0.3",
    "features.28": "extra.0.5",
}
# Layers of a classifier that a detector's region head reuses (VGG).
_FULLY_CONNECTED = {"classifier.0": "fc6", "classifier.3": "fc7"}


def start(
    run: TrainState, init_from: str | pathlib.Path, allow: str | None = None
) -> tuple[TrainState, Report]:
    """`run` with the weights of the folder or file `init_from`, and a report.

    A file is one of darknet, for a model of darknet; it may end before the last layer.
    The folder is a run's, or one that scripts/import_weights.py wrote. Weights of a
    backbone are loaded into `backbone`, and into the region head if it consists of the
    last layers, as in the first two-stage detectors; the rest stays as it is. Of a run
    with averaged weights (`models.ema`) these are taken. Otherwise
    all have to fit, except parameters that match `allow`, a regular expression over our
    dotted names, and keep their initialisation.

    Raises UserError with the two-sided difference if they do not.
    """
    if pathlib.Path(init_from).is_file():
        return _of_file(run, init_from)
    allowed, expected = matches(allow, "train.init_allow"), matches(None, "")
    checkpoints = Checkpoints(init_from, read_only=True)
    _, params, state = checkpoints.restore_weights()
    checkpoints.close()
    ours = flat(run.params, ema.own(run.state))
    theirs = flat(*ema.weights(params, state))
    direct = any(path in ours for path in theirs)
    if not direct and not any(path[1] == "backbone" for path in theirs):
        homes = {path: _home(path, ours) for path in theirs}
        theirs = {homes[p]: value for p, value in theirs.items() if homes[p]}
        expected = matches(NOT_OF_A_BACKBONE, "")
    filled, taken, left, wrong = {}, [], [], []
    for path, old in ours.items():
        name, value = ".".join(path[1:]), theirs.get(path)
        if value is not None and value.shape == old.shape:
            filled[path] = value
            taken.append(name)
            continue
        filled[path] = old
        left.append(name)
        if not (allowed(name) or expected(name)):
            held = "nothing" if value is None else value.shape
            wrong.append(f"{name}: {held} in the file, {old.shape} in the model")
    unused = sorted(".".join(path[1:]) for path in theirs.keys() - ours.keys())
    wrong += [
        f"only in the file: {name}"
        for name in unused
        if not (allowed(name) or expected(name))
    ]
    if wrong:
        listed = "\n  ".join(wrong[:30])
        raise UserError(
            f"{init_from} does not fit the model in {len(wrong)} places; set "
            f"train.init_allow to a regular expression of what may differ:\n  {listed}"
        )
    params, state = unflat(filled)
    # An average begins as a copy of the weights at the first update.
    state |= {name: x for name, x in run.state.items() if name == ema.EMA}
    run = TrainState(run.step, params, state, run.opt_state, run.key)
    return run, Report(taken, left, unused)


def _of_file(run: TrainState, path: str | pathlib.Path) -> tuple[TrainState, Report]:
    """`run` with the weights of a file of darknet.

    Raises UserError for other models, and where it does not fit.
    """
    if not all(name.isdecimal() for name in run.params):
        raise UserError(
            f"train.init_from={path} is a file, which models of darknet alone begin "
            "with; import it with scripts/import_weights.py, and name the folder"
        )
    try:
        params, state, report = darknet.load(path, run.params, ema.own(run.state))
    except UserError as error:
        raise UserError(
            f"{error}; a file of other classes is imported with its own cfg by "
            "scripts/import_weights.py --source=darknet, and the folder named here"
        ) from None
    state |= {name: x for name, x in run.state.items() if name == ema.EMA}
    return TrainState(run.step, params, state, run.opt_state, run.key), report


def _home(path: tuple[str, ...], ours) -> tuple[str, ...] | None:
    """The detector's path for a backbone's `path`; None if it is not used."""
    kind, layer, *rest = path
    for home in (
        ("backbone", "body", layer),
        ("backbone", layer),
        ("backbone", _LAST_GROUP.get(layer, "")),
        ("roi_heads", "box_head", "stage", layer),
        ("roi_heads", "box_head", _FULLY_CONNECTED.get(layer, "")),
    ):
        if (kind, *home, *rest) in ours:
            return (kind, *home, *rest)
    return None


def flat(params: Any, state: Any) -> dict[tuple[str, ...], Any]:
    """Every leaf by its path, the collection's name first."""
    return traverse_util.flatten_dict({"params": params, **state})


def unflat(leaves: dict[tuple[str, ...], Any]) -> tuple[Any, Any]:
    """The params and state of `flat`."""
    variables = traverse_util.unflatten_dict(leaves)
    return variables.pop("params"), variables
