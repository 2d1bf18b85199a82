"""State dicts of torch models <-> variables, name by name, strict both ways."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from detjax.backbones.lenet import connections
from detjax.errors import UserError
from detjax.weights.names import LEFTOVERS, modern, spell
from detjax.weights.read import finite, matches, shown

StateDict = Mapping[str, np.ndarray]

# Heads whose background is class 0 in the source and the last class here, with the
# channels per class: all channels are (anchors, classes, these) flattened.
BACKGROUND_FIRST = {
    "yolact": {r"conf_layer\.(weight|bias)$": 1},
    "torchvision": {
        r"box_predictor\.cls_score\.(weight|bias)$": 1,
        r"box_predictor\.bbox_pred\.(weight|bias)$": 4,
        r"mask_fcn_logits\.(weight|bias)$": 1,
        r"classification_head\.module_list\.\d+(\.1)?\.(weight|bias)$": 1,
    },
}
# Layers on a flattened map, which is channels first in the source, and its rows.
FLATTENED = {
    "torchvision": (r"box_head\.(fc6|\d+)\.weight$|^classifier\.0\.weight$", 7)
}
# Kernels of which some exist alone, as pairs of outputs and inputs, and whose shape in
# the source is of all: LeNet-5's third layer.
CONNECTED = {"lenet": {"c3.weight": (*connections(), (16, 6, 5, 5))}}


# Kernels on pixels whose channels are BGR in the source.
REVERSED = {
    "hed": r"^features\.0\.weight$",
    "cornernet": r"^pre\.0\.conv\.weight$",
    "cornernet_lite": r"^hg\.pre\.0\.conv\.weight$",
    "centernet": r"^(conv1|base\.base_layer\.0)\.weight$",
    "centernet_hourglass": r"^pre\.0\.conv\.weight$",
}


class Report(NamedTuple):
    """The report of an import."""

    loaded: list[str]  # keys of the source
    left: list[str]  # our parameters that keep their initialisation
    unused: list[str]  # unused keys of the source


def to_ours(value: np.ndarray, key: str, source: str, classes: int | None):
    """`value` in our layout: kernels [h w in out], dense [in out], background last."""
    value = shift_background(value, key, source, classes, -1)
    if re.search(REVERSED.get(source, r"^$"), key):
        value = value[:, ::-1]
    side = flattened(key, source)
    if side and value.ndim == 2 and value.shape[1] % side**2 == 0:
        value = value.reshape(len(value), -1, side, side).transpose(0, 2, 3, 1)
        value = value.reshape(len(value), -1)
    return turned(value)


def turned(value: np.ndarray) -> np.ndarray:
    """A view of `value` with its axes in our order."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value


def to_theirs(value: np.ndarray, key: str, source: str, classes: int | None):
    """The inverse of `to_ours`."""
    if value.ndim == 4:
        value = value.transpose(3, 2, 0, 1)
    elif value.ndim == 2:
        value = value.T
        side = flattened(key, source)
        if side and value.shape[1] % side**2 == 0:
            value = value.reshape(len(value), side, side, -1).transpose(0, 3, 1, 2)
            value = value.reshape(len(value), -1)
    if re.search(REVERSED.get(source, r"^$"), key):
        value = value[:, ::-1]
    return shift_background(value, key, source, classes, 1)


def flattened(key: str, source: str) -> int | None:
    """Rows of the map that the layer of `key` flattens; None for others."""
    pattern, side = FLATTENED.get(source, (r"^$", 0))
    return side if re.search(pattern, key) else None


def shift_background(
    value: np.ndarray, key: str, source: str, classes: int | None, by: int
) -> np.ndarray:
    """`value` with its classes rolled `by` places, where `key` names such a head."""
    for pattern, each in BACKGROUND_FIRST.get(source, {}).items():
        if classes and re.search(pattern, key):
            grouped = value.reshape(-1, classes + 1, each, *value.shape[1:])
            return np.roll(grouped, by, axis=1).reshape(value.shape)
    return value


def load(
    state_dict: StateDict,
    params: Any,
    state: Any,
    *,
    source: str,
    classes: int | None = None,
    allow: str | None = None,
) -> tuple[Any, Any, Report]:
    """`params` and `state` (arrays or shapes) filled from `state_dict` of `source`.

    `classes` is the model's number of classes, without background, if its head is
    imported. `allow` is a regular expression over source keys that may be missing,
    unused, of another shape, or not finite: those parameters stay as they are and have
    to be arrays.

    Raises UserError with the two-sided difference if names or shapes do not fit, if an
    array is not finite, or if `allow` is not a regular expression or matches nothing.
    """
    allowed = matches(allow, "--allow")
    state_dict = renamed(state_dict, source)
    variables = traverse_util.flatten_dict({"params": params, **state}, sep=None)
    keys = {path: spell(".".join(path[1:]), source) for path in variables}
    if allow is not None and not any(map(allowed, {*keys.values(), *state_dict})):
        raise UserError(
            f"--allow={allow} matches no name of the file or the model; leave it out, "
            f"or write it like {next(iter(keys.values()))}"
        )
    filled, taken, left, wrong = {}, [], [], []
    for path, old in variables.items():
        key = keys[path]
        value, why = fitted(state_dict.get(key), old, key, source, classes)
        if why is None:
            filled[path] = value
            taken.append(key)
        elif allowed(key):
            filled[path] = old
            left.append(key)
        else:
            wrong.append((key, why))
    dead = LEFTOVERS.get(source, r"^$") + r"|num_batches_tracked$"
    rest = {key for key in state_dict if not re.search(dead, key)} - set(taken)
    unused = sorted(filter(allowed, rest))
    wrong += [
        (key, f"only in the file: {shown(key)} {state_dict[key].shape}")
        for key in sorted(rest - set(unused) - {key for key, _ in wrong})
    ]
    if wrong:
        rows = [why for _, why in wrong[:20]]
        rows += [f"and {len(wrong) - 20} more"] * (len(wrong) > 20)
        listed = "\n  ".join(rows)
        raise UserError(
            f"the file does not fit the model in {len(wrong)} places; name what may "
            f"differ with --allow=REGEX:\n  {listed}"
        )
    variables = traverse_util.unflatten_dict(filled)
    params = variables.pop("params")
    return params, variables, Report(taken, left, unused)


def renamed(state_dict: StateDict, source: str) -> dict[str, np.ndarray]:
    """`state_dict` by the current names of `source`.

    Raises UserError for duplicates.
    """
    held: dict[str, np.ndarray] = {}
    for former, value in state_dict.items():
        key = modern(former, source, state_dict.keys())
        if key in held:
            raise UserError(
                f"the file has {shown(key)} twice, under a former name too; remove one"
            )
        value = np.asarray(value)
        outs, seen, whole = CONNECTED.get(source, {}).get(key, (None, None, None))
        held[key] = value[outs, seen] if value.shape == whole else value
    return held


def fitted(
    value: np.ndarray | None, old: Any, key: str, source: str, classes: int | None
) -> tuple[jax.Array | None, str | None]:
    """`value`, of `source`'s `key`, as replacement of `old`, or why it does not fit."""
    if value is None:
        return None, f"only in the model: {key} {old.shape}"
    # Sizes first: converting an array that does not fit may copy any amount of memory.
    same = value.size == math.prod(old.shape)
    if same:
        value = to_ours(value, key, source, classes_of(value, classes))
    if not same or value.shape != old.shape:
        shape = value.shape if same else turned(value).shape
        return None, f"{key}: {shape} in the file, {old.shape} in the model"
    if not finite(value, old.dtype):
        return None, f"{key}: NaN or infinity in the file"
    return jnp.asarray(value, old.dtype), None


def classes_of(value: np.ndarray, classes: int | None) -> int | None:
    """`classes` if it divides the head's channels, else None (a different head)."""
    if classes is None or value.ndim == 0 or value.shape[0] % (classes + 1):
        return None
    return classes


def export(
    params: Any, state: Any, *, source: str, classes: int | None = None
) -> dict[str, np.ndarray]:
    """The state dict of `source` that holds `params` and `state`; `load` inverts it."""
    flat = traverse_util.flatten_dict({"params": params, **state})
    held = {}
    for path, value in flat.items():
        key = spell(".".join(path[1:]), source)
        value = np.asarray(jax.device_get(value))
        if key in CONNECTED.get(source, {}) and value.ndim == 3:
            outs, seen, shape = CONNECTED[source][key]
            whole = np.zeros(shape, value.dtype)
            whole[outs, seen] = value
            held[key] = whole
            continue
        held[key] = np.ascontiguousarray(to_theirs(value, key, source, classes))
    return held
