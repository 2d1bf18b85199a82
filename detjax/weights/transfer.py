"""Initialising a run from weights of the same model, or of one with its backbone.

What is shared is the backbone; its layers are called alike in all models, but for where
they are:

    conv1                 a backbone by itself
    backbone.conv1        classifiers, YOLACT
    backbone.body.conv1   detectors with a pyramid inside
"""

import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax import traverse_util

from detjax.checkpoint import TrainState
from detjax.errors import UserError
from detjax.models import ema
from detjax.types import Model
from detjax.weights import darknet, source
from detjax.weights.convert import Report
from detjax.weights.read import matches

Path = tuple[str, ...]
Leaves = dict[Path, Any]

# Parameters of a detector's backbone that a classifier's cannot have: a pyramid or
# extra levels inside it, and those of deformable convolutions.
NOT_OF_A_BACKBONE = (
    r"^backbone\.(fpn\.|scale_weight$|extra\.[1-9])"
    r"|^backbone\.extra\.0\.\d+\.\d|\.conv2\.(bias|conv_offset_mask\.)"
)
# SSD's VGG-16 has its last group of convolutions in a list of their own.
_LAST_GROUP = {
    "features.24": "extra.0.1",
    "features.26": "extra.0.3",
    "features.28": "extra.0.5",
}
# Layers of a classifier that a detector's region head reuses (VGG), and per-pixel
# networks as convolutions.
_FULLY_CONNECTED = {"classifier.0": "fc6", "classifier.3": "fc7"}


def start(
    run: TrainState,
    init_from: str | pathlib.Path,
    allow: str | None = None,
    model: Model | None = None,
) -> tuple[TrainState, Report]:
    """`run` with the weights of the folder or file `init_from`, and a report.

    The folder is a run's, or one that scripts/import_weights.py wrote; see
    `source.read` for the checkpoint that is taken. A file is one of darknet, for a
    model of darknet; it may end before the last layer.

    The backbone has to fit as a whole, whatever model it is part of: the source's or
    `model`'s may be a classifier, a detector or a backbone by itself. Layers of a
    region head that goes on with the last layers of a classifier are taken too, as in
    the first two-stage detectors, and as convolutions by per-pixel networks on VGG.
    Of the other parts what fits is taken where both are the same model; the rest, such
    as heads of other classes, stays as it is. Of networks of darknet, whose layers have
    numbers, the first one has to fit, and what fits of the others is taken.
    Parameters that match `allow`, a regular expression over our dotted names, need not
    fit.

    Raises UserError with the two-sided difference if the backbone does not fit, and if
    nothing does.
    """
    if pathlib.Path(init_from).is_file():
        return _of_file(run, init_from)
    allowed = matches(allow, "train.init_allow")
    held = source.read(init_from)
    ours = flat(run.params, ema.own(run.state))
    theirs = flat(held.params, held.state)
    needed = _needed(ours, theirs, dict(model.spec.groups) if model else {})
    if not any(path in theirs for path in ours if needed(_name(path))):
        bare = {_bare(path): value for path, value in theirs.items()}
        theirs = {_home(path, ours) or path: value for path, value in bare.items()}
    theirs = {_reused(path, ours) or path: value for path, value in theirs.items()}
    filled: Leaves = {}
    taken, left, wrong = [], [], []
    for path, old in ours.items():
        name, value = _name(path), _convolved(theirs.get(path), old)
        if value is not None and value.shape == old.shape:
            filled[path] = value
            taken.append(name)
            continue
        filled[path] = old
        left.append(name)
        if needed(name) and not allowed(name):
            found = "nothing" if value is None else value.shape
            wrong.append(f"{name}: {found} in the file, {old.shape} in the model")
    unused = sorted(map(_name, theirs.keys() - ours.keys()))
    wrong += [
        f"only in the file: {name}"
        for name in _skipped(taken, unused)
        if not allowed(name)
    ]
    if wrong and ours.keys() & theirs.keys():
        listed = "\n  ".join(wrong[:30])
        raise UserError(
            f"{init_from} does not fit the model in {len(wrong)} places; set "
            "model.backbone as it is there, or train.init_allow to a regular "
            f"expression of what may differ:\n  {listed}"
        )
    if not taken:
        raise UserError(
            f"nothing in {init_from} fits the model: there parameters are called "
            f"{min(map(_name, theirs))} and so on, here {min(map(_name, ours))}; "
            "take weights of the same backbone, of the same width"
        )
    params, state = unflat(filled)
    # An average begins as a copy of the weights at the first update.
    state |= {name: x for name, x in run.state.items() if name == ema.EMA}
    run = TrainState(run.step, params, state, run.opt_state, run.key)
    return run, Report(taken, left, unused)


def _needed(
    ours: Leaves, theirs: Leaves, groups: Mapping[str, str]
) -> Callable[[str], bool]:
    """A predicate of names: whether they are of the backbone, which has to fit."""
    if all(path[1].isdecimal() for path in ours):
        wrong = [
            int(path[1])
            for path, old in ours.items()
            if path not in theirs or theirs[path].shape != old.shape
        ]
        until = min(wrong, default=None)
        if until == min(int(path[1]) for path in ours):
            return lambda name: True
        return lambda name: until is None or int(name.partition(".")[0]) < until
    named = any(path[1] == "backbone" for path in ours)
    backbone = groups.get("backbone", r"^backbone\." if named else "")
    return lambda name: bool(
        re.search(backbone, name) and not re.search(NOT_OF_A_BACKBONE, name)
    )


def _skipped(taken: Iterable[str], unused: Iterable[str]) -> list[str]:
    """Those `unused` that others like them follow which are `taken`.

    A detector that reads fewer levels leaves a backbone's last layers; layers left out
    in its midst are those of a deeper network.
    """
    last: dict[str, list[int]] = {}
    for name in taken:
        form, numbers = _numbered(name)
        last[form] = max(last.get(form, numbers), numbers)
    found = [(name, *_numbered(name)) for name in unused]
    return [name for name, form, at in found if form in last and at < last[form]]


def _numbered(name: str) -> tuple[str, list[int]]:
    """`name` with every number replaced by #, and the numbers."""
    return re.sub(r"\d+", "#", name), [int(n) for n in re.findall(r"\d+", name)]


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


def _convolved(value: Any, old: Any) -> Any:
    """The matrix of a layer on a flattened map as the kernel of a convolution.

    Where `old` is one of as many numbers; anything else is returned as it is.
    """
    if value is None or value.ndim != 2 or old.ndim != 4 or value.size != old.size:
        return value
    return value.reshape(old.shape) if value.shape[1] == old.shape[3] else value


def _home(path: Path, ours: Leaves) -> Path | None:
    """The detector's path for a backbone's `path`; None if it is not used."""
    kind, layer, *rest = path
    if not rest:
        return None
    for home in (
        ("backbone", "body", layer),
        ("backbone", layer),
        ("backbone", _LAST_GROUP.get(layer, "")),
        ("roi_heads", "box_head", "stage", layer),
        ("roi_heads", "box_head", _FULLY_CONNECTED.get(layer, "")),
        (_FULLY_CONNECTED.get(layer, ""),),
    ):
        if (kind, *home, *rest) in ours:
            return (kind, *home, *rest)
    return None


def _reused(path: Path, ours: Leaves) -> Path | None:
    """Our path for a classifier's layer that a per-pixel network convolves, if any."""
    bare = _bare(path)
    return _home(bare, ours) if bare[1] in _FULLY_CONNECTED else None


def _bare(path: Path) -> Path:
    """The path in a backbone by itself of a classifier's or detector's `path`."""
    kind, *rest = path
    for prefix in (
        ["backbone", "body"],
        ["backbone"],
        ["roi_heads", "box_head", "stage"],
    ):
        if rest[: len(prefix)] == prefix:
            layer, *inner = rest[len(prefix) :] or [""]
            former = {new: old for old, new in _LAST_GROUP.items()}
            return (kind, former.get(layer, layer), *inner)
    return path


def _name(path: Path) -> str:
    """The dotted name of a leaf, without its collection."""
    return ".".join(path[1:])


def flat(params: Any, state: Any) -> Leaves:
    """Every leaf by its path, the collection's name first."""
    return traverse_util.flatten_dict({"params": params, **state})


def unflat(leaves: Leaves) -> tuple[Any, Any]:
    """The params and state of `flat`."""
    variables = traverse_util.unflatten_dict(leaves)
    return variables.pop("params"), variables
