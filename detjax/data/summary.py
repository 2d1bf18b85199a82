"""What a split holds, counted record by record."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from detjax.data.records import Dataset, Problem, Record


class Facts(NamedTuple):
    """What is counted of one record; all that is kept of it."""

    id: int | str
    size: tuple[int, int]  # (h, w)
    labels: np.ndarray  # [n]
    sides: np.ndarray  # [n] float32: square roots of the boxes' areas
    counts: dict[str, int]
    proposals: int


def facts(record: Record, turned: bool = False) -> Facts:
    """What is counted of `record`; `turned` says whether EXIF had rotated it."""
    objects = record.annotations
    boxes = np.array([a.box for a in objects], np.float64).reshape(-1, 4)
    counts = {
        "images": 1,
        "images without objects": int(not objects),
        "images rotated by EXIF": int(turned),
        "objects": len(objects),
        "crowd": sum(a.crowd for a in objects),
        "difficult": sum(a.difficult for a in objects),
        "with masks": sum(a.rle is not None for a in objects),
        "with keypoints": sum(a.keypoints is not None for a in objects),
    }
    return Facts(
        record.id,
        (record.height, record.width),
        np.array([a.label for a in objects], np.int64),
        np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).astype(np.float32),
        counts,
        0 if record.proposals is None else len(record.proposals),
    )


class Summary:
    """The counts of a split, of all records that were added."""

    def __init__(self, split: str, classes: tuple[str, ...]):
        self.split, self.classes = split, classes
        self.ids: list[int | str] = []
        self.problems: list[Problem] = []
        self.max_objects = self.max_proposals = 0
        self._counts = Counter(dict.fromkeys(_NOTHING, 0))
        self._labels = np.zeros(len(classes), np.int64)
        self._sizes: list[tuple[int, int]] = []
        self._sides: list[np.ndarray] = []

    def add(self, found: Facts) -> None:
        """Counts one more record."""
        self.ids.append(found.id)
        self._sizes.append(found.size)
        self._sides.append(found.sides)
        self._labels += np.bincount(found.labels, minlength=len(self.classes))
        self._counts.update(found.counts)
        self.max_objects = max(self.max_objects, len(found.labels))
        self.max_proposals = max(self.max_proposals, found.proposals)

    def counts(self) -> dict[str, int]:
        """How many images, objects and kinds of objects there are."""
        return dict(self._counts)

    def class_counts(self) -> dict[str, int]:
        """How many objects each class has, the classes without any included."""
        return dict(zip(self.classes, self._labels.tolist(), strict=True))

    def problem_counts(self) -> dict[str, int]:
        """How many problems there are of each kind, the commonest first."""
        return dict(Counter(p.reason for p in self.problems).most_common())

    def sizes(self) -> np.ndarray:
        """The (h, w) [n 2] int32 of the images."""
        return np.array(self._sizes, np.int32).reshape(-1, 2)

    def sides(self) -> np.ndarray:
        """The square roots [n] of the areas of all boxes."""
        return np.concatenate([np.zeros(0, np.float32), *self._sides])


_NOTHING = tuple(facts(Record(0, "", 0, 0)).counts)


def of(dataset: Dataset) -> Summary:
    """The counts of a split in memory."""
    found = Summary(dataset.split, dataset.classes)
    found.problems += dataset.problems
    for record in dataset.records:
        found.add(facts(record))
    return found
