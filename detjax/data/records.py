"""Images and their annotations on the host, before anything is resized or padded.

Boxes are xyxy in pixels of the stored image: the first pixel spans 0 to 1, EXIF does
not rotate. Labels are 0..c-1. A mask is a run-length code in COCO's compressed form
whose size is the image's.
"""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

Box = tuple[float, float, float, float]


@dataclasses.dataclass(slots=True)
class Annotation:
    """One annotated object."""

    id: int
    box: Box
    label: int
    area: float
    crowd: bool = False
    difficult: bool = False
    rle: bytes | None = None
    keypoints: np.ndarray | None = None  # [k 3] float32: x, y, visibility 0/1/2


@dataclasses.dataclass(slots=True)
class Record:
    """One image and its annotations; the pixels are at `path` or encoded in `image`."""

    id: int
    file_name: str
    height: int
    width: int
    path: Path | None = None
    image: bytes | None = None
    annotations: list[Annotation] = dataclasses.field(default_factory=list)
    proposals: np.ndarray | None = None  # [p 4] float32, best first


class Unreadable(ValueError):
    """A record that cannot be read whole: its place in a file, its image or masks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in an annotation file, and why it was dropped.

    reason  a few words that problems of one kind share
    detail  the rest of a sentence that begins with the subject
    """

    subject: str  # "annotation 17 of image 42", "image 42"
    file: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.subject} ({self.file}) {self.detail}"


@dataclasses.dataclass(slots=True)
class Dataset:
    """One split: what is sound in it, and what was wrong with the rest."""

    split: str
    classes: tuple[str, ...]
    records: list[Record]
    problems: list[Problem] = dataclasses.field(default_factory=list)
    keypoints: tuple[str, ...] = ()  # their names, in order
    category_ids: tuple[
        int, ...
    ] = ()  # the classes' ids in the source; () is 1, 2, ...

    def counts(self) -> dict[str, int]:
        """How many images, objects and kinds of objects there are."""
        objects = [a for r in self.records for a in r.annotations]
        return {
            "images": len(self.records),
            "images without objects": sum(not r.annotations for r in self.records),
            "objects": len(objects),
            "crowd": sum(a.crowd for a in objects),
            "difficult": sum(a.difficult for a in objects),
            "with masks": sum(a.rle is not None for a in objects),
            "with keypoints": sum(a.keypoints is not None for a in objects),
        }

    def class_counts(self) -> dict[str, int]:
        """How many objects each class has, the classes without any included."""
        found = Counter(a.label for r in self.records for a in r.annotations)
        return {name: found[label] for label, name in enumerate(self.classes)}

    def problem_counts(self) -> dict[str, int]:
        """How many problems there are of each kind, the commonest first."""
        return dict(Counter(p.reason for p in self.problems).most_common())
