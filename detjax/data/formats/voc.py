"""The folders of Pascal VOC: Annotations, JPEGImages, ImageSets/Main."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from detjax import files
from detjax.data import lint, pictures, records
from detjax.data.formats import places, voc_folders, voc_objects, xmlfile
from detjax.data.formats.voc_folders import annotations
from detjax.data.formats.voc_objects import integer, text_of
from detjax.data.records import (
    Catalogue,
    Dataset,
    Problem,
    Reading,
    Record,
    shown,
)
from detjax.errors import MissingFileError, UserError
from detjax.settings import Location

TASK = "detection"

# In place of a list of ImageSets/Main: every annotation file.
EVERY = "*"
POOL = {places.ALL: EVERY}

_ENDINGS = (*pictures.SUFFIXES, *(ending.upper() for ending in pictures.SUFFIXES))
_LISTS = Path("ImageSets", "Main")


class Entry(NamedTuple):
    """A line of a list: the image's number, and its name without ending."""

    number: int
    stem: str


def catalogues(
    *,
    root: Location,
    splits: Sequence[str] | Mapping[str, str] | None = None,
    images: Location | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> dict[str, Catalogue]:
    """The splits; a mapping says which list of ImageSets/Main each is ("*": all files).

    Without `splits` they are train and val. The XML files are in Annotations, or in
    annotations, or in `root` itself; the images in `images`, or in JPEGImages, images,
    or beside the XML files. Without `classes` they are the sorted names in all of
    Annotations. Lists and XML files that name files outside `root` are problems unless
    `allow_outside`.
    """
    listed = _listings(splits, root)
    # Report a missing list before reading all annotations for their classes.
    for listing in listed.values():
        stems(lint.expanded(root), listing)
    classes = tuple(classes or class_names(root))
    return {
        split: catalogue(root, split, listing, classes, allow_outside, images)
        for split, listing in listed.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *, root, splits=None, images=None, classes=None, allow_outside=False
) -> dict[str, str]:
    """A digest of the annotations of each split.

    Raises MissingFileError if they are gone.
    """
    return {
        split: _digest(lint.expanded(root), listing, allow_outside)
        for split, listing in _listings(splits, root).items()
    }


def read(
    root: str | Path,
    split: str,
    listing: str | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> Dataset:
    """One split in memory; see `catalogue`."""
    return records.collect(catalogue(root, split, listing, classes, allow_outside))


def catalogue(
    root: str | Path,
    split: str,
    listing: str | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
    images: str | Path | None = None,
) -> Catalogue:
    """One split, of the images in ImageSets/Main/`listing`.txt (by default `split`).

    Images are numbered from 1 in the list's order, and objects from 1 in each. VOC
    counts pixels from 1 and includes the last one, so that a box is x1 - 1, y1 - 1, x2,
    y2; coinciding corners are an annotation error, not a box of one pixel, and have
    zero area.
    """
    root = lint.expanded(root)
    classes = tuple(classes or class_names(root))
    lint.check_classes(classes, str(root))
    problems: list[Problem] = []
    listed = stems(root, listing or split)
    folder = voc_folders.images(root, images)
    entries, seen = [], set()
    name = "Annotations" if listing == EVERY else f"{listing or split}.txt"
    for number, stem in enumerate(listed, 1):
        fault = lint.fault_of_name(stem, allow_outside)
        if stem in seen:
            fault = ("listed twice", f"is {stem}, which is listed twice")
        seen.add(stem)
        if fault:
            problems.append(Problem(f"image {number}", name, *fault))
        else:
            entries.append(Entry(number, stem))
    read = functools.partial(
        read_entry,
        folder=annotations(root),
        images=folder,
        classes=classes,
        allow_outside=allow_outside,
    )
    return Catalogue(
        split,
        classes,
        entries,
        read,
        problems,
        name_of=_name,
        labels_of=functools.partial(_names_in, folder=annotations(root)),
    )


def _name(entry: Entry) -> str:
    return entry.stem


def _names_in(entry: Entry, folder: Path) -> set[str]:
    try:
        tree = xmlfile.parse(folder / f"{entry.stem}.xml")
    except UserError:  # reported when the image is read
        return set()
    return {text_of(thing, "name") for thing in tree.findall("object")}


def read_entry(
    entry: Entry,
    folder: Path,
    images: Path,
    classes: tuple[str, ...],
    allow_outside: bool,
) -> Reading:
    """An image with its annotations, or their problems."""
    path = folder / f"{entry.stem}.xml"
    try:
        tree = xmlfile.parse(path)
        record = _record(images, entry, tree, allow_outside)
    except UserError as error:
        reason = "not XML"
        if isinstance(error, MissingFileError):
            reason = "missing annotation file"
        subject = f"annotation file of image {entry.number}"
        return Reading(None, [Problem(subject, path.name, reason, str(error))])
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    found = [
        voc_objects.annotation(thing, number, record, path.name, classes)
        for number, thing in enumerate(tree.findall("object"), 1)
    ]
    return reading._replace(problems=lint.good_annotations(record, found, path.name))


def stems(root: Path, listing: str) -> list[str]:
    """The names, without ending, of the annotation files in a list, in its order.

    Raises MissingFileError that names the existing lists.
    """
    folder = annotations(root)
    if listing == EVERY:
        return [path.stem for path in _files(folder)]
    path = root / _LISTS / f"{listing}.txt"
    if not path.exists():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise MissingFileError(
            f"no list {path} (there: {', '.join(there) or 'none'}); name one of "
            f"them, or {EVERY!r} for all of {folder}"
        )
    lines = [line.strip() for line in files.read_text(path).splitlines()]
    return [_stem(line, folder) for line in lines if line]


def _stem(line: str, folder: Path) -> str:
    """The name in a line: lists of one class have a second column."""
    name, _, second = line.rpartition(" ")
    if not name or second not in ("-1", "0", "1"):
        return line
    there = os.path.isfile(folder / f"{line}.xml")
    return line if there else name.strip()


def class_names(root: str | Path) -> tuple[str, ...]:
    """The sorted names of all annotated objects, whatever split they are in.

    Raises UserError where there are none.
    """
    names, broken = set(), ""
    for path in _files(annotations(lint.expanded(root))):
        try:
            things = xmlfile.parse(path).findall("object")
        except UserError as error:  # also reported when the file's image is read
            broken = broken or f" ({path.name} {error})"
        else:
            names |= {text_of(thing, "name") for thing in things}
    if not names - {""}:
        root = lint.expanded(root)
        raise UserError(
            f"no object in {annotations(root)} has a name{broken}; give the classes"
            + places.sniff.advice(root, "voc")
        )
    return tuple(sorted(names - {""}))


def _files(folder: Path) -> list[Path]:
    """The annotation files of a folder, except macOS resource forks."""
    found = [path for path in folder.glob("*.xml") if path.name[:2] != "._"]
    return sorted(found)


def _listings(splits: Any, root: Any) -> dict[str, str]:
    if not splits:
        folder = lint.expanded(root)
        if folder.is_dir() and not (folder / _LISTS).is_dir():
            annotations(folder)
            raise places.unnamed(root, "voc")
        splits = ("train", "val")
    return dict(splits) if isinstance(splits, Mapping) else {s: s for s in splits}


def _digest(root: Path, listing: str, allow_outside: bool) -> str:
    digest, folder = hashlib.sha256(), annotations(root)
    for stem in stems(root, listing):
        digest.update(f"\n{stem}\n".encode("utf-8", "surrogateescape"))
        data = b"missing"
        if not lint.fault_of_name(stem, allow_outside):
            path = folder / f"{stem}.xml"
            data = files.read_bytes(path) if path.is_file() else data
        digest.update(data)
    return f"annotations {digest.hexdigest()[:16]}"


def _record(folder: Path, entry: Entry, tree: Element, allow_outside: bool) -> Record:
    named = text_of(tree, "filename")
    # The file's own name counts; the one inside often outlives a renaming.
    candidates = [folder / f"{entry.stem}{ending}" for ending in _ENDINGS]
    if named and not lint.fault_of_name(named, allow_outside):
        candidates += [folder / named]
    path = next((p for p in candidates if os.path.lexists(p)), candidates[0])
    height, width = (integer(text_of(tree, f"size/{s}")) for s in ("height", "width"))
    return Record(entry.number, shown(path.name), height, width, path)
