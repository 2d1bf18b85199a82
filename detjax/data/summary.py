"""Statistics of a split."""

import hashlib
from collections import Counter
from typing import NamedTuple

import numpy as np

from detjax.data import listings
from detjax.data.records import Dataset, Problem, Record
from detjax.types import Task


class Facts(NamedTuple):
    """A task's statistics of one record."""

    labels: np.ndarray  # [n]
    sides: np.ndarray  # [n] float32: square roots of the areas of boxes, if there are
    counts: dict[str, int]  # how many of each kind: objects, masks
    # [n] int64: the pixels of each of `labels`, where every pixel has one
    pixels: np.ndarray | None = None


class Row(NamedTuple):
    """Statistics of one record."""

    id: int | str
    size: tuple[int, int]  # (h, w)
    labels: np.ndarray  # [n]
    sides: np.ndarray  # [n] float32
    counts: dict[str, int]
    proposals: int
    name: str = ""
    digest: bytes = b""  # of the image file; empty if unknown
    pixels: np.ndarray | None = None  # [n] int64, see `Facts`


def row(
    record: Record, task: Task, turned: bool = False, image: bytes | None = None
) -> Row:
    """Statistics of `record`; `turned` tells whether EXIF rotated it.

    `image` is its stored file.
    """
    facts = task.facts(record.truth)
    counts = {"images": 1, "images rotated by EXIF": int(turned), **facts.counts}
    return Row(
        record.id,
        (record.height, record.width),
        facts.labels,
        facts.sides,
        counts,
        0 if record.proposals is None else len(record.proposals),
        record.file_name,
        hashlib.blake2b(image, digest_size=16).digest() if image else b"",
        facts.pixels,
    )


class Summary:
    """Statistics of a split, over all added records."""

    def __init__(self, split: str, classes: tuple[str, ...]):
        self.split, self.classes = split, classes
        self.ids: list[int | str] = []
        self.problems: list[Problem] = []
        self.pictures: dict[bytes, str] = {}  # the first name of each content
        self.repeated: list[tuple[str, str]] = []  # names of the same content
        self.max_objects = self.max_proposals = 0
        self._counts = Counter({"images": 0})
        self._labels = np.zeros(len(classes), np.int64)
        # Of each class its pixels, and those that have a class in images that have it.
        self._pixels = np.zeros((2, len(classes)), np.int64)
        self._sizes: list[tuple[int, int]] = []
        self._sides: list[np.ndarray] = []
        self._classes: list[np.ndarray] = []

    def add(self, found: Row) -> None:
        """Adds one record."""
        self.ids.append(found.id)
        if found.digest in self.pictures:
            self.repeated.append((found.name, self.pictures[found.digest]))
        elif found.digest:
            self.pictures[found.digest] = found.name
        self._sizes.append(found.size)
        self._sides.append(found.sides)
        self._classes.append(np.unique(found.labels).astype(np.int32))
        self._labels += np.bincount(found.labels, minlength=len(self.classes))
        if found.pixels is not None:
            self._pixels[0, found.labels] += found.pixels
            self._pixels[1, found.labels] += found.pixels.sum()
        self._counts.update(found.counts)
        self.max_objects = max(self.max_objects, len(found.labels))
        self.max_proposals = max(self.max_proposals, found.proposals)

    def counts(self) -> dict[str, int]:
        """The number of images, and the task's counts."""
        return dict(self._counts)

    def class_counts(self) -> dict[str, int]:
        """The number of labels of each class, including 0."""
        return dict(zip(self.classes, self._labels.tolist(), strict=True))

    def pixels(self) -> list[list[int]]:
        """The pixels of each class, and those of the images that have it; or [].

        Of those pixels that have a class at all.
        """
        return self._pixels.tolist() if self._pixels.any() else []

    def classes_by_image(self) -> listings.Classes:
        """The classes in each image."""
        return listings.classes_of(self._classes)

    def problem_counts(self) -> dict[str, int]:
        """The number of problems of each kind, the most frequent first."""
        return dict(Counter(p.reason for p in self.problems).most_common())

    def sizes(self) -> np.ndarray:
        """The (h, w) [n 2] int32 of the images."""
        return np.array(self._sizes, np.int32).reshape(-1, 2)

    def sides(self) -> np.ndarray:
        """The square roots [n] of the areas of all boxes."""
        return np.concatenate([np.zeros(0, np.float32), *self._sides])


def of(dataset: Dataset, task: Task) -> Summary:
    """Statistics of a split in memory."""
    found = Summary(dataset.split, dataset.classes)
    found.problems += dataset.problems
    for record in dataset.records:
        found.add(row(record, task))
    return found
