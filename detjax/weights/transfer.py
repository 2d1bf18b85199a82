"""Initialising a run from weights of the same model, or of a backbone."""

import pathlib
from typing import Any

from flax import traverse_util

from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import UserError
from detjax.models import ema
from detjax.weights.convert import Report
from detjax.weights.read import matches

# Parameters of a detector that a classifier's file cannot have: all but the backbone, a
# pyramid inside it, and those of deformable convolutions.
NOT_OF_A_BACKBONE = (
    r"^(?!backbone\.)|^backbone\.fpn\.|\.conv2\.(bias|conv_offset_mask\.)"
)
# Layers of a classifier that a detector's region head reuses (VGG).
_FULLY_CONNECTED = {"classifier.0": "fc6", "classifier.3": "fc7"}


def start(
    run: TrainState, init_from: str | pathlib.Path, allow: str | None = None
) -> tuple[TrainState, Report]:
    """`run` with the weights of the folder `init_from`, and a report.

    The folder is a run's, or one that scripts/import_weights.py wrote. Weights of a
    backbone are loaded into `backbone`, and into the region head if it consists of the
    last layers, as in the first two-stage detectors; the rest stays as it is. Of a run
    with averaged weights (`models.ema`) these are taken. Otherwise
    all have to fit, except parameters that match `allow`, a regular expression over our
    dotted names, and keep their initialisation.

    Raises UserError with the two-sided difference if they do not.
    """
    allowed, expected = matches(allow, "train.init_allow"), matches(None, "")
    checkpoints = Checkpoints(init_from, read_only=True)
    _, params, state = checkpoints.restore_weights()
    checkpoints.close()
    ours = flat(run.params, ema.own(run.state))
    theirs = flat(*ema.weights(params, state))
    if not any(path[1] == "backbone" for path in theirs):
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


def _home(path: tuple[str, ...], ours) -> tuple[str, ...] | None:
    """The detector's path for a backbone's `path`; None if it is not used."""
    kind, layer, *rest = path
    for home in (
        ("backbone", "body", layer),
        ("backbone", layer),
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
