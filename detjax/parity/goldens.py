"""Outputs of original implementations, and their random weights and inputs.

A golden is a JSON file with the answers of an original implementation for weights and
images that anyone can draw again. Nothing is fixed here: seeds, shapes and scales come
from the file.
"""

import json
import pathlib
import re
import zlib
from typing import Any, NamedTuple

import numpy as np

from detjax.types import Objects


class Golden(NamedTuple):
    """A golden file, and the state dict that its recipe draws.

    A file may say in `settings` how its model departs from the original it names.
    """

    name: str
    facts: dict[str, Any]
    state_dict: dict[str, np.ndarray]


def read(path: str | pathlib.Path) -> Golden:
    """The golden at `path`."""
    path = pathlib.Path(path)
    facts = json.loads(path.read_text())
    return Golden(path.stem, facts, draw_weights(facts))


def settings(facts: dict[str, Any]) -> dict[str, Any]:
    """The keywords by which a golden's model departs from the original it names."""
    return {name: frozen(value) for name, value in facts.get("settings", {}).items()}


def joined(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`settings` with `changes`; those of a stage join the others of the stage."""
    held = {
        name: {**settings.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return settings | held


def frozen(value: Any) -> Any:
    """`value` with tuples for the lists of JSON: modules take what can be hashed."""
    if isinstance(value, dict):
        return {name: frozen(each) for name, each in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def draw_weights(facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """The state dict of a golden, drawn by name and shape."""
    listed = facts["manifest"] if "manifest" in facts else facts["state_dict"]
    drawn = {name: draw(name, tuple(shape), facts) for name, shape in listed}
    for tweak in facts.get("tweaks", ()):
        adjust(drawn[tweak["parameter"]], tweak)
    note = facts.get("recipe_note", "")
    for name in re.findall(r"([\w.]+): the sign of the draw", note):
        drawn[name] = np.sign(drawn[name])
    found = re.search(r"([\d.]+) is added", note)
    if found and "conf_layer.bias" in note:
        offset = float(found[1])
        for name, value in drawn.items():
            if name.endswith("conf_layer.bias"):
                # (anchors, classes) with the background first, per the note.
                classes = background_period(facts)
                value.reshape(-1, classes)[:, 0] += offset
    return drawn


def background_period(facts: dict[str, Any]) -> int:
    """Classes with background, from the shape of the file's own output."""
    return int(facts["outputs"]["conf"]["shape"][-1])


def draw(name: str, shape: tuple[int, ...], facts: dict[str, Any]) -> np.ndarray:
    """One array of the recipe."""
    rng = np.random.default_rng([facts["seed"], zlib.crc32(name.encode())])
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        value = rng.uniform(*norm_scale(name, facts), shape)
    elif len(shape) < 2:
        value = 0.1 * rng.standard_normal(shape)
    else:
        gain = by_layer(name, facts.get("gain", 2.0))
        fan_in = np.prod(shape[1:])
        value = np.sqrt(gain / fan_in) * rng.standard_normal(shape)
    return np.asarray(value, np.float32)


def norm_scale(name: str, facts: dict[str, Any]) -> tuple[float, float]:
    """The range of a norm's scale: one for all, or by where the name starts."""
    scale = by_layer(name, facts["norm_scale"])
    if isinstance(scale, dict):
        scale = scale["backbone" if name.startswith("backbone") else "other"]
    note = facts.get("norm_scale_note", "")
    found = re.search(
        r"outside ([\w.]+) the norm scale is \(([\d.]+), ([\d.]+)\)", note
    )
    if found and not name.startswith(found[1]):
        scale = float(found[2]), float(found[3])
    return tuple(scale)


def by_layer(name: str, held: Any) -> Any:
    """What `held` has for `name` or its layer, where some have their own."""
    if isinstance(held, dict) and "names" in held:
        return held["names"].get(name, held["default"])
    if not isinstance(held, dict) or "layers" not in held:
        return held
    return held["layers"].get(name.partition(".")[0], held["default"])


def adjust(value: np.ndarray, tweak: dict[str, Any]) -> None:
    """Changes `value`, or some columns of it seen as `view`, as a golden's tweak says.

    Numbers are of each row, or of all.
    """
    columns = value
    if "view" in tweak:
        columns = value.reshape(tweak["view"])[:, slice(*tweak["columns"])]
    for name, change in (("multiply", np.multiply), ("add", np.add)):
        if name in tweak:
            by = np.asarray(tweak[name], np.float32)
            rows = by.reshape(-1, *[1] * (columns.ndim - 1)) if by.ndim else by
            change(columns, rows, out=columns)


def draw_images(shape: list[int], seed: int) -> np.ndarray:
    """The images [n h w 3] of a golden, in [0, 1]."""
    n, h, w, channels = shape
    rng = np.random.default_rng([seed, 7])
    y, x = np.mgrid[0:h, 0:w] / 32.0
    images = np.zeros(shape)
    for i in range(n):
        for c in range(channels):
            for _ in range(6):
                fy, fx = rng.uniform(-2, 2), rng.uniform(-2, 2)
                p, a = rng.uniform(0, 6.28), rng.uniform(0.2, 1)
                images[i, :, :, c] += a * np.sin(fy * y + fx * x + p)
    images -= images.min()
    return (images / images.max()).astype(np.float32)


def ellipse(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The filled ellipse inscribed in `box` xyxy, sampled at pixel centres, [h w]."""
    x1, y1, x2, y2 = box
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    rx, ry = (x2 - x1) / 2, (y2 - y1) / 2
    return ((x - (x1 + x2) / 2) / rx) ** 2 + ((y - (y1 + y2) / 2) / ry) ** 2 <= 1


def summary(value: np.ndarray, places: int = 16) -> dict[str, Any]:
    """A value as goldens hold it: its shape, its moments, some of its entries."""
    value = np.asarray(value, np.float64)
    rng = np.random.default_rng(value.size)
    index = rng.choice(value.size, min(places, value.size), replace=False)
    return {
        "shape": list(value.shape),
        "mean": float(value.mean()),
        "std": float(value.std()),
        "index": np.sort(index).tolist(),
        "value": value.reshape(-1)[np.sort(index)].tolist(),
    }


def empty_objects(b: int, n: int, size: tuple[int, int], keypoints: int = 0) -> Objects:
    """Room for n objects of each of b images of `size` (h, w), with whole masks."""
    return Objects(
        boxes=np.zeros((b, n, 4), np.float32),
        labels=np.zeros((b, n), np.int32),
        valid=np.zeros((b, n), bool),
        crowd=np.zeros((b, n), bool),
        masks=np.zeros((b, n, *size), np.uint8),
        keypoints=np.zeros((b, n, keypoints, 3), np.float32) if keypoints else None,
    )


def summary_error(value: np.ndarray, summary: dict[str, Any]) -> float:
    """Largest error at the golden's positions and of its moments, in units of its std.

    Raises ValueError where the shapes differ.
    """
    value = np.asarray(value, np.float64)
    if list(value.shape) != list(summary["shape"]):
        raise ValueError(f"shape {value.shape}, the original has {summary['shape']}")
    at = value.reshape(-1)[np.asarray(summary["index"])]
    errors = np.abs(at - np.asarray(summary["value"]))
    moments = (value.mean() - summary["mean"], value.std() - summary["std"])
    return float(max(errors.max(), *np.abs(moments)) / max(summary["std"], 1e-12))


def known_error(value: np.ndarray, summary: dict[str, Any]) -> float:
    """`summary_error` of a value some of whose entries are NaN: of the others."""
    value = np.asarray(value, np.float64)
    if list(value.shape) != list(summary["shape"]):
        raise ValueError(f"shape {value.shape}, the original has {summary['shape']}")
    at = value.reshape(-1)[np.asarray(summary["index"], int)]
    errors = np.abs(at - np.asarray(summary["value"], float))[~np.isnan(at)]
    # What is empty has no spread.
    return float(errors.max(initial=0) / max(summary["std"] or 0.0, 1e-12))


def norms(value: np.ndarray) -> tuple[float, float]:
    """The norm of an array, and the one that torch has on a CPU.

    torch adds the squares up in eight float32 sums, which lose a thousandth of ten
    million small numbers.
    """
    if value.ndim in (2, 4):
        # In the order of torch's layout, since the order decides what is lost.
        value = np.moveaxis(value, (-1, -2), (0, 1))
    lanes = np.pad(value.ravel(), (0, -value.size % 8)).reshape(-1, 8)
    sums = np.add.accumulate(lanes**2, axis=0, dtype=np.float32)[-1]
    exact = np.linalg.norm(lanes.astype(np.float64))
    return float(exact), float(np.sqrt(sums.sum(dtype=np.float64)))


def relative(value: float, expected: float, floor: float = 1e-12) -> float:
    """|value - expected| relative to the expected size."""
    return abs(float(value) - expected) / max(abs(expected), floor)
