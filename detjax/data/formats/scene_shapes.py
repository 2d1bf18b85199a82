"""Synthetic scenes: coloured shapes at known depths, in haze, with label maps.

Shapes of 1 m stand 2 to 9 m before the camera, in front of a wall at 10 m. They look
the smaller and the paler the further they are, and hide what is behind them.
"""

from typing import Any

import cv2
import numpy as np

from detjax import settings
from detjax.data import value_maps
from detjax.data.formats import semantic_shapes, shapes
from detjax.data.records import Catalogue, Dataset, Reading, Record, collect
from detjax.settings import Count, Seed

TASK = "scene"
POOL = None
CLASSES = semantic_shapes.CLASSES
NEAR, FAR, WALL = 2.0, 9.0, 10.0  # metres
MOST_OBJECTS = 7
# A shape of 1 m at 1 m, in shares of the picture's side.
_FOCAL = 1.1
_HAZE = np.array((200, 205, 215), np.float32)
_VISIBILITY = 8.0  # metres in which the contrast falls to 1 / e
# Increment on any change of the images.
EDITION = 1


def scene(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray, list[int], np.ndarray]:
    """An image [h w 3] uint8, who owns each pixel, each object's class, depth [h w].

    Object i owns the pixels of value i + 1, and 0 is the wall. Depths are in metres.
    """
    canvas = shapes.background(rng, size)
    owner = np.zeros((size, size), np.uint8)
    depth = np.full((size, size), WALL, np.float32)
    kinds = []
    count = int(rng.integers(1, MOST_OBJECTS + 1))
    for value, metres in enumerate(sorted(rng.uniform(NEAR, FAR, count))[::-1], 1):
        kinds.append(int(rng.integers(len(shapes.CLASSES))))
        side = _FOCAL / metres
        span = (0.85 * side, 1.15 * side)
        mask = shapes.outline(rng, shapes.CLASSES[kinds[-1]], size, span)
        shapes.paint(rng, canvas, mask)
        owner[mask], depth[mask] = value, metres
    clear = np.exp(-depth / _VISIBILITY)[..., None]
    canvas = canvas * clear + _HAZE * (1 - clear)
    canvas += rng.standard_normal(canvas.shape, np.float32) * rng.uniform(1, 4)
    return np.clip(canvas, 0, 255).astype(np.uint8), owner, kinds, depth


def record(i: int, split: str, size: int, seed: int) -> Record:
    """Picture number `i` of a split, of `size` x `size`."""
    image, owner, kinds, depth = scene(shapes.stream(split, seed, i), size)
    made = Record(i + 1, f"{split}_{i:06d}.png", size, size)
    made.image = cv2.imencode(".png", image)[1].tobytes()
    made.truth = {
        "segmentation": semantic_shapes.encoded(owner, kinds),
        "dense": value_maps.encode(depth, np.ones(depth.shape, bool)),
    }
    return made


def read_entry(i: int, **which: Any) -> Reading:
    """Picture number `i`, as a catalogue has it."""
    return Reading(record(i, **which), [])


def catalogues(
    *,
    num_train: Count = 2000,
    num_val: Count = 200,
    size: shapes.Side = 128,
    seed: Seed = 0,
) -> dict[str, Catalogue]:
    """The splits train and val of drawn scenes.

    num_train, num_val: images of each.
    size: their side in pixels.
    seed: another one draws others.

    Raises UserError for invalid numbers.
    """
    given = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    settings.check_all("scene_shapes", catalogues, given)
    return shapes.drawn(read_entry, CLASSES, num_train, num_val, size=size, seed=seed)


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: collect(c) for s, c in catalogues(**arguments).items()}


def digests(**arguments: Any) -> dict[str, str]:
    """A text that identifies each split of `read_splits`."""
    told = shapes.digests(**arguments)
    return {s: f"scenes: {t}, edition {EDITION}" for s, t in told.items()}
