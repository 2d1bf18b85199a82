"""Images and their annotations on the host, before anything is resized or padded.

Boxes are xyxy in pixels of the upright image: the first pixel spans 0 to 1. What is
stored is upright, so that no EXIF has to be minded. Labels are 0..c-1. A mask is a
run-length code in COCO's compressed form whose size is the image's.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detjax.errors import UserError

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

    id: int | str
    file_name: str
    height: int
    width: int
    path: Path | None = None
    image: bytes | None = None
    annotations: list[Annotation] = dataclasses.field(default_factory=list)
    proposals: np.ndarray | None = None  # [p 4] float32, best first


class Unreadable(UserError):
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
        return shown(f"{self.subject} ({self.file}) {self.detail}")


def shown(text: str) -> str:
    """`text` as it can be printed: what is not Unicode in it is escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class Reading(NamedTuple):
    """What became of one image of a catalogue."""

    record: Record | None  # None where it cannot be used
    problems: list[Problem]
    turned: bool = False  # whether EXIF had it rotated or mirrored


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What a split consists of, known without touching an image.

    entries   one for each image, light; its items are made when they are asked for
    read      what an entry becomes: reads and checks the image, whose file, upright, is
              in the record. It can be pickled, and runs in several processes
    problems  of the annotation file as a whole
    text_ids  whether an image's id is text, not a whole number of 64 bits
    proposed  whether records bring proposals
    """

    split: str
    classes: tuple[str, ...]
    entries: Sequence[Any]
    read: Callable[[Any], Reading]
    problems: list[Problem] = dataclasses.field(default_factory=list)
    keypoints: tuple[str, ...] = ()  # their names, in order
    category_ids: tuple[int, ...] = ()  # of the classes; () is 1, 2, ...
    text_ids: bool = False
    proposed: bool = False


@dataclasses.dataclass(slots=True)
class Dataset:
    """One split in memory: what is sound in it, and what was wrong with the rest."""

    split: str
    classes: tuple[str, ...]
    records: list[Record]
    problems: list[Problem] = dataclasses.field(default_factory=list)
    keypoints: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()


def collect(catalogue: Catalogue) -> Dataset:
    """The split of `catalogue` in memory; images that EXIF turns are held, too."""
    records, problems = [], [*catalogue.problems]
    for record, found, turned in map(catalogue.read, catalogue.entries):
        problems += found
        if record is not None:
            # What is at its path need not be held.
            record.image = record.image if turned or not record.path else None
            records.append(record)
    return Dataset(
        catalogue.split,
        catalogue.classes,
        records,
        problems,
        catalogue.keypoints,
        catalogue.category_ids,
    )


def unique(
    named: Iterable[tuple[Any, int | str, str]], problems: list[Problem]
) -> Iterator[Any]:
    """The first of (thing, id, file name) whose id is no other's by its text."""
    seen: dict[str, str] = {}
    for thing, number, name in named:
        first = seen.setdefault(str(number), name)
        if first is not name:
            detail = f"has the id of {first}"
            problems.append(Problem(f"image {number}", name, "duplicate id", detail))
        else:
            yield thing
