"""Synthetic pictures of one coloured shape each, for classification.

They are drawn as those of `shapes`, of seven kinds, before the same backgrounds.
"""

from typing import Any

from detjax import settings
from detjax.data.formats import shape_tree, shapes
from detjax.data.records import Catalogue, Dataset, Reading, Record, collect
from detjax.settings import Count, Seed

TASK = "classification"
POOL = None
# Sizes and places of shapes as shares of the picture's side. What is small or at the
# edge is learnt by heart first, by its colour, and a small network takes long to see
# more than that.
SPAN, CENTRES = (0.5, 0.9), (0.4, 0.6)
CLASSES = tuple(sorted(shape_tree.LEAVES))
# Increment on any change of the images.
EDITION = 1


def record(i: int, split: str, size: int, seed: int) -> Record:
    """Picture number `i` of a split, of `size` x `size`."""
    rng = shapes.stream(split, seed, i)
    image, _, labels, _ = shapes.picture(
        rng, size, CLASSES, most=1, span=SPAN, centres=CENTRES
    )
    made = Record(i + 1, f"{split}_{i:06d}.png", size, size)
    made.image = shapes.encoded(image)
    made.truth = tuple(labels)
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
    """The splits train and val of drawn shapes.

    num_train, num_val: images of each.
    size: their side in pixels.
    seed: another one draws others.

    Raises UserError for invalid numbers.
    """
    given = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    settings.check_all("shape_classes", catalogues, given)
    return shapes.drawn(read_entry, CLASSES, num_train, num_val, size=size, seed=seed)


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: collect(c) for s, c in catalogues(**arguments).items()}


def digests(**arguments: Any) -> dict[str, str]:
    """A text that identifies each split of `read_splits`."""
    told = shapes.digests(**arguments)
    return {s: f"one shape each: {t}, edition {EDITION}" for s, t in told.items()}
