"""The scenes of `scene_shapes` with nothing but the depth of every pixel."""

from typing import Any

from detjax import settings
from detjax.data.formats import scene_shapes, shapes
from detjax.data.records import Catalogue, Dataset, Reading, collect
from detjax.settings import Count, Seed

TASK = "dense"
POOL = None
CLASSES = ("depth",)


def read_entry(i: int, **which: Any) -> Reading:
    """Picture number `i`, as a catalogue has it."""
    reading = scene_shapes.read_entry(i, **which)
    assert reading.record is not None
    reading.record.truth = reading.record.truth[TASK]
    return reading


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
    settings.check_all("depth_shapes", catalogues, given)
    return shapes.drawn(read_entry, CLASSES, num_train, num_val, size=size, seed=seed)


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: collect(c) for s, c in catalogues(**arguments).items()}


def digests(**arguments: Any) -> dict[str, str]:
    """A text that identifies each split of `read_splits`."""
    told = scene_shapes.digests(**arguments)
    return {s: f"depth of {text}" for s, text in told.items()}
