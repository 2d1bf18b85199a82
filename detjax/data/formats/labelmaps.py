"""Label maps: images/ beside labels/, whose pixel values are instance ids.

labels/NAME.png           of one class
labels/CLASS/NAME.png     of several: an instance map a class
labels/NAME.png classes/NAME.png   the same, with the classes of the pixels
"""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detjax import files
from detjax.data import lint, pictures, records
from detjax.data.formats import mapfile, places
from detjax.data.formats.labelmap_objects import Entry, read_entry
from detjax.data.formats.mapfile import load
from detjax.data.records import Catalogue, Dataset, Problem
from detjax.errors import MissingFileError, UserError
from detjax.settings import Location

__all__ = ["catalogue", "catalogues", "digests", "load", "read", "read_splits"]

TASK = "detection"
HELD = "images/ and labels/"  # by the folder of a split
POOL = {places.ALL: "."}
Objects = Literal["values", "components"]


def catalogues(
    *,
    splits: Mapping[str, Location] | None = None,
    root: Location | None = None,
    classes: Sequence[str] | None = None,
    objects: Objects | None = None,
) -> dict[str, Catalogue]:
    """The splits, each of its own folder, below `root`; see `catalogue`.

    objects: whether every value of a label map is an object ("values"), or every
        separate part of what is not 0 ("components").

    Without `classes` they are the names of the folders in labels/, sorted, or "object".
    """
    folders = places.folders(splits, root, HELD, "labelmaps")
    if not classes:
        kinds = {kind for folder in folders.values() for kind in _kinds(folder)}
        classes = tuple(sorted(kinds)) or ("object",)
    return {
        split: catalogue(path, split, classes, objects)
        for split, path in folders.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, splits=None, root=None, classes=None, objects=None) -> dict[str, str]:
    """A digest of the label maps of each split, and what their objects are.

    Raises MissingFileError if they are gone.
    """
    found = {}
    for split, folder in places.folders(splits, root, HELD, "labelmaps").items():
        digest = hashlib.sha256()
        named = [(folder / "labels", "")]
        named += [(folder / "labels" / kind, f"{kind}/") for kind in _kinds(folder)]
        if (folder / "classes").is_dir():
            named.append((folder / "classes", "classes/"))
        for place, begin in named:
            for stem, path in _files(place, mapfile.SUFFIXES):
                digest.update(f"\n{begin}{stem}\n".encode("utf-8", "surrogateescape"))
                digest.update(files.read_bytes(path) if path.is_file() else b"no file")
        of = f" by {objects}" if objects == "components" else ""
        found[split] = f"annotations {digest.hexdigest()[:16]}{of}"
    return found


def read(
    folder: str | Path,
    split: str = "train",
    classes: Sequence[str] = ("object",),
    objects: Objects | None = None,
) -> Dataset:
    """One split in memory; see `catalogue`."""
    return records.collect(catalogue(folder, split, classes, objects))


def catalogue(
    folder: str | Path,
    split: str = "train",
    classes: Sequence[str] = ("object",),
    objects: Objects | None = None,
) -> Catalogue:
    """One split: every value but 0 of a label map is an object, in the values' order.

    With folders in labels/, each holds the maps of the class of its name. With a folder
    classes/ beside labels/, the class of an object is the number, from 1 in the order
    of `classes`, that most of its pixels have there. Else there is one class.

    With `objects` "components" the objects are the connected parts (by sides or
    corners) of a map instead, and with several classes its values are their numbers.
    Without `objects` they are the values, unless no map tells objects apart by them.

    Images are sorted by name and numbered from 1, and objects from 1 in each. Raises
    UserError if the classes of the objects are unknown, and for maps of one value.
    """
    lint.check_classes(classes)
    folder = lint.expanded(folder)
    kinds, by_map = _kinds(folder), (folder / "classes").is_dir()
    if len(classes) > 1 and not (kinds or by_map or objects == "components"):
        raise UserError(
            f"label maps have one class, not {list(classes)}, unless they are in "
            f"folders labels/{classes[0]}, labels/{classes[1]}, ..., or the pixels' "
            "classes in classes/, or the values are classes, with --objects=components"
        )
    below = {kind: _files(folder / "labels" / kind, mapfile.SUFFIXES) for kind in kinds}
    if not kinds:
        below = {"": _files(folder / "labels", mapfile.SUFFIXES)}
    maps: dict[str, list[tuple[str, Path]]] = {}
    for kind, held in below.items():
        for stem, path in held:
            maps.setdefault(stem, []).append((kind, path))
    beside = dict(_files(folder / "classes", mapfile.SUFFIXES)) if by_map else {}
    problems: list[Problem] = []
    entries, seen = [], set()
    found = _files(folder / "images", pictures.SUFFIXES)
    for number, (stem, path) in enumerate(found, 1):
        fault = lint.fault_of_name(path.name)
        if stem in seen:
            fault = ("duplicate id", "has the name of another image but for its ending")
        elif stem not in maps:
            fault = ("missing label map", f"has no label map in {folder / 'labels'}")
        elif by_map and stem not in beside:
            fault = ("missing class map", f"has no map in {folder / 'classes'}")
        seen.add(stem)
        if fault:
            problems.append(Problem(f"image {number}", path.name, *fault))
        else:
            own = tuple(maps[stem])
            entries.append(Entry(number, path, own, beside.get(stem)))
    for stem in sorted(maps.keys() - seen):
        detail = f"has no image in {folder / 'images'}"
        problems.append(Problem("label map", stem, "missing image", detail))
    if objects is None:
        _check_values(entries, folder)
    return Catalogue(
        split,
        tuple(classes),
        entries,
        functools.partial(
            read_entry, classes=tuple(classes), components=objects == "components"
        ),
        problems,
        name_of=_name,
        labels_of=_labels,
    )


def _check_values(entries: Sequence[Entry], folder: Path) -> None:
    """Raises UserError if no map has two values though one has several parts, or 255.

    Up to 50 maps are read, until one has two values.
    """
    doubtful: tuple[int, int, str] | None = None
    for entry in entries[:: max(len(entries) // 50, 1)]:
        for _, path in entry.maps:
            try:
                labels = load(path)
            except UserError:  # reported when the image is read
                continue
            values = np.unique(labels)
            values = values[values > 0]
            if len(values) > 1:
                return
            if len(values) and doubtful is None:
                parts = int(mapfile.components(labels).max())
                if parts > 1 or values[0] == 255:
                    doubtful = (int(values[0]), parts, path.name)
    if doubtful:
        value, parts, name = doubtful
        raise UserError(
            f"the label maps in {folder / 'labels'} do not number their objects: each "
            f"has one value but 0 ({name}: {value}, in {parts} separate "
            f"part{'s' if parts > 1 else ''}); say what the objects are: "
            "--objects=components makes every separate part one, --objects=values "
            "makes one object of each picture; maps whose values are classes have the "
            "format 'semantic'"
        )


def _name(entry: Entry) -> str:
    return entry.image.name


def _labels(entry: Entry) -> tuple[str, ...]:
    return tuple(kind for kind, _ in entry.maps)


def _kinds(folder: Path) -> list[str]:
    """The classes that have a folder in labels/, if there is no map beside them."""
    labels = folder / "labels"
    if not labels.is_dir() or _files(labels, mapfile.SUFFIXES):
        return []
    with files.reading(labels):
        inner = sorted(entry.name for entry in os.scandir(labels) if entry.is_dir())
    return [name for name in inner if name[0] != "."]


def _files(folder: Path, endings: tuple[str, ...]) -> list[tuple[str, Path]]:
    """(name without ending, path) of the files of a folder, sorted.

    macOS resource forks (._one.png) are left out.
    """
    if not folder.is_dir():
        raise MissingFileError(
            f"no folder {folder}; label maps need images/ and labels/"
            + places.sniff.advice(folder.parent, "labelmaps")
        )
    with files.reading(folder):
        names = sorted(os.listdir(folder))
    paths = [folder / name for name in names if name[:2] != "._"]
    return [(p.stem, p) for p in paths if p.suffix.lower() in endings]
