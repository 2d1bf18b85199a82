"""DOTA's text files: corners of boxes at an angle, one file an image.

    imagesource:GoogleEarth
    gsd:0.146
    x1 y1 x2 y2 x3 y3 x4 y4 class difficult

A split is a folder of images/ and labelTxt/. The area within the corners is the
object's mask as well. Difficult objects are not learnt, and count neither way in an
evaluation.

Xia et al. 2018, DOTA: a large-scale dataset for object detection in aerial images.
"""

import functools
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detjax import files
from detjax.data import crew, lint, pictures, records, writer
from detjax.data.formats import outlines, places
from detjax.data.records import (
    Annotation,
    Catalogue,
    Dataset,
    Problem,
    Reading,
    Record,
    shown,
)
from detjax.errors import UserError
from detjax.settings import Location

TASK = "detection"
HELD = "DOTA's images/ and labelTxt/"  # by the folder of a split
POOL = {places.ALL: "."}
IMAGES, LABELS = ("images",), ("labelTxt", "labelTxt-v1.5", "labelTxt-v1.0", "labels")
HEADERS = ("imagesource:", "gsd:")
CORNERS = 8  # numbers


class Entry(NamedTuple):
    """A picture: its number, its name below images/, and its classes."""

    number: int
    name: str
    labels: tuple[str, ...] = ()


class Place(NamedTuple):
    """The folders of a split."""

    images: Path
    labels: Path


def catalogues(
    *,
    splits: Mapping[str, Location] | None = None,
    root: Location | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Catalogue]:
    """The splits, each of a folder with images/ and labelTxt/, below `root`.

    Without `classes` they are the sorted ones of all files. Images are sorted by name
    and numbered from 1; those without a label file are left out. Raises UserError where
    a folder has no such pair.
    """
    found = {s: _place(f) for s, f in _folders(splits, root).items()}
    entries = {s: _entries(place) for s, (place, _) in found.items()}
    known = {label for own in entries.values() for e in own for label in e.labels}
    chosen = tuple(classes or sorted(known))
    if not chosen:
        raise UserError(
            f"no label file in {', '.join(str(p.labels) for p, _ in found.values())} "
            "has an object"
        )
    lint.check_classes(chosen)
    return {
        split: Catalogue(
            split,
            chosen,
            own,
            functools.partial(read_entry, place=found[split][0], classes=chosen),
            notes=found[split][1],
            name_of=_name,
            labels_of=_labels,
            oriented=True,
        )
        for split, own in entries.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, splits=None, root=None, classes=None) -> dict[str, str]:
    """A digest of the label files of each split.

    Raises MissingFileError if they are gone.
    """
    made = {}
    for split, folder in _folders(splits, root).items():
        (place, _), digest = _place(folder), hashlib.sha256()
        for name in pictures.below(place.labels, (".txt",)):
            digest.update(f"\n{name}\n".encode("utf-8", "surrogateescape"))
            digest.update(files.read_bytes(place.labels / name))
        made[split] = f"annotations {digest.hexdigest()[:16]}"
    return made


def _folders(splits: Any, root: Any) -> dict[str, Path]:
    return places.folders(splits, root, HELD, "dota")


def _place(folder: Path) -> tuple[Place, list[str]]:
    """The folders of a split, and a note on the pictures without a label file."""

    def inner(names: Sequence[str]) -> Path | None:
        return next((folder / n for n in names if (folder / n).is_dir()), None)

    images, labels = inner(IMAGES), inner(LABELS)
    if images is None or labels is None:
        lacking = f"{IMAGES[0]}/" if images is None else f"{LABELS[0]}/"
        raise UserError(
            f"{folder} has no folder {lacking}; DOTA's splits hold images/ and "
            f"labelTxt/{places.sniff.advice(folder, 'dota')}"
        )
    place = Place(images, labels)
    without = [n for n in pictures.below(images) if not _labels_of(place, n).is_file()]
    if not without:
        return place, []
    some = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
    return place, [
        f"{len(without)} pictures in {images} have no label file and are left out: "
        f"nobody has said that they show nothing ({some})"
    ]


def _labels_of(place: Place, name: str) -> Path:
    return place.labels / f"{os.path.splitext(name)[0]}.txt"


def _entries(place: Place) -> list[Entry]:
    """The pictures with their classes, which many processes read if many."""
    names = [n for n in pictures.below(place.images) if _labels_of(place, n).is_file()]
    if not names:
        raise UserError(f"no picture in {place.images} has a file in {place.labels}")
    look = functools.partial(_classes_in, place=place)
    found = (
        crew.parallel(look, names) if len(names) >= writer.MANY else map(look, names)
    )
    return [
        Entry(number, name, labels)
        for number, (name, labels) in enumerate(zip(names, found, strict=True), 1)
    ]


def _classes_in(name: str, place: Place) -> tuple[str, ...]:
    try:
        text = files.read_text(_labels_of(place, name))
    except UserError:  # reported when the image is read
        return ()
    return tuple(sorted({row[CORNERS] for _, row in rows(text) if len(row) > CORNERS}))


def _name(entry: Entry) -> str:
    return entry.name


def _labels(entry: Entry) -> tuple[str, ...]:
    return entry.labels


def rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the words of each line that is an object."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].lower().startswith(HEADERS):
            yield number, words


def read_entry(entry: Entry, place: Place, classes: tuple[str, ...]) -> Reading:
    """An image with the objects of its label file, or their problems."""
    path = _labels_of(place, entry.name)
    try:
        text = files.read_text(path)
    except UserError as error:
        subject = f"label file of image {entry.number}"
        problem = Problem(subject, shown(entry.name), "unreadable file", str(error))
        return Reading(None, [problem])
    record = Record(entry.number, shown(entry.name), 0, 0, place.images / entry.name)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    file = shown(path.name)
    found = annotations(text, record, classes, file)
    problems = lint.good_annotations(record, found, file, "line")
    return reading._replace(problems=problems)


def annotations(
    text: str, record: Record, classes: tuple[str, ...], file: str
) -> Iterator[Annotation | Problem]:
    """The objects of a label file, or their problems, by line."""
    size = (record.height, record.width)
    for number, words in rows(text):
        try:
            corners, label, difficult = _row(words, classes)
            outline = outlines.of_polygons([corners], size, clip=True)
        except UserError as error:
            yield lint.object_problem(
                number, record, file, "malformed row", str(error), what="line"
            )
            continue
        yield Annotation(
            lint.object_id(int(record.id), number),
            outline.box,
            label,
            outline.area,
            difficult=difficult,
            rle=outline.rle,
            corners=np.array(corners, np.float32).reshape(4, 2),
        )


def _row(words: list[str], classes: tuple[str, ...]) -> tuple[list[float], int, bool]:
    """Corners, label and difficulty. Raises UserError, which lacks its subject."""
    if len(words) not in (CORNERS + 1, CORNERS + 2):
        raise UserError(
            f"has {len(words)} words, and not eight numbers, a class and, maybe, 0 or 1"
        )
    try:
        corners = [float(word) for word in words[:CORNERS]]
    except ValueError:
        raise UserError(
            f"does not begin with eight numbers: {' '.join(words)[:80]!r}"
        ) from None
    if not all(map(math.isfinite, corners)):
        raise UserError("has a corner that is not finite")
    label = words[CORNERS]
    if label not in classes:
        raise UserError(lint.unknown_class(label, classes))
    last = words[CORNERS + 1] if len(words) > CORNERS + 1 else "0"
    # DOTA v1.5 has 2 for the smallest.
    if last not in ("0", "1", "2"):
        raise UserError(f"is difficult={last}, which is 0 or 1")
    return corners, classes.index(label), last != "0"
