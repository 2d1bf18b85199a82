"""Image folders: one folder per class.

DIR/cat/1.jpg  DIR/cat/2.jpg  DIR/dog/1.jpg ...
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from detjax import files
from detjax.data import lint, pictures, records
from detjax.data.formats import places
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record, shown
from detjax.errors import UserError
from detjax.settings import Location, Range

TASK = "classification"
POOL = {places.ALL: "."}
Percent = Annotated[int, Range(1, 100)]


class Entry(NamedTuple):
    """A picture, its number in the split and its label."""

    number: int
    path: Path
    name: str  # below the split's folder
    label: int


def catalogues(
    *,
    splits: Mapping[str, Location | Percent] | None = None,
    root: Location | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Catalogue]:
    """The splits: each of a folder, below `root` if given, or a percentage of `root`.

    Percentages are of every class; an image's split is decided by a hash of its path,
    so that images added later move few of the others. Without `classes` they are the
    sorted names of all splits' folders.

    Raises UserError for splits that are neither all folders nor percentages of `root`
    that add up to 100 at most.
    """
    found = _splits(splits, root)
    names = {label for listed in found.values() for label in listed}
    classes = tuple(sorted(names) if classes is None else classes)
    lint.check_classes(classes)
    return {split: _catalogue(split, found[split], classes) for split in found}


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, splits=None, root=None, classes=None) -> dict[str, str]:
    """A digest of the names of the pictures of each split.

    Raises MissingFileError if their folders are gone.
    """
    made = {}
    for split, listed in _splits(splits, root).items():
        digest = hashlib.sha256()
        for label, paths in sorted(listed.items()):
            for path in paths:
                name = f"{label}/{path.name}\n"
                digest.update(name.encode("utf-8", "surrogateescape"))
        made[split] = f"pictures {digest.hexdigest()[:16]}"
    return made


Listed = dict[str, list[Path]]  # the pictures of each class, sorted by name


def _splits(splits: Mapping[str, Any], root: Location | None) -> dict[str, Listed]:
    """The pictures of each split."""
    if not splits:
        raise places.unnamed(root, "folders")
    shares = [share for share in splits.values() if isinstance(share, int)]
    if not shares:
        found = places.splits_of(splits, root, "folders")
        return {split: _listed(path) for split, path in found.items()}
    if root is None or len(shares) < len(splits) or sum(shares) > 100:
        raise UserError(
            f"splits={dict(splits)} with root={root}: give each split a folder of its "
            "own, or root and a percentage for each that add up to 100 at most"
        )
    listed = _listed(lint.expanded(root))
    parts: dict[str, Listed] = {split: {} for split in splits}
    for label, paths in listed.items():
        drawn = sorted(paths, key=lambda path: _hash(f"{path.parent.name}/{path.name}"))
        first = total = 0
        for split, share in splits.items():
            total += share
            last = round(len(drawn) * total / 100)
            parts[split][label] = sorted(drawn[first:last])
            first = last
    return parts


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def _listed(folder: Path) -> Listed:
    """The pictures in the folders of `folder`, by the folders' names."""
    if not folder.is_dir():
        raise places.no_folder(folder, "the folders, one a class")
    with files.reading(folder):
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        found = {
            name: _pictures(folder / name) for name in names if not name.startswith(".")
        }
    if not any(found.values()):
        raise UserError(
            f"{folder} holds no folder of pictures; make one a class in it"
            + places.sniff.advice(folder, "folders")
        )
    return found


def _pictures(folder: Path) -> list[Path]:
    """The images of a folder, except macOS resource forks (._one.jpg)."""
    return [folder / name for name in pictures.inside(folder)]


def _catalogue(split: str, listed: Listed, classes: Sequence[str]) -> Catalogue:
    problems: list[Problem] = []
    entries = []
    number = 0
    for name, paths in listed.items():
        if name not in classes:
            detail = "is the folder of a class that is not among the classes"
            problems.append(Problem(f"folder {name}", split, "unknown class", detail))
            continue
        if not paths:
            detail = f"has no picture in split {split!r}"
            problems.append(Problem(f"class {name}", split, "empty class", detail))
        for path in paths:
            number += 1
            below = f"{name}/{path.name}"
            entries.append(Entry(number, path, below, classes.index(name)))
    return Catalogue(
        split,
        tuple(classes),
        entries,
        read_entry,
        problems,
        name_of=_name,
        labels_of=_labels,
    )


def _name(entry: Entry) -> str:
    return entry.name


def _labels(entry: Entry) -> tuple[int]:
    return (entry.label,)


def read_entry(entry: Entry) -> Reading:
    """An image with its label, or its problem."""
    # The size is not declared anywhere.
    record = Record(entry.number, shown(entry.name), 0, 0, entry.path)
    record.truth = (entry.label,)
    return lint.read_image(record)
