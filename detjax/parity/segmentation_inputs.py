"""Images and label maps of goldens of per-pixel networks, and which classes win."""

import dataclasses
from typing import Any

import numpy as np

from detjax.parity import goldens
from detjax.types import Batch, Inputs, LabelMap, View


def label_maps(described: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The labels [n h w] uint8 that `described` says, and which are not ignored.

    Ignored pixels have label 0. Raises ValueError where it counts others.
    """
    held = drawn_map(described)
    values, counts = np.unique(held, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    counted = {int(value): count for value, count in described["count"].items()}
    if found != counted:
        raise ValueError(f"the label map drawn has {found}, the golden's {counted}")
    valid = held != described["ignore"]
    return np.where(valid, held, 0).astype(np.uint8), valid


def drawn_map(described: dict[str, Any]) -> np.ndarray:
    """Overlapping ellipses [n h w]: seven of drawn classes, an eighth is ignored."""
    n, h, w = described["shape"]
    rng = np.random.default_rng([described["seed"], 5])
    y, x = np.mgrid[0:h, 0:w] + 0.5
    held = np.zeros((n, h, w), np.int32)
    for one in held:
        for j in range(8):
            cy, cx = rng.uniform(0, h), rng.uniform(0, w)
            ry, rx = rng.uniform(0.1, 0.4) * h, rng.uniform(0.1, 0.4) * w
            label = rng.integers(1, described["classes"])
            inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
            one[inside] = described["ignore"] if j == 7 else label
    return held


def images(described: dict[str, Any]) -> np.ndarray:
    """The images [n h w c] of a golden's input, which says "x * 4 - 2"."""
    if not described["then"].startswith("x * 4 - 2"):
        raise ValueError(f"images are moved by {described['then']!r}, not x * 4 - 2")
    drawn = goldens.draw_images(described["shape"], described["seed"])
    return drawn * np.float32(4) - np.float32(2)


def batch(facts: dict[str, Any], weights: Any = None) -> Batch:
    """A golden's images and label maps; `weights` of the classes, where it has some."""
    labels, valid = label_maps(facts["train"]["target"])
    b, h, w = labels.shape
    view = View(
        affine=np.tile(np.eye(3, dtype=np.float32)[:2], (b, 1, 1)),
        sizes=np.tile(np.array([h, w], np.int32), (b, 1)),
        valid=np.ones(b, bool),
    )
    if weights is not None:
        weights = np.tile(np.asarray(weights, np.float32), (b, 1))
    return Batch(
        Inputs(images(facts["input"]), view),
        LabelMap(labels, valid, weights),
        np.arange(b, dtype=np.int32),
    )


def with_images(batch: Batch, images: np.ndarray) -> Batch:
    """`batch` with other images."""
    changed = dataclasses.replace(batch.inputs, images=images)
    return dataclasses.replace(batch, inputs=changed)


def winners(scores: np.ndarray) -> dict[str, Any]:
    """How many pixels of scores [n c h w] each class wins, and how many are near ties.

    A tie is near where the two best differ by less than 1e-4 of the scores' std.
    """
    scores = np.asarray(scores)
    count = np.bincount(scores.argmax(axis=1).ravel(), minlength=scores.shape[1])
    second, first = np.partition(scores, -2, axis=1)[:, -2:].swapaxes(0, 1)
    near = (first - second < 1e-4 * scores.std(dtype=np.float64)).sum()
    return {"count": count.tolist(), "closer_than_1e-4_std": int(near)}


def moved(scores: np.ndarray, expected: dict[str, Any]) -> int:
    """Pixels of scores [n c h w] that another class wins than in the original.

    As far as counts of classes tell. Near ties may go either way and do not count.
    """
    apart = np.abs(np.subtract(winners(scores)["count"], expected["count"])).sum() // 2
    return max(int(apart) - expected["closer_than_1e-4_std"], 0)
