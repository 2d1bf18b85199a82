"""One mask file an object.

    images/NAME.jpg  masks/NAME/*.png          or masks/NAME_*.png
    ID/images/ID.png ID/masks/*.png            as the Data Science Bowl 2018 has them

With several classes each has a folder: masks/CLASS/NAME/*.png, masks/CLASS/NAME_*.png,
masks/NAME/CLASS/*.png, ID/masks/CLASS/*.png.
"""

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from detjax import files
from detjax.data import images, lint, pictures, pixels, records
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
from detjax.errors import MissingFileError, UserError
from detjax.settings import Location

TASK = "detection"
HELD = "images/ and masks/"  # by the folder of a split
POOL = {places.ALL: "."}
_APART = "_-. "  # between an image's name and a number in a mask's


class Mask(NamedTuple):
    """A mask file below the split's folder, and the class that its folder names."""

    name: str
    kind: str


class Entry(NamedTuple):
    """An image, its number, its path below the split's folder and its masks."""

    number: int
    name: str
    masks: tuple[Mask, ...]


def catalogues(
    *,
    splits: Mapping[str, Location] | None = None,
    root: Location | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Catalogue]:
    """The splits, each of its own folder, below `root`.

    The pixels of a mask above half its maximum are its object. Without folders of
    classes there is one class: that of `classes`, or "object"; with them they are
    sorted, or in the order of `classes`. Images are sorted by path and numbered from
    1, as objects are in each; one without a mask has no object.
    """
    folders = places.folders(splits, root, HELD, "objectmasks")
    found = {split: _listed(folder) for split, folder in folders.items()}
    kinds = {
        m.kind
        for held in found.values()
        for masks in held.images.values()
        for m in masks
    }
    names = tuple(classes or (sorted(kinds) if kinds - {""} else ("object",)))
    lint.check_classes(names)
    if kinds == {""} and len(names) > 1:
        raise UserError(
            f"classes are {', '.join(names)}, but the masks in "
            f"{', '.join(map(str, folders.values()))} are in no folders of classes; "
            f"make masks/{names[0]}/..., masks/{names[1]}/..., or name one class"
        )
    return {
        split: _catalogue(split, folders[split], held, names)
        for split, held in found.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, splits=None, root=None, classes=None) -> dict[str, str]:
    """A digest of the names and contents of the masks of each split.

    Raises MissingFileError if they are gone.
    """
    made = {}
    for split, folder in places.folders(splits, root, HELD, "objectmasks").items():
        digest = hashlib.sha256()
        for name, masks in _listed(folder).images.items():
            digest.update(f"\n{name}\n".encode("utf-8", "surrogateescape"))
            for mask in masks:
                digest.update(f"{mask.name}\n".encode("utf-8", "surrogateescape"))
                digest.update(files.read_bytes(folder / mask.name))
        made[split] = f"annotations {digest.hexdigest()[:16]}"
    return made


class _Listed(NamedTuple):
    """The images of a folder with their masks, and masks that belong to none."""

    images: dict[str, tuple[Mask, ...]]
    left: list[str]


def _listed(folder: Path) -> _Listed:
    """What `folder` holds, in either layout."""
    if (folder / "masks").is_dir():
        if not (folder / "images").is_dir():
            raise MissingFileError(
                f"{folder} has masks/ but no images/; put the pictures there"
            )
        return _matched(folder, "")
    with files.reading(folder):
        inner = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    found: dict[str, tuple[Mask, ...]] = {}
    left: list[str] = []
    for name in inner:
        if (folder / name / "images").is_dir():
            held = _matched(folder, name)
            found |= held.images
            left += held.left
    if not found:
        raise UserError(
            f"{folder} has neither images/ and masks/, nor folders that have them"
            + places.sniff.advice(folder, "objectmasks")
        )
    return _Listed(found, left)


def _matched(folder: Path, inner: str) -> _Listed:
    """The images of one pair of images/ and masks/ with their masks."""
    begin = f"{inner}/" if inner else ""
    found: dict[str, list[Mask]] = {}
    stems: dict[str, str] = {}
    for name in pictures.below(folder / inner / "images"):
        whole = f"{begin}images/{name}"
        found[whole] = []
        stems[os.path.splitext(name)[0]] = whole
    left = []
    at = folder / inner / "masks"
    for name in pictures.below(at) if at.is_dir() else []:
        stem, kind = _owner(name, stems, alone=len(stems) == 1 and bool(inner))
        whole = f"{begin}masks/{name}"
        if stem is None:
            left.append(whole)
        else:
            found[stems[stem]].append(Mask(whole, kind))
    return _Listed({name: tuple(masks) for name, masks in found.items()}, left)


def _owner(name: str, stems: Mapping[str, str], alone: bool) -> tuple[str | None, str]:
    """The image that a mask file belongs to, None if to none, and its class.

    `alone` says that all masks are those of the one image.
    """
    *above, bare = os.path.splitext(name)[0].split("/")
    for i in range(len(above), 0, -1):
        stem = "/".join(above[:i])
        if stem in stems:  # masks/NAME/..., masks/NAME/CLASS/...
            return stem, above[i] if i < len(above) else ""
    for i in range(len(above)):
        stem = "/".join(above[i:])
        if stem in stems:  # masks/CLASS/NAME/...
            return stem, above[0]
    for stem in _beginnings(bare):
        if stem in stems:
            return stem, above[0] if above else ""
        if above and f"{'/'.join(above)}/{stem}" in stems:
            return f"{'/'.join(above)}/{stem}", ""
    if alone:
        return next(iter(stems)), above[0] if above else ""
    return None, ""


def _beginnings(bare: str) -> Iterator[str]:
    """`bare`, and what of it ends before a separator, the longest first."""
    yield bare
    for i in range(len(bare) - 1, 0, -1):
        if bare[i] in _APART:
            yield bare[:i]


def _catalogue(
    split: str, folder: Path, held: _Listed, classes: tuple[str, ...]
) -> Catalogue:
    problems: list[Problem] = []
    entries: list[Entry] = []
    for number, (name, masks) in enumerate(sorted(held.images.items()), 1):
        fault = lint.fault_of_name(name)
        if not fault and len(masks) >= lint.MOST_OBJECTS:
            fault = ("too many instances", f"has {len(masks)} masks: a million or more")
        if fault:
            problems.append(Problem(f"image {number}", shown(name), *fault))
        else:
            entries.append(Entry(number, name, masks))
    for name in held.left:
        detail = "has no image: its name, or its folder's, begins with none's"
        problems.append(Problem("mask", shown(name), "missing image", detail))
    without = sum(not entry.masks for entry in entries)
    if entries and without == len(entries):
        raise UserError(
            f"no mask in {folder} belongs to an image; call those of images/a.png "
            "masks/a/1.png or masks/a_1.png"
        )
    notes = []
    if without:
        some = ", ".join([e.name for e in entries if not e.masks][:3])
        notes.append(f"{without} images of {folder} have no mask: no object ({some})")
    return Catalogue(
        split,
        classes,
        entries,
        functools.partial(read_entry, folder=folder, classes=classes),
        problems,
        notes=notes,
        name_of=_name,
        labels_of=_labels,
    )


def _name(entry: Entry) -> str:
    return entry.name


def _labels(entry: Entry) -> set[str]:
    return {mask.kind for mask in entry.masks}


def read_entry(entry: Entry, folder: Path, classes: tuple[str, ...]) -> Reading:
    """An image with the objects of its masks, or their problems."""
    # The size is not declared anywhere.
    record = Record(entry.number, shown(entry.name), 0, 0, folder / entry.name)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    size, problems = (record.height, record.width), []
    for number, mask in enumerate(entry.masks, 1):
        reason = "unknown class"
        try:
            if mask.kind not in classes and mask.kind:
                raise UserError(lint.unknown_class(mask.kind, classes))
            reason = "unusable mask"
            outline = _outline(folder / mask.name, size)
        except UserError as error:
            subject = f"mask {number} of image {record.id}"
            problems.append(Problem(subject, shown(mask.name), reason, str(error)))
            continue
        label = classes.index(mask.kind) if mask.kind else 0
        record.truth.append(
            Annotation(
                lint.object_id(entry.number, number),
                outline.box,
                label,
                outline.area,
                rle=outline.rle,
            )
        )
    return reading._replace(problems=problems)


def _outline(path: Path, size: tuple[int, int]) -> outlines.Outline:
    """The object of a mask file. Raises UserError, whose message lacks its subject."""
    data = files.read_bytes(path)
    if images.cut_off(data):
        raise UserError(f"is cut off after {len(data)} bytes")
    known = images.header(data)
    if known.size and known.size != size:
        raise UserError(
            f"is {known.size[1]} x {known.size[0]}, its image {size[1]} x {size[0]} "
            "pixels"
        )
    found = pixels.decode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if found.ndim == 3:  # alpha is not what the mask says
        found = found[..., : 1 if found.shape[2] == 2 else 3].max(axis=2)
    if found.shape != size:
        raise UserError(
            f"is {found.shape[1]} x {found.shape[0]}, its image {size[1]} x {size[0]} "
            "pixels"
        )
    # Smoothed edges are greys: those beyond the middle belong to the object.
    most = found.max(initial=0)
    mask = found > most / 2 if most > 1 else found > 0
    return outlines.of_mask(mask, (0, 0), size)
