"""LabelMe's JSON files: one an image, with the outlines of its objects."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detjax import files
from detjax.data import crew, lint, pictures, records, writer
from detjax.data.formats import labelme_shapes, places
from detjax.data.formats.coco_rows import brief, integer
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record, shown
from detjax.errors import UserError
from detjax.settings import Location

TASK = "detection"
HELD = "LabelMe's JSON files"  # by the folder of a split
POOL = {places.ALL: "."}


class Entry(NamedTuple):
    """An annotation file: its number, its path below the folder, and its labels."""

    number: int
    name: str
    labels: tuple[str, ...] = ()


def catalogues(
    *,
    splits: Mapping[str, Location] | None = None,
    root: Location | None = None,
    images: Location | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> dict[str, Catalogue]:
    """The splits, each of a folder with the JSON files of its images, below `root`.

    Without `classes` they are the sorted labels of all files. The image of a file is
    the one that its imagePath names, of its own name beside it or in `images`, or the
    one inside it. Images outside the folders are refused unless `allow_outside`. Files
    are sorted by path and images numbered from 1; pictures without a file are left out.
    """
    folders = places.folders(splits, root, HELD, "labelme")
    names = {s: pictures.below(f, (".json",)) for s, f in folders.items()}
    for split, folder in folders.items():
        if not names[split]:
            raise UserError(
                f"{folder} holds no JSON file of LabelMe"
                + places.sniff.advice(folder, "labelme")
            )
    entries = {s: _entries(folders[s], names[s]) for s in folders}
    found = {label for own in entries.values() for e in own for label in e.labels}
    chosen = tuple(classes or sorted(found))
    if not chosen:
        there = ", ".join(map(str, folders.values()))
        raise UserError(
            f"no file in {there} has a shape with a label"
            + places.sniff.advice(next(iter(folders.values())), "labelme")
        )
    lint.check_classes(chosen)
    apart = None if images is None else places.folder(images, "the images", "labelme")
    return {
        split: Catalogue(
            split,
            chosen,
            own,
            functools.partial(
                read_entry,
                folder=folders[split],
                images=apart,
                classes=chosen,
                allow_outside=allow_outside,
            ),
            notes=_notes(folders[split], names[split]),
            name_of=_name,
            labels_of=_labels,
        )
        for split, own in entries.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *, splits=None, root=None, images=None, classes=None, allow_outside=False
) -> dict[str, str]:
    """A digest of the annotation files of each split.

    Raises MissingFileError if they are gone.
    """
    made = {}
    for split, folder in places.folders(splits, root, HELD, "labelme").items():
        digest = hashlib.sha256()
        for name in pictures.below(folder, (".json",)):
            digest.update(f"\n{name}\n".encode("utf-8", "surrogateescape"))
            digest.update(files.read_bytes(folder / name))
        made[split] = f"annotations {digest.hexdigest()[:16]}"
    return made


def _entries(folder: Path, names: Sequence[str]) -> list[Entry]:
    """The annotation files with their labels, which many processes read if many."""
    look = functools.partial(_labels_in, folder=folder)
    many = len(names) >= writer.MANY
    found = crew.parallel(look, names) if many else map(look, names)
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal ones are kept once
    return [
        Entry(number, name, known.setdefault(labels, labels))
        for number, (name, labels) in enumerate(zip(names, found, strict=True), 1)
    ]


def _labels_in(name: str, folder: Path) -> tuple[str, ...]:
    try:
        shapes = load(folder / name)["shapes"]
    except UserError:  # reported when the image is read
        return ()
    labels = {shape.get("label") for shape in shapes if isinstance(shape, dict)}
    return tuple(sorted(label for label in labels if isinstance(label, str) and label))


def _notes(folder: Path, names: Sequence[str]) -> list[str]:
    """A note on the pictures without an annotation file, if there are any."""
    stems = {os.path.splitext(name)[0] for name in names}
    found = pictures.below(folder)
    without = [name for name in found if os.path.splitext(name)[0] not in stems]
    # Pictures apart from their files have names of their own.
    if not without or len(without) == len(found):
        return []
    some = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
    return [
        f"{len(without)} pictures in {folder} have no JSON file and are left out: "
        f"nobody has said that they show nothing ({some})"
    ]


def _name(entry: Entry) -> str:
    return entry.name


def _labels(entry: Entry) -> tuple[str, ...]:
    return entry.labels


def load(path: Path) -> dict[str, Any]:
    """The content of an annotation file. Raises UserError that names what it lacks."""
    data = files.read_bytes(path)
    try:
        held = json.loads(data)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "lists without end"
        raise UserError(f"cannot be read as JSON: {said[:200]}") from None
    if not isinstance(held, dict) or not isinstance(held.get("shapes"), list):
        raise UserError("is not a file of LabelMe: it has no list of shapes")
    return held


def read_entry(
    entry: Entry,
    folder: Path,
    images: Path | None,
    classes: tuple[str, ...],
    allow_outside: bool,
) -> Reading:
    """An image with the objects of its annotation file, or their problems."""
    subject, reason = f"annotation file of image {entry.number}", "not LabelMe"
    try:
        held = load(folder / entry.name)
        reason = "missing image"
        path, data = _image(held, entry.name, folder, images, allow_outside)
    except UserError as error:
        problem = Problem(subject, shown(entry.name), reason, str(error))
        return Reading(None, [problem])
    height, width = (
        max(integer(held.get(f"image{side}")) or 0, 0) for side in ("Height", "Width")
    )
    name = os.path.relpath(path, folder) if path else f"{Path(entry.name).stem}.png"
    record = Record(entry.number, shown(name), height, width, path)
    reading = lint.read_image(record, data)
    if reading.record is None:
        return reading
    file = shown(entry.name)
    found = labelme_shapes.annotations(held["shapes"], record, classes, file)
    problems = lint.good_annotations(record, found, file, "shape")
    return reading._replace(problems=problems)


def _image(
    held: Mapping[str, Any],
    name: str,
    folder: Path,
    images: Path | None,
    allow_outside: bool,
) -> tuple[Path | None, bytes | None]:
    """The path of the image, or None and its content. Raises UserError."""
    here = (folder / name).parent
    named = held.get("imagePath")
    candidates, outside = [], ""
    if isinstance(named, str) and named:
        # As Windows writes it.
        named = named.replace("\\", "/")
        below = os.path.relpath(here / named, folder)
        fault = lint.fault_of_name(below, allow_outside)
        if images is not None:
            candidates.append(images / Path(named).name)
        if fault is None:
            candidates.append(here / named)
        else:
            outside = f"; it {fault[1]}"
    stem = Path(name).stem
    for place in (images, here):
        if place is not None:
            candidates += [place / f"{stem}{e}" for e in pictures.SUFFIXES]
            candidates += [place / f"{stem}{e.upper()}" for e in pictures.SUFFIXES]
    for path in candidates:
        if os.path.isfile(path):
            return path, None
    inside = held.get("imageData")
    if isinstance(inside, str) and inside:
        return None, labelme_shapes.unpacked(inside, "imageData")
    raise UserError(
        f"has no image: its imagePath is {brief(named)}, which is not there, and no "
        f"picture is inside it{outside}"
    )
