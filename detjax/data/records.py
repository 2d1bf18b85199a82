"""Images and their truth on the host, before anything is resized or padded.

Boxes are xyxy in pixels of the upright image: the first pixel spans 0 to 1. Stored
images are upright: EXIF does not apply. Labels are 0..c-1. A mask is a COCO compressed
RLE of the image's size.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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
    amodal: Box | None = None  # of the whole object, what is hidden included
    # [4 2] float32, of a box at an angle: one after the other around it
    corners: np.ndarray | None = None


@dataclasses.dataclass(slots=True)
class Record:
    """One image and its truth; the pixels are at `path` or encoded in `image`.

    The truth depends on the task: a list of `Annotation` for detection, a tuple of the
    image's labels for classification.
    """

    id: int | str
    file_name: str
    height: int
    width: int
    path: Path | None = None
    image: bytes | None = None
    truth: Any = dataclasses.field(default_factory=list)
    proposals: np.ndarray | None = None  # [p 4] float32, best first


class Unreadable(UserError):
    """A record that cannot be read completely: its bytes, its image or its masks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A problem in an annotation file, and why the item was dropped.

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
    """`text` in printable form: invalid Unicode is escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class Reading(NamedTuple):
    """The result of reading one image of a catalogue."""

    record: Record | None  # None if unusable
    problems: list[Problem]
    turned: bool = False  # whether EXIF had it rotated or mirrored


def no_labels(entry: Any) -> tuple[()]:
    """The classes of an entry where reading them costs too much."""
    return ()


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The contents of a split, listed without opening an image.

    entries   one for each image, lightweight; items are created on access
    read      maps an entry to its result: reads and checks the image, and puts its
              upright file into the record. Picklable; runs in several processes
    problems  of the annotation file itself
    text_ids  whether image ids are text instead of 64-bit integers
    proposed  whether records have proposals
    amodal    whether objects have boxes of the whole of them
    oriented  whether they have boxes at an angle of their own
    notes     what a user should know, as sentences
    name_of   maps an entry to a name that is its own, wherever it is listed
    labels_of maps an entry to the classes in its image, as far as cheaply known; both
              are for dividing a catalogue. Picklable
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
    amodal: bool = False
    oriented: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    name_of: Callable[[Any], str] = str
    labels_of: Callable[[Any], Collection[Any]] = no_labels


@dataclasses.dataclass(slots=True)
class Dataset:
    """One split in memory: its valid records, and the problems of the others."""

    split: str
    classes: tuple[str, ...]
    records: list[Record]
    problems: list[Problem] = dataclasses.field(default_factory=list)
    keypoints: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()


def collect(catalogue: Catalogue) -> Dataset:
    """The split of `catalogue` in memory, including images rotated by EXIF."""
    records, problems = [], [*catalogue.problems]
    for record, found, turned in map(catalogue.read, catalogue.entries):
        problems += found
        if record is not None:
            # Unchanged files stay on disk.
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
    """The first (thing, id, file name) of each id, ids compared as text."""
    seen: dict[str, str] = {}
    for thing, number, name in named:
        first = seen.setdefault(str(number), name)
        if first is not name:
            detail = f"has the id of {first}"
            problems.append(Problem(f"image {number}", name, "duplicate id", detail))
        else:
            yield thing
