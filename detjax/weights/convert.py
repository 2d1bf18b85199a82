"""State dicts of torch models <-> variables, name by name, strict both ways."""

import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from detjax.weights.names import LEFTOVERS, modern, spell

StateDict = Mapping[str, np.ndarray]

# Heads whose background is class 0 in the source and the last class here, and how many
# channels each class has: all channels are (anchors, classes, these) flattened.
BACKGROUND_FIRST = {
    "yolact": {r"conf_layer\.(weight|bias)$": 1},
    "torchvision": {
        r"box_predictor\.cls_score\.(weight|bias)$": 1,
        r"box_predictor\.bbox_pred\.(weight|bias)$": 4,
        r"mask_fcn_logits\.(weight|bias)$": 1,
    },
}
# Layers on a flattened map: the source has its channels first, and so many rows.
FLATTENED = {
    "torchvision": (r"box_head\.(fc6|\d+)\.weight$|^classifier\.0\.weight$", 7)
}


class Report(NamedTuple):
    """What an import did."""

    loaded: list[str]  # keys of the source
    left: list[str]  # our parameters that stay at their initialisation
    unused: list[str]  # keys of the source that nothing takes


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors, .pth or .pt file by name.

    torch is needed for the latter two only. Raises ValueError where the file holds no
    state dict, ImportError where torch is needed and absent.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from None
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} is a torch file and torch is not installed; install torch, or "
            "convert the file to .safetensors"
        ) from error
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        why = (str(error) or "it is empty").splitlines()[0]
        raise ValueError(f"{path} is no torch file of weights: {why}") from None
    if not isinstance(held, Mapping):
        raise ValueError(f"{path} holds a {type(held).__name__}, not a state dict")
    for wrapper in ("state_dict", "model"):
        held = held.get(wrapper, held)
    return {
        name: value.numpy() for name, value in held.items() if hasattr(value, "numpy")
    }


def to_ours(value: np.ndarray, key: str, source: str, classes: int | None):
    """`value` in our layout: kernels [h w in out], dense [in out], background last."""
    value = shift_background(value, key, source, classes, -1)
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    side = flattened(key, source)
    if side and value.ndim == 2 and value.shape[1] % side**2 == 0:
        value = value.reshape(len(value), -1, side, side).transpose(0, 2, 3, 1)
        value = value.reshape(len(value), -1)
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
    return shift_background(value, key, source, classes, 1)


def flattened(key: str, source: str) -> int | None:
    """Rows of the map that the layer of `key` reads flattened; None for others."""
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

    `classes` is the model's number of classes, without background, where its head is
    imported. `allow` is a regular expression over source keys that may be missing, left
    over, or of another shape: those parameters stay as they are, which takes arrays.

    Raises ValueError with the two-sided difference where names or shapes do not fit.
    """
    state_dict = {modern(key, source): value for key, value in state_dict.items()}
    variables = traverse_util.flatten_dict({"params": params, **state}, sep=None)
    filled, taken, left, wrong = {}, [], [], []
    for path, old in variables.items():
        key = spell(".".join(path[1:]), source)
        value = state_dict.get(key)
        if value is not None:
            value = to_ours(np.asarray(value), key, source, classes_of(value, classes))
        if value is not None and value.shape == old.shape:
            filled[path] = jnp.asarray(value, old.dtype)
            taken.append(key)
        elif allow and re.search(allow, key):
            filled[path] = old
            left.append(key)
        elif value is None:
            wrong.append(f"only in the model: {key} {old.shape}")
        else:
            wrong.append(f"{key}: {value.shape} in the file, {old.shape} in the model")
    dead = LEFTOVERS.get(source, r"^$") + r"|num_batches_tracked$"
    rest = {key for key in state_dict if not re.search(dead, key)} - set(taken)
    unused = sorted(k for k in rest if allow and re.search(allow, k))
    shaped_wrong = {row.split(":")[0] for row in wrong}
    wrong += [
        f"only in the file: {k} {tuple(state_dict[k].shape)}"
        for k in sorted(rest - set(unused) - shaped_wrong)
    ]
    if wrong:
        listed = "\n  ".join(wrong[:30])
        raise ValueError(
            f"the file does not fit the model in {len(wrong)} places; name what may "
            f"differ with --allow=REGEX:\n  {listed}"
        )
    variables = traverse_util.unflatten_dict(filled)
    params = variables.pop("params")
    return params, variables, Report(taken, left, unused)


def classes_of(value: np.ndarray, classes: int | None) -> int | None:
    """`classes` where it divides the head's channels, else None: another's head."""
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
        held[key] = np.ascontiguousarray(to_theirs(value, key, source, classes))
    return held
