"""Label maps of annotated objects: files of any format of detection with masks.

A pixel has the class of the smallest object that covers it; where there is none it is
background, the first class. Crowds, and the boxes of objects without a mask, are
ignored where no other object lies.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from detjax import settings
from detjax.data import label_maps, lint, records, rle
from detjax.data.formats import (
    coco,
    cvat,
    labelmaps,
    labelme,
    objectmasks,
    places,
    shapes,
    sniff,
    voc,
    yolo,
)
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record
from detjax.errors import UserError

TASK = "segmentation"
POOL = {places.ALL: places.ALL}
BACKGROUND = "background"
SOURCES: dict[str, ModuleType] = {
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "labelme": labelme,
    "cvat": cvat,
    "objectmasks": objectmasks,
    "labelmaps": labelmaps,
    "shapes": shapes,
}


def catalogues(
    *,
    source: Mapping[str, Any],
    splits: Mapping[str, Any] | Sequence[str] | None = None,
) -> dict[str, Catalogue]:
    """The splits of `source`: its format, and the settings of that.

    source: {"format": "coco", "splits": {...}, "images": ...}, for instance. Without a
        format it is the one that the files look like.
    splits: those of the source, in place of its own.

    Raises UserError for another format, or settings that it does not take.
    """
    inner = _inner(source, splits)
    return {split: _converted(catalogue) for split, catalogue in inner.items()}


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, source, splits=None) -> dict[str, str]:
    """Those of the source.

    Raises MissingFileError if its files are gone.
    """
    kind, given = _given(source, splits)
    return SOURCES[kind].digests(**given)


def _given(source: Mapping[str, Any], splits: Any) -> tuple[str, dict[str, Any]]:
    """The source's format and its settings."""
    given = dict(source)
    named = given.get("splits")
    if splits is not None and splits != POOL:
        given["splits"] = named = splits
    kind = given.pop("format", None) or _guessed(given.get("root"), named)
    if kind not in SOURCES:
        raise UserError(
            f"source.format={kind!r} is no format of objects; choose one of "
            f"{', '.join(SOURCES)}"
        )
    if splits == POOL and not named:
        given["splits"] = SOURCES[kind].POOL
    return kind, given


def _guessed(root: Any, splits: Any) -> str:
    """The format that the files look like. Raises UserError if it is none."""
    paths = [root] if root is not None else []
    if isinstance(splits, Mapping):
        paths += [places.joined(root, path) for path in splits.values()]
    for path in paths:
        found = sniff.guess(lint.expanded(path))
        if found and found.format in SOURCES:
            return found.format
    raise UserError(
        f"{' and '.join(map(str, paths)) or 'no folder'} looks like no format of "
        f"objects; name it with --from={'|'.join(SOURCES)} (source.format)"
    )


def _inner(source: Mapping[str, Any], splits: Any) -> dict[str, Catalogue]:
    """The catalogues of the objects."""
    kind, given = _given(source, splits)
    module = SOURCES[kind]
    checked = settings.check_all("source", module.catalogues, given)
    return module.catalogues(**checked)


def _converted(catalogue: Catalogue) -> Catalogue:
    """`catalogue` with label maps in place of objects."""
    if BACKGROUND in catalogue.classes:
        raise UserError(
            f"a class is called {BACKGROUND!r}, which is what pixels without an object "
            "are; name the classes otherwise with --classes"
        )
    classes = (BACKGROUND, *catalogue.classes)
    read = functools.partial(read_entry, read=catalogue.read, num_classes=len(classes))
    return Catalogue(
        catalogue.split,
        classes,
        catalogue.entries,
        read,
        catalogue.problems,
        text_ids=catalogue.text_ids,
        notes=catalogue.notes,
        name_of=catalogue.name_of,
        labels_of=catalogue.labels_of,
    )


def read_entry(entry: Any, read: Callable[[Any], Reading], num_classes: int) -> Reading:
    """An image with the label map of its objects, or its problem."""
    reading = read(entry)
    record = reading.record
    if record is None:
        return reading
    try:
        labels, valid = drawn(record)
        if not valid.any():
            raise UserError("has no pixel with a class: crowds cover all of it")
    except (UserError, ValueError) as error:
        problem = Problem(
            f"image {record.id}", record.file_name, "unusable masks", str(error)
        )
        return Reading(None, [*reading.problems, problem], reading.turned)
    record.truth = label_maps.encode(labels, valid, num_classes)
    return reading


def drawn(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The label map [h w] of a record's objects, and which pixels are valid."""
    size = record.height, record.width
    labels, valid = np.zeros(size, np.int32), np.ones(size, bool)
    # Ignored regions first, then objects, large ones below small ones.
    order = sorted(record.truth, key=lambda a: (_sure(a), -a.area))
    for one in order:
        if one.rle is None:
            x1, y1, x2, y2 = (round(x) for x in one.box)
            valid[max(y1, 0) : y2, max(x1, 0) : x2] = False
            continue
        mask = rle.decode({"size": list(size), "counts": one.rle})
        valid[mask] = _sure(one)
        labels[mask] = one.label + 1
    return np.where(valid, labels, 0), valid


def _sure(one: Any) -> bool:
    return one.rle is not None and not one.crowd
