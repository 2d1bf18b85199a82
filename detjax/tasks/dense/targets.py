"""Maps of numbers as what a batch learns: moved with the picture.

Values are those of the nearest pixel: a mean of two sides of an edge is the depth of
neither. They do not change where a picture is scaled, as if it were cropped and looked
at more closely: a network that is shown scaled pictures has to tell distance by what
things are, not by how large they look.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.data import moved_maps
from detjax.data.frames import Seen
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.tasks.dense import storage
from detjax.types import ValueMap

NO_BOXES = np.zeros((0, 4))
# What of a batch a run's log counts.
PIXELS = "pixels with a value"


class Truth(NamedTuple):
    """The map of one image; there are no boxes that a crop has to keep."""

    values: np.ndarray  # [h w] float32
    valid: np.ndarray  # [h w] bool
    boxes: np.ndarray = NO_BOXES


@dataclasses.dataclass(frozen=True)
class Targets:
    """Maps at the size of the network's input.

    reads: whether maps are read at all; an evaluation's meter does that itself
    """

    reads: bool = True

    def evaluation(self) -> "Targets":
        """The same without maps."""
        return dataclasses.replace(self, reads=False)

    def empty(
        self, count: int, size: tuple[int, int]
    ) -> tuple[ValueMap, dict[str, np.ndarray]]:
        """Room for the maps of `count` images of `size` (h, w)."""
        shape = (count, *size) if self.reads else (count, 0, 0)
        room = ValueMap(np.zeros(shape, np.float32), np.zeros(shape, bool))
        return room, {PIXELS: np.zeros(count, np.int32)}

    def clear(self, target: ValueMap) -> None:
        """Makes an image's room empty again."""
        target.values[:] = 0
        target.valid[:] = False

    def read(self, record: Record, outlines: bool = False) -> Truth:
        """The truth of a record. Raises Unreadable."""
        if not self.reads:
            nothing = np.zeros((0, 0), np.float32)
            return Truth(nothing, nothing.astype(bool))
        return Truth(*storage.read(record))

    def fill(
        self, target: ValueMap, seen: Sequence[Seen], size: tuple[int, int]
    ) -> dict[str, int]:
        """Writes each map into its window, moved by the matrix of its picture.

        What is outside of all pictures is not valid. Raises UserError for blends.
        """
        for one in seen if self.reads else ():
            if one.share is not None:
                raise UserError(
                    "data.augment.mixup and cutmix put two pictures into one place, "
                    "and a pixel has one value; leave them out"
                )
            x1, y1, x2, y2 = map(int, one.window)
            into = np.eye(3)
            into[:2, 2] = -x1, -y1
            held = np.where(one.truth.valid, one.truth.values, np.nan)
            moved, inside = moved_maps.nearest(
                held, into @ one.matrix, (y2 - y1, x2 - x1)
            )
            known = inside & ~np.isnan(moved)
            target.valid[y1:y2, x1:x2] = known
            target.values[y1:y2, x1:x2] = np.where(known, moved, 0)
        return {PIXELS: int(target.valid.sum())}


def targets(info: Any) -> Targets:
    """How the maps of the data set that `info` describes become targets."""
    return Targets()


def warnings(sums: dict[str, float]) -> dict[str, str]:
    """A warning where no pixel has a value, so that nothing is learnt."""
    if sums[PIXELS]:
        return {}
    return {
        "pixels": "no pixel of the training pictures has a value; look at the maps of "
        "the data set and at data.augment"
    }
