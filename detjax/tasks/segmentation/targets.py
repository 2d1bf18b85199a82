"""Label maps as what a batch learns: moved with the picture, by nearest neighbour."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from detjax.data import label_maps, moved_maps
from detjax.data.frames import Seen
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.settings import NonNegative
from detjax.tasks.segmentation import storage
from detjax.types import LabelMap

NO_BOXES = np.zeros((0, 4))
# What of a batch a run's log counts.
PIXELS, IGNORED = "pixels with a class", "pixels ignored"


class Truth(NamedTuple):
    """The label map of one image; there are no boxes that a crop has to keep."""

    labels: np.ndarray  # [h w] uint8 or uint16
    valid: np.ndarray  # [h w] bool
    boxes: np.ndarray = NO_BOXES


@dataclasses.dataclass(frozen=True)
class Targets:
    """Label maps at the size of the network's input.

    class_weights [c]: what a pixel of each class counts in a loss; None is 1
    reads: whether maps are read at all; an evaluation's meter does that itself
    """

    num_classes: int
    class_weights: tuple[float, ...] | None = None
    reads: bool = True

    def evaluation(self) -> "Targets":
        """The same without maps."""
        return dataclasses.replace(self, reads=False)

    def empty(
        self, count: int, size: tuple[int, int]
    ) -> tuple[LabelMap, dict[str, np.ndarray]]:
        """Room for the maps of `count` images of `size` (h, w)."""
        shape = (count, *size) if self.reads else (count, 0, 0)
        weights = None
        if self.class_weights is not None:
            weights = np.tile(np.array(self.class_weights, np.float32), (count, 1))
        room = LabelMap(
            np.zeros(shape, label_maps.dtype(self.num_classes)),
            np.zeros(shape, bool),
            weights,
        )
        return room, {name: np.zeros(count, np.int32) for name in (PIXELS, IGNORED)}

    def clear(self, target: LabelMap) -> None:
        """Makes an image's room empty again."""
        target.labels[:] = 0
        target.valid[:] = False
        if target.weights is not None:
            target.weights[:] = self.class_weights

    def read(self, record: Record, outlines: bool = False) -> Truth:
        """The truth of a record. Raises Unreadable."""
        if not self.reads:
            nothing = np.zeros((0, 0), np.uint8)
            return Truth(nothing, nothing.astype(bool))
        return Truth(*storage.read(record, self.num_classes))

    def fill(
        self, target: LabelMap, seen: Sequence[Seen], size: tuple[int, int]
    ) -> dict[str, int]:
        """Writes each map into its window, moved by the matrix of its picture.

        What is outside of all pictures is not valid. Raises UserError for blends.
        """
        ignored = 0
        for one in seen if self.reads else ():
            if one.share is not None:
                raise UserError(
                    "data.augment.mixup and cutmix put two pictures into one place, "
                    "and a pixel has one class; leave them out"
                )
            x1, y1, x2, y2 = map(int, one.window)
            into = np.eye(3)
            into[:2, 2] = -x1, -y1
            held = np.where(one.truth.valid, one.truth.labels, ignored_value(target))
            moved, inside = moved_maps.nearest(
                held, into @ one.matrix, (y2 - y1, x2 - x1)
            )
            known = moved != ignored_value(target)
            ignored += int((inside & ~known).sum())
            target.valid[y1:y2, x1:x2] = inside & known
            target.labels[y1:y2, x1:x2] = np.where(inside & known, moved, 0)
        return {PIXELS: int(target.valid.sum()), IGNORED: ignored}


def ignored_value(target: LabelMap) -> Any:
    """The value of ignored pixels while a map is moved, of its own type."""
    return target.labels.dtype.type(np.iinfo(target.labels.dtype).max)


def targets(
    info: Any,
    *,
    class_weights: Literal["median_frequency", "balanced"]
    | tuple[NonNegative, ...]
    | None = None,
) -> Targets:
    """How the label maps of the data set that `info` describes become targets.

    class_weights: what the pixels of each class count in the loss, in the order of the
        classes; "median_frequency": the median frequency of the classes by that of the
        class, in the images that have it (SegNet); "balanced": as much as those of any
        other class together.

    Raises UserError unless there is one for each class.
    """
    count = len(info.classes)
    # By name they come here as numbers: only the data set can count its pixels.
    assert not isinstance(class_weights, str)
    if class_weights is not None and len(class_weights) != count:
        raise UserError(
            f"data.class_weights has {len(class_weights)} numbers, and the data set "
            f"{count} classes; give one for each, 'median_frequency' or 'balanced'"
        )
    return Targets(count, None if class_weights is None else tuple(class_weights))


def warnings(sums: dict[str, float]) -> dict[str, str]:
    """A warning where no pixel has a class, so that nothing is learnt."""
    if sums[PIXELS]:
        return {}
    why = "all are ignored" if sums[IGNORED] else "augmentation leaves none"
    return {
        "pixels": f"no pixel of the training pictures has a class: {why}; look at the "
        "label maps and at data.augment"
    }
