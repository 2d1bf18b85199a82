"""COCO's instance files: one JSON with images, annotations and categories.

Only the images are parsed at once; the annotations of an image are parsed when it is
read.
"""

import functools
import hashlib
import itertools
import json
import re
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detjax import files
from detjax.data import lint, records
from detjax.data.formats import coco_rows, jsonwalk, places
from detjax.data.formats.coco_rows import (
    Categories,
    brief,
    categories_of,
    image_id,
    integer,
)
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record
from detjax.errors import UserError
from detjax.settings import Location

TASK = "detection"
POOL = None

_CATEGORY = re.compile(r'"category_id"\s*:\s*"?(-?\d+)')
_ADVICE = "COCO's instance files have images, annotations and categories"


class Entry(NamedTuple):
    """An image of the file, and the texts of its annotations."""

    id: int | str
    file_name: str
    height: int  # as declared, 0 for nothing
    width: int
    texts: Sequence[str] = ()


def catalogues(
    *,
    splits: Mapping[str, Location] | None = None,
    images: Location | Mapping[str, Location] | None = None,
    root: Location | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> dict[str, Catalogue]:
    """The splits, each of its own JSON file.

    splits: what each split is: a file, a folder or a list, as the format has it.
    root: the folder of everything; other paths are below it.
    images: the folder of the images, or one for each split; without it they are where
        the format has them, of COCO's JSON in images/ beside it, or beside it.
    classes: their names, in this order; without it those of the files.
    allow_outside: read images that the files name outside of that folder.

    Raises UserError if a split has no folder.
    """
    paths = _files(splits, root)
    if images is None:
        folders = {split: _beside(path) for split, path in paths.items()}
    elif isinstance(images, Mapping):
        folders = {split: places.joined(root, path) for split, path in images.items()}
    else:
        folders = dict.fromkeys(paths, places.joined(root, images))
    missing = [split for split in paths if split not in folders]
    if missing:
        raise UserError(f"no image folder for {', '.join(missing)}; name one for each")
    return {
        split: catalogue(file, folders[split], split, classes, allow_outside)
        for split, file in paths.items()
    }


def _files(splits: Any, root: Any) -> dict[str, Path]:
    """The JSON file of each split. Raises UserError if one is something else."""
    found = places.splits_of(splits, root, "coco")
    return {
        split: places.file(path, "COCO's file of instances", "coco")
        for split, path in found.items()
    }


def _beside(path: Path) -> Path:
    """The folder of the images of a JSON file that nobody named."""
    folder = path.parent / "images"
    return folder if folder.is_dir() else path.parent


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *, splits=None, images=None, root=None, classes=None, allow_outside=False
) -> dict[str, str]:
    """A digest of the annotations of each split.

    Raises MissingFileError if they are gone.
    """
    found = _files(splits, root)
    return {split: f"annotations {digest(path)}" for split, path in found.items()}


def digest(path: Path) -> str:
    """16 digits of SHA-256 of the file `path`, which is read in chunks."""
    path = lint.expanded(path)
    with files.reading(path):
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is {files.kind(path.stat().st_mode)}, not a file")
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def read(
    file: str | Path,
    images: str | Path,
    split: str = "train",
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> Dataset:
    """One split in memory; see `catalogue`."""
    return records.collect(catalogue(file, images, split, classes, allow_outside))


def catalogue(
    file: str | Path,
    images: str | Path,
    split: str = "train",
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> Catalogue:
    """One split, in the file's order of images and, in each, of annotations.

    Image ids are kept as given, text or integers. Labels follow increasing category
    ids, or `classes`, all of which must be in the file. Boxes become xyxy, polygons and
    run lengths compressed RLE. A missing area is the mask's, else the box's; a missing
    box is the mask's. Beside what COCO has a row may have `amodal`, the box xywh of the
    whole object, what is hidden included, and `corners`, the eight numbers of a box at
    an angle, whose inside is the mask where there is no other.

    Raises UserError for other JSON.
    """
    file = places.file(file, "COCO's file of instances", "coco")
    folder = lint.expanded(images)
    if not folder.is_dir():
        raise places.no_folder(folder, "the images")
    problems: list[Problem] = []
    found: list[tuple[Entry, int | str, str]] = []
    lost: list[Problem] = []
    rows, kinds = _Rows(file, lost), []
    numbers = itertools.count()

    def take_image(row: dict[str, Any], start: int, end: int) -> None:
        entry = _entry(row, next(numbers), file.name, problems)
        if entry:
            found.append((entry, entry.id, entry.file_name))

    takes = {
        "images": take_image,
        "annotations": rows.take,
        "categories": lambda row, start, end: kinds.append(row),
    }
    try:
        text = jsonwalk.walk(file, takes, _ADVICE)
    except UserError as error:
        raise UserError(f"{error}{places.sniff.advice(file, 'coco')}") from None
    categories = categories_of(kinds, file.name, classes)
    entries = list(records.unique(found, problems))
    lines = rows.of({str(entry.id): i for i, entry in enumerate(entries)})
    return Catalogue(
        split,
        categories.names,
        Entries(entries, text, *lines),
        functools.partial(
            read_entry,
            folder=folder,
            categories=categories,
            allow_outside=allow_outside,
        ),
        problems + lost,
        categories.keypoints,
        categories.ids(),
        text_ids=any(isinstance(entry.id, str) for entry in entries),
        name_of=_name,
        labels_of=_labels,
        amodal=rows.amodal,
        oriented=rows.oriented,
    )


def _name(entry: Entry) -> str:
    return f"{entry.file_name} {entry.id}"


def _labels(entry: Entry) -> set[str]:
    """The category ids in an image, as they are written."""
    return {number for text in entry.texts for number in _CATEGORY.findall(text)[:1]}


def read_entry(
    entry: Entry, folder: Path, categories: Categories, allow_outside: bool
) -> Reading:
    """An image of the file with its annotations, or their problems."""
    record = Record(
        entry.id, entry.file_name, entry.height, entry.width, folder / entry.file_name
    )
    fault = lint.fault_of_name(entry.file_name, allow_outside)
    if fault:
        subject = f"image {entry.id}"
        return Reading(None, [Problem(subject, entry.file_name, *fault)])
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    found = [
        coco_rows.annotation(json.loads(text), record, categories)
        for text in entry.texts
    ]
    return reading._replace(problems=lint.good_annotations(record, found))


class Entries(Sequence[Entry]):
    """The images of a file; the texts of their annotations are sliced on access."""

    def __init__(self, entries: list[Entry], text: str, first, starts, ends):
        self._entries, self._text, self._first = entries, text, first
        self._starts, self._ends = starts, ends

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index):
        own = slice(self._first[index], self._first[index + 1])
        spans = zip(self._starts[own].tolist(), self._ends[own].tolist(), strict=True)
        return self._entries[index]._replace(texts=[self._text[i:j] for i, j in spans])


class _Rows:
    """The positions of a file's annotations, and the image of each."""

    def __init__(self, file: Path, problems: list[Problem]):
        self._file, self._problems = file, problems
        self._images: dict[str | None, int] = {}  # image_id as text -> number
        self._numbers = array("q")  # of the image
        self._ids, self._starts, self._ends = array("q"), array("q"), array("q")
        self._seen: set[int] = set()
        self._place = -1
        self.amodal = self.oriented = False  # whether any row has such a box

    def take(self, row: dict[str, Any], start: int, end: int) -> None:
        """Records one annotation, unless it has no id of its own."""
        self._place += 1
        if not self._place and "segments_info" in row:
            raise UserError("it is a panoptic file; give the file of instances")
        number, given = integer(row.get("id")), row.get("image_id")
        subject, fault = f"annotation {row.get('id')}", None
        if number is None:
            subject = f"annotation at place {self._place}"
            detail = f"has no whole number as id: {brief(row)}"
            fault = ("malformed annotation", detail)
        elif not -(1 << 63) <= number < 1 << 63:
            detail = "has an id beyond 64 bits; give it a smaller one"
            fault = ("id beyond 64 bits", detail)
        elif number in self._seen:
            fault = ("duplicate id", "has the id of an earlier annotation")
        if fault:
            self._problems.append(Problem(subject[:80], self._file.name, *fault))
            return
        self._seen.add(number)
        self.amodal |= bool(row.get("amodal"))
        self.oriented |= bool(row.get("corners"))
        image = image_id(given)
        key = None if image is None else str(image)
        if key is None:
            self._unknown(number, given)
        self._numbers.append(self._images.setdefault(key, len(self._images)))
        self._ids.append(number)
        self._starts.append(start)
        self._ends.append(end)

    def _unknown(self, number: int, given: Any) -> None:
        shown = brief(given)
        detail = f"belongs to image {shown}, which is not in the file"
        subject = f"annotation {number}"
        self._problems.append(
            Problem(subject, self._file.name, "unknown image", detail)
        )

    def of(self, places: Mapping[str, int]) -> tuple[list[int], np.ndarray, np.ndarray]:
        """The first row of each of n images [n + 1], and the rows' texts.

        `places` maps an image's id as text to its index.
        """
        self._seen.clear()
        known = np.array([places.get(key, -1) for key in self._images], np.int64)
        names = list(self._images)
        numbers = np.frombuffer(self._numbers, np.int64)
        owners = known[numbers] if len(known) else numbers
        for row in np.flatnonzero(owners < 0).tolist():
            if names[numbers[row]] is not None:
                self._unknown(self._ids[row], names[numbers[row]])
        order = np.argsort(owners, kind="stable")[int((owners < 0).sum()) :]
        counts = np.bincount(owners[order], minlength=len(places))
        first = [0, *itertools.accumulate(counts.tolist())]
        starts, ends = (np.frombuffer(x, np.int64) for x in (self._starts, self._ends))
        return first, starts[order], ends[order]


def _entry(
    row: dict[str, Any], place: int, file: str, problems: list[Problem]
) -> Entry | None:
    """The image of a row; None, with a problem appended, if there is none."""
    number, name = image_id(row.get("id")), row.get("file_name")
    subject = f"image at place {place}"
    if number is None or not isinstance(name, str) or not name:
        detail = f"lacks a whole number or text as id, or a file_name: {brief(row)}"
        problems.append(Problem(subject, file, "malformed image", detail))
        return None
    if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:
        detail = f"has the id {brief(number)}, beyond 64 bits; write it as a string"
        problems.append(Problem(subject, file, "id beyond 64 bits", detail))
        return None
    height, width = integer(row.get("height")), integer(row.get("width"))
    return Entry(number, name, max(height or 0, 0), max(width or 0, 0))
