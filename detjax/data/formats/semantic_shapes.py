"""The pictures of `shapes` with a class for every pixel."""

from typing import Any

import numpy as np

from detjax import settings
from detjax.data import label_maps
from detjax.data.formats import shapes
from detjax.data.records import Catalogue, Dataset, Reading, Record, collect
from detjax.settings import Count, Seed

TASK = "segmentation"
POOL = None
CLASSES = ("background", *shapes.CLASSES)


def record(i: int, split: str, size: int, seed: int) -> Record:
    """Picture number `i` of a split, of `size` x `size`, the same as that of `shapes`.

    What is seen of objects that are almost hidden has their class too.
    """
    rng = shapes.stream(split, seed, i)
    image, owner, kinds, _ = shapes.picture(rng, size, hide=False)
    made = Record(i + 1, f"{split}_{i:06d}.png", size, size)
    made.image = shapes.encoded(image)
    made.truth = encoded(owner, kinds)
    return made


def encoded(owner: np.ndarray, kinds: list[int]) -> bytes:
    """The label map of a picture whose objects own the pixels [h w]."""
    labels = np.array([0, *(kind + 1 for kind in kinds)])[owner]
    return label_maps.encode(labels, np.ones(labels.shape, bool), len(CLASSES))


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
    """The splits train and val of drawn shapes.

    num_train, num_val: images of each.
    size: their side in pixels.
    seed: another one draws others.

    Raises UserError for invalid numbers.
    """
    given = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    settings.check_all("semantic_shapes", catalogues, given)
    return shapes.drawn(read_entry, CLASSES, num_train, num_val, size=size, seed=seed)


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: collect(c) for s, c in catalogues(**arguments).items()}


def digests(**arguments: Any) -> dict[str, str]:
    """A text that identifies each split of `read_splits`."""
    told = shapes.digests(**arguments)
    return {s: f"label maps of {text}" for s, text in told.items()}
