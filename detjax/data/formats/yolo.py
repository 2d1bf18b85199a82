"""YOLO's text files: images/ beside labels/, a row an object, and a data.yaml."""

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detjax import files
from detjax.data import lint, pictures, records
from detjax.data.formats import places, yolo_labels, yolo_rows, yolo_yaml
from detjax.data.formats.yolo_labels import Entry
from detjax.data.formats.yolo_rows import Layout
from detjax.data.formats.yolo_yaml import Description
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record, shown
from detjax.errors import UserError
from detjax.settings import Location

TASK = "detection"
# Every image of every split.
EVERY = "*"
POOL = {places.ALL: EVERY}


def catalogues(
    *,
    root: Location,
    splits: Sequence[str] | Mapping[str, Location] | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> dict[str, Catalogue]:
    """The splits of the data set at `root`: a data.yaml, or a folder.

    Without a data.yaml the classes are the lines of classes.txt, or `classes`, and the
    splits the folders images/train or train/images. With both, `classes` chooses among
    the file's and gives their order. `splits` names splits of the data.yaml, "*" being
    all of them, folders of images, or text files with an image a line.

    The labels of images/a.jpg are in labels/a.txt, or in a.txt beside it; an image
    without such a file has no object. Images are sorted by path and numbered from 1,
    and objects by their lines. Images outside the folder of the data set are refused
    unless `allow_outside`.
    """
    held = _describe(root)
    layout = _layout(held, classes, root)
    found = {}
    for split, named in _places(held, root, splits).items():
        found[split] = _catalogue(split, named, held, layout, allow_outside)
    return found


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, root, splits=None, classes=None, allow_outside=False) -> dict[str, str]:
    """A digest of the names and the labels of each split.

    Raises MissingFileError if they are gone.
    """
    held = _describe(root)
    made = {}
    for split, named in _places(held, root, splits).items():
        digest = hashlib.sha256(repr((held.names, held.keypoints, held.dims)).encode())
        for name in _listed(named, held.base):
            digest.update(f"\n{name}\n".encode("utf-8", "surrogateescape"))
            found = yolo_labels.read(Path(held.base, name))
            digest.update(b"nothing" if found is None else found[1])
        made[split] = f"annotations {digest.hexdigest()[:16]}"
    return made


def _describe(root: Location) -> Description:
    root = lint.expanded(root)
    if not root.exists():
        raise places.missing(root, "a data.yaml or a folder")
    if root.is_file() and root.suffix.lower() not in (".yaml", ".yml"):
        places.folder(root, "a YOLO data set", "yolo")
    return yolo_yaml.describe(root)


def _layout(held: Description, classes: Sequence[str] | None, root: Location) -> Layout:
    """What the rows mean. Raises UserError for unknown classes."""
    names = held.names or dict(enumerate(classes or ()))
    if not names:
        raise UserError(
            f"{root} has no data.yaml and no classes.txt; name the classes in the "
            "order of their numbers, from 0: --classes=A,B,C"
            + places.sniff.advice(lint.expanded(root), "yolo")
        )
    chosen = tuple(classes or (names[number] for number in sorted(names)))
    lint.check_classes(chosen, str(held.file or root))
    unknown = [name for name in chosen if name not in names.values()]
    if unknown:
        raise UserError(
            f"{held.file or root} has no class {', '.join(unknown)}; it has "
            f"{', '.join(names.values())}"
        )
    return Layout(names, chosen, len(held.keypoints), held.dims)


def _places(held: Description, root: Location, splits: Any) -> dict[str, list[Path]]:
    """The folders and lists of each split."""
    if not splits:
        if held.splits:
            return held.splits
        raise places.unnamed(root, "yolo")
    if not isinstance(splits, Mapping):
        splits = {split: split for split in splits}
    found = {}
    for split, named in splits.items():
        if str(named) in held.splits:
            found[split] = held.splits[str(named)]
        elif named == EVERY:
            pool = [path for paths in held.splits.values() for path in paths]
            images = held.base / "images"
            found[split] = pool or [images if images.is_dir() else held.base]
        else:
            path = places.joined(held.base, named)
            if not path.exists():
                there = ", ".join(held.splits) or "it names none"
                what = (
                    f"one of its splits ({there}), a folder of images or a list of them"
                )
                raise places.missing(path, what)
            found[split] = [path]
    return found


def _listed(named: Sequence[Path], base: Path) -> list[str]:
    """The images of a split by their paths below `base`, sorted; each once per line."""
    found: list[str] = []
    for place in named:
        if place.is_dir():
            inner = os.path.relpath(place, base)
            inner = "" if inner == "." else f"{inner}/"
            found += [f"{inner}{name}" for name in pictures.below(place)]
        else:
            found += _lines(place, base)
    return sorted(found)


def _lines(file: Path, base: Path) -> Iterator[str]:
    """The images of a text file with a path a line, as paths below `base`."""
    for line in files.read_text(file).splitlines():
        line = line.strip().replace("\\", "/")
        if line:
            yield os.path.relpath(_found(line, file.parent, base), base)


def _found(line: str, folder: Path, base: Path) -> str:
    """The path of a line: from the file's folder, the base, or moved with the base."""
    tried = [os.path.join(folder, line), os.path.join(base, line)]
    parts = [part for part in line.split("/") if part not in ("", ".", "..")]
    tried += [os.path.join(base, *parts[i:]) for i in range(len(parts))]
    return next(filter(os.path.lexists, tried), tried[0])


def _catalogue(
    split: str,
    named: Sequence[Path],
    held: Description,
    layout: Layout,
    allow_outside: bool,
) -> Catalogue:
    problems: list[Problem] = []
    entries: list[Entry] = []
    here = ", ".join(map(str, named))
    whole = all(place.is_dir() for place in named)
    for place in named:
        outside = lint.fault_of_name(os.path.relpath(place, held.base), allow_outside)
        if outside:
            raise UserError(f"split {split!r} of {held.file or held.base} {outside[1]}")
    # The pictures that several splits of one pool name are one.
    listed = _listed(named, held.base)
    if split == places.ALL:
        listed = sorted(set(listed))
    before = ""
    stems: dict[str, str] = {}
    for number, name in enumerate(listed, 1):
        fault = lint.fault_of_name(name, allow_outside)
        stem = os.path.splitext(name)[0]
        if name == before:
            fault = ("listed twice", f"is listed twice in {here}")
        elif stem in stems:
            fault = ("shared label file", f"has the label file of {stems[stem]}")
        stems.setdefault(stem, name)
        before = name
        if fault:
            problems.append(Problem(f"image {number}", shown(name), *fault))
        else:
            entries.append(Entry(number, name))
    if not entries and not problems:
        raise UserError(
            f"split {split!r} has no picture: there is none in {here}"
            + places.sniff.advice(held.base, "yolo")
        )
    notes = yolo_labels.check(entries, held.base, whole, here, problems)
    return Catalogue(
        split,
        layout.classes,
        entries,
        functools.partial(read_entry, base=held.base, layout=layout),
        problems,
        held.keypoints,
        notes=notes,
        name_of=_name,
        labels_of=functools.partial(_classes_in, base=held.base),
    )


def _name(entry: Entry) -> str:
    return entry.name


def _classes_in(entry: Entry, base: Path) -> set[str]:
    try:
        found = yolo_labels.read(Path(base, entry.name))
        return (
            set()
            if found is None
            else yolo_rows.classes_in(yolo_labels.text_of(found[1]))
        )
    except UserError:  # reported when the image is read
        return set()


def read_entry(entry: Entry, base: Path, layout: Layout) -> Reading:
    """An image with the objects of its label file, or their problems."""
    path = Path(base, entry.name)
    # The size is not declared anywhere.
    record = Record(entry.number, shown(entry.name), 0, 0, path)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    try:
        labels = yolo_labels.read(path)
        if labels is None:
            return reading
        file = shown(os.path.relpath(labels[0], base))
        text = yolo_labels.text_of(labels[1])
        found = yolo_rows.annotations(text, record, layout, file)
    except UserError as error:
        subject = f"label file of image {record.id}"
        problem = Problem(
            subject, record.file_name, "unreadable label file", str(error)
        )
        return Reading(None, [problem], reading.turned)
    problems = lint.good_annotations(record, found, file, "line")
    return reading._replace(problems=problems)
