"""The labels of images as what a batch learns."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from detjax.data.frames import Seen, move_boxes
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.settings import NonNegative
from detjax.types import Label

NO_BOXES = np.zeros((0, 4))


class Truth(NamedTuple):
    """The labels of one image; there are no boxes that a crop has to keep."""

    labels: tuple[int, ...]
    size: tuple[int, int]  # (h, w) of the image
    boxes: np.ndarray = NO_BOXES


@dataclasses.dataclass(frozen=True)
class Targets:
    """Labels as weights of classes; nothing that moves with the picture.

    class_weights [c]: what the images of each class count in a loss; None is 1
    """

    num_classes: int
    class_weights: tuple[float, ...] | None = None

    def evaluation(self) -> "Targets":
        """The same: labels cost nothing."""
        return self

    def empty(
        self, count: int, size: tuple[int, int]
    ) -> tuple[Label, dict[str, np.ndarray]]:
        """Room for the labels of `count` images; nothing is counted."""
        weights = np.zeros((count, self.num_classes), np.float32)
        weighted = self.class_weights is not None
        return Label(weights, np.ones((count, 1), np.float32) if weighted else None), {}

    def clear(self, target: Label) -> None:
        """Makes an image's room empty again."""
        target.weights[:] = 0
        if target.importance is not None:
            target.importance[:] = 1

    def read(self, record: Record, outlines: bool = False) -> Truth:
        """The truth of a record. Raises Unreadable where it has no label."""
        if not record.truth:
            raise Unreadable("the image has no class")
        return Truth(record.truth, (record.height, record.width))

    def fill(
        self, target: Label, seen: Sequence[Seen], size: tuple[int, int]
    ) -> dict[str, int]:
        """Sets the weights of the labels to 1.

        Of several pictures in one input, to their shares where they have some, else to
        the shares of what is seen of them.
        """
        areas = np.ones(1)
        if len(seen) > 1:
            areas = np.array([_area(s) if s.share is None else s.share for s in seen])
        for one, share in zip(seen, areas / max(areas.sum(), 1e-9), strict=True):
            target.weights[list(one.truth.labels)] += share
        if target.importance is not None:
            total = target.weights.sum()
            target.importance[:] = target.weights @ self.class_weights / total
        return {}


def _area(seen: Seen) -> float:
    """The pixels of the input in which a picture is seen, by the box around it."""
    h, w = seen.truth.size
    [box] = move_boxes(np.array([[0.0, 0.0, w, h]]), seen.matrix)
    low = np.maximum(box[:2], seen.window[:2])
    return float(np.clip(np.minimum(box[2:], seen.window[2:]) - low, 0, None).prod())


def targets(
    info: Any,
    *,
    class_weights: Literal["balanced"] | tuple[NonNegative, ...] | None = None,
) -> Targets:
    """How the labels of the data set that `info` describes become targets.

    class_weights: what the images of each class count in the loss, in the order of the
        classes, or "balanced": as much as those of any other class together.

    Raises UserError unless there is one for each class.
    """
    count = len(info.classes)
    # "balanced" comes here as numbers: only the data set can count its images.
    assert class_weights != "balanced"
    if class_weights is not None and len(class_weights) != count:
        raise UserError(
            f"data.class_weights has {len(class_weights)} numbers, and the data set "
            f"{count} classes; give one for each, or 'balanced'"
        )
    return Targets(count, class_weights)


def warnings(sums: dict[str, float]) -> dict[str, str]:
    """None: nothing is counted."""
    return {}
