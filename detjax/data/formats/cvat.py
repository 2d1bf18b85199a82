"""CVAT's XML ("CVAT for images 1.1"): one file with all images and their shapes.

The file is walked through once for the images' places in it; the shapes of an image are
parsed when it is read.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detjax.data import lint, records
from detjax.data.formats import coco, cvat_shapes, places, xmlfile
from detjax.data.formats.cvat_content import Content, Entry, read
from detjax.data.formats.cvat_shapes import Layout
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record, shown
from detjax.errors import UserError
from detjax.settings import Location

TASK = "detection"
# Every image of the file.
EVERY = "*"
POOL = {places.ALL: EVERY}
_DEFAULT = "annotations.xml"


def catalogues(
    *,
    root: Location | None = None,
    splits: Mapping[str, Location] | Sequence[str] | None = None,
    images: Location | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> dict[str, Catalogue]:
    """The splits of `root`, an XML file or the folder of annotations.xml.

    Without `splits` they are the file's subsets, if it has several. `splits` names some
    of those, "*" being all images, or gives each split an XML file of its own. Without
    `classes` they are the file's labels in its order.

    Images are in `images`, or in images/ beside the file, or beside it, each with or
    without a folder of its subset's name. They are in the file's order, numbered from
    1, and so are shapes in each. Names that leave that folder are problems unless
    `allow_outside`.
    """
    found = _parts(root, splits)
    contents = {content.path: content for content, _ in found.values()}
    known = [name for content in contents.values() for name in content.labels]
    names = tuple(classes or dict.fromkeys(known))
    if not names:
        raise UserError(f"{next(iter(contents))} has no label and no shape")
    lint.check_classes(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"{next(iter(contents))} has no label {', '.join(unknown)}; it has "
            f"{', '.join(dict.fromkeys(known))}"
        )
    points = _points(contents.values(), names)
    layout = Layout(names, points, tuple(known))
    return {
        split: _catalogue(split, content, subset, layout, images, allow_outside)
        for split, (content, subset) in found.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *, root=None, splits=None, images=None, classes=None, allow_outside=False
) -> dict[str, str]:
    """A digest of the file of each split.

    Raises MissingFileError if they are gone.
    """
    if splits:
        named = _named(splits)
        paths = {split: _file_of(root, value) for split, value in named.items()}
    else:
        paths = {split: c.path for split, (c, _) in _parts(root, splits).items()}
    made = {path: coco.digest(path) for path in {*paths.values()}}
    return {split: f"annotations {made[path]}" for split, path in paths.items()}


def _named(splits: Any) -> dict[str, Any]:
    if isinstance(splits, Mapping):
        return dict(splits)
    return {split: split for split in splits}


def _file(path: Path) -> Path:
    """The XML file at `path`, or in that folder."""
    path = lint.expanded(path)
    if path.is_dir() and (path / _DEFAULT).is_file():
        return path / _DEFAULT
    if path.is_dir():
        raise UserError(
            f"{path} has no {_DEFAULT}: export the task as 'CVAT for images 1.1', "
            f"unpack it and give the XML file{places.sniff.advice(path, 'cvat')}"
        )
    return places.file(path, "CVAT's XML file", "cvat")


def _file_of(root: Any, value: Any) -> Path:
    """The file of a split: one of its own, or the one of all."""
    own = places.joined(root if root and Path(root).is_dir() else None, value)
    if str(value).lower().endswith(".xml") or own.is_file():
        return _file(own)
    if root is None:
        raise UserError(f"split {value!r} is no XML file; give one, or --root")
    return _file(Path(root))


def _parts(root: Any, splits: Any) -> dict[str, tuple[Content, str]]:
    """The content of each split's file, and the subset that it is; "*" for all."""
    if not splits:
        if root is None:
            raise places.unnamed(root, "cvat")
        content = read(_file(Path(root)))
        subsets = dict.fromkeys(entry.subset for entry in content.entries)
        if len(subsets) < 2:
            raise places.unnamed(root, "cvat")
        return {_usual(subset): (content, subset) for subset in subsets}
    once = functools.cache(read)
    found = {}
    for split, value in _named(splits).items():
        content = once(_file_of(root, value))
        known = {entry.subset for entry in content.entries}
        if str(value).lower().endswith(".xml") or value == EVERY:
            found[split] = (content, EVERY)
        elif str(value) in known:
            found[split] = (content, str(value))
        else:
            there = ", ".join(sorted(known - {""})) or "none"
            raise UserError(
                f"{content.path} has no subset {value!r} (there: {there}); name one, "
                f"an XML file, or {EVERY!r} for all images"
            )
    return found


def _usual(subset: str) -> str:
    """A name that a split may have."""
    name = "".join(c if c.isalnum() else "_" for c in subset) or "rest"
    usual = {"validation": "val", "valid": "val", "training": "train"}
    return usual.get(name.lower(), name.lower())


def _points(contents: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The keypoints of the skeletons of the chosen classes. Raises UserError."""
    found = {
        tuple(points)
        for content in contents
        for name, points in content.points.items()
        if name in names
    }
    if len(found) > 1:
        raise UserError(
            "the skeletons have different points; make a data set of each, with "
            "--classes"
        )
    return next(iter(found), ())


def _catalogue(
    split: str,
    content: Content,
    subset: str,
    layout: Layout,
    images: Any,
    allow_outside: bool,
) -> Catalogue:
    beside = content.path.parent
    if images is not None:
        folders = [places.folder(images, "the images", "cvat")]
    else:
        folders = [f for f in (beside / "images", beside) if f.is_dir()]
    own = [e for e in content.entries if subset in (EVERY, e.subset)]
    problems: list[Problem] = []
    named = ((entry, entry.number, f"{entry.subset}/{entry.name}") for entry in own)
    entries, seen = [], set()
    for entry, number, name in named:
        fault = lint.fault_of_name(entry.name, allow_outside)
        if not entry.name:
            fault = ("malformed image", "has no name")
        elif name in seen:
            fault = ("listed twice", f"is {entry.name}, which is listed twice")
        seen.add(name)
        if fault:
            problems.append(Problem(f"image {number}", content.path.name, *fault))
        else:
            entries.append(entry)
    return Catalogue(
        split,
        layout.classes,
        entries,
        functools.partial(
            read_entry,
            file=content.path,
            encoding=content.encoding,
            folders=folders,
            layout=layout,
        ),
        problems,
        layout.points,
        name_of=_name,
        labels_of=_labels,
    )


def _name(entry: Entry) -> str:
    return f"{entry.subset}/{entry.name}"


def _labels(entry: Entry) -> tuple[str, ...]:
    return entry.labels


def read_entry(
    entry: Entry, file: Path, encoding: str, folders: Sequence[Path], layout: Layout
) -> Reading:
    """An image of the file with its shapes, or their problems."""
    try:
        with open(file, "rb") as stream:
            stream.seek(entry.start)
            data = stream.read(entry.stop - entry.start)
        image = xmlfile.element(data, encoding)
    except (UserError, OSError) as error:
        problem = Problem(f"image {entry.number}", file.name, "not XML", str(error))
        return Reading(None, [problem])
    inner = (entry.name, os.path.join(entry.subset, entry.name))
    candidates = [folder / name for folder in folders for name in inner]
    path = next((p for p in candidates if os.path.lexists(p)), candidates[0])
    height, width = (_integer(image.get(side)) for side in ("height", "width"))
    record = Record(entry.number, shown(entry.name), height, width, path)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    found = cvat_shapes.annotations(image, record, layout, file.name)
    problems = lint.good_annotations(record, found, file.name, "shape")
    return reading._replace(problems=problems)


def _integer(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0
