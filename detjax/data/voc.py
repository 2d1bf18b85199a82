"""The folders of Pascal VOC: Annotations, JPEGImages, ImageSets/Main."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from detjax import files
from detjax.data import lint, records, xmlfile
from detjax.data.records import (
    Annotation,
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

_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff")


class Entry(NamedTuple):
    """A line of a list: the image's number, and its name without ending."""

    number: int
    stem: str


def catalogues(
    *,
    root: Location,
    splits: Sequence[str] | Mapping[str, str] = ("train", "val"),
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> dict[str, Catalogue]:
    """The splits; a mapping says which list of ImageSets/Main each is ("*": all files).

    Without `classes` they are the sorted names in all of Annotations. Lists and XML
    files that name files outside `root` are problems unless `allow_outside`.
    """
    listed = _listings(splits)
    # Report a missing list before reading all annotations for their classes.
    for listing in listed.values():
        stems(lint.expanded(root), listing)
    classes = tuple(classes or class_names(root))
    return {
        split: catalogue(root, split, listing, classes, allow_outside)
        for split, listing in listed.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *, root, splits=("train", "val"), classes=None, allow_outside=False
) -> dict[str, str]:
    """A digest of the annotations of each split.

    Raises MissingFileError if they are gone.
    """
    return {
        split: _digest(lint.expanded(root), listing, allow_outside)
        for split, listing in _listings(splits).items()
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
    lint.check_folder(root / "JPEGImages")
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
        read_entry, root=root, classes=classes, allow_outside=allow_outside
    )
    return Catalogue(split, classes, entries, read, problems)


def read_entry(
    entry: Entry, root: Path, classes: tuple[str, ...], allow_outside: bool
) -> Reading:
    """An image with its annotations, or their problems."""
    path = root / "Annotations" / f"{entry.stem}.xml"
    try:
        tree = xmlfile.parse(path)
        record = _record(root, entry, tree, allow_outside)
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
        _annotation(thing, number, record, path.name, classes)
        for number, thing in enumerate(tree.findall("object"), 1)
    ]
    return reading._replace(problems=lint.good_annotations(record, found, path.name))


def stems(root: Path, listing: str) -> list[str]:
    """The names, without ending, of the annotation files in a list, in its order.

    Raises MissingFileError that names the existing lists.
    """
    annotations = root / "Annotations"
    if not annotations.is_dir():
        raise MissingFileError(
            f"{root} has no folder Annotations; give the root of VOC"
        )
    if listing == EVERY:
        return [path.stem for path in _files(annotations)]
    path = root / "ImageSets" / "Main" / f"{listing}.txt"
    if not path.exists():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise MissingFileError(
            f"no list {path} (there: {', '.join(there) or 'none'}); name one of "
            f"them, or {EVERY!r} for all of {annotations}"
        )
    lines = [line.strip() for line in files.read_text(path).splitlines()]
    return [_stem(line, annotations) for line in lines if line]


def _stem(line: str, annotations: Path) -> str:
    """The name in a line: lists of one class have a second column."""
    name, _, second = line.rpartition(" ")
    if not name or second not in ("-1", "0", "1"):
        return line
    there = os.path.isfile(annotations / f"{line}.xml")
    return line if there else name.strip()


def class_names(root: str | Path) -> tuple[str, ...]:
    """The sorted names of all annotated objects, whatever split they are in.

    Raises UserError where there are none.
    """
    names, broken = set(), ""
    for path in _files(lint.expanded(root) / "Annotations"):
        try:
            things = xmlfile.parse(path).findall("object")
        except UserError as error:  # also reported when the file's image is read
            broken = broken or f" ({path.name} {error})"
        else:
            names |= {_text(thing, "name") for thing in things}
    if not names - {""}:
        raise UserError(
            f"no object in {root}/Annotations has a name{broken}; give the classes"
        )
    return tuple(sorted(names - {""}))


def _files(annotations: Path) -> list[Path]:
    """The annotation files of a folder, except macOS resource forks."""
    found = [path for path in annotations.glob("*.xml") if path.name[:2] != "._"]
    return sorted(found)


def _listings(splits: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    return dict(splits) if isinstance(splits, Mapping) else {s: s for s in splits}


def _digest(root: Path, listing: str, allow_outside: bool) -> str:
    digest = hashlib.sha256()
    for stem in stems(root, listing):
        digest.update(f"\n{stem}\n".encode("utf-8", "surrogateescape"))
        data = b"missing"
        if not lint.fault_of_name(stem, allow_outside):
            path = root / "Annotations" / f"{stem}.xml"
            data = files.read_bytes(path) if path.is_file() else data
        digest.update(data)
    return f"annotations {digest.hexdigest()[:16]}"


def _record(root: Path, entry: Entry, tree: Element, allow_outside: bool) -> Record:
    folder, named = root / "JPEGImages", _text(tree, "filename")
    # The file's own name counts; the one inside often outlives a renaming.
    candidates = [folder / f"{entry.stem}{ending}" for ending in _ENDINGS]
    if named and not lint.fault_of_name(named, allow_outside):
        candidates += [folder / named]
    path = next((p for p in candidates if os.path.lexists(p)), candidates[0])
    height, width = (_integer(_text(tree, f"size/{s}")) for s in ("height", "width"))
    return Record(entry.number, shown(path.name), height, width, path)


def _annotation(
    thing: Element,
    number: int,
    record: Record,
    file: str,
    classes: tuple[str, ...],
) -> Annotation | Problem:
    name = _text(thing, "name")
    if name not in classes:
        detail = f"has class {name!r}, which is not among {', '.join(classes)}"
        return lint.object_problem(number, record, file, "unknown category", detail)
    corners = [_text(thing, f"bndbox/{c}") for c in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = map(float, corners)
    except ValueError:
        detail = f"has box {corners}: not four numbers"
        return lint.object_problem(number, record, file, "malformed box", detail)
    if x2 <= x1 or y2 <= y1:
        fault = lint.flat((x1, y1, x2, y2))
        return lint.object_problem(number, record, file, *fault)
    box = (x1 - 1, y1 - 1, x2, y2)
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    difficult = _text(thing, "difficult") == "1"
    number = lint.object_id(int(record.id), number)
    return Annotation(number, box, classes.index(name), area, difficult=difficult)


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _integer(text: str) -> int:
    """The number in `text`, which may be written as 64.0; 0 where there is none."""
    try:
        number = float(text)
    except ValueError:
        return 0
    return int(number) if number.is_integer() and 0 < number < 1 << 31 else 0
