"""The objects of an image's label maps."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detjax.data import lint, rle
from detjax.data.formats import mapfile
from detjax.data.formats.mapfile import load
from detjax.data.records import Annotation, Problem, Reading, Record, shown
from detjax.errors import UserError


class Entry(NamedTuple):
    """An image, its number, and the label maps of its name with their classes."""

    number: int
    image: Path
    maps: tuple[tuple[str, Path], ...]  # of each class folder; "" where there is none
    classes: Path | None = None  # the map of classes


def read_entry(
    entry: Entry, classes: tuple[str, ...] = ("object",), components: bool = False
) -> Reading:
    """An image with the objects of its label maps, or its problem."""
    # The size is not declared anywhere.
    record = Record(entry.number, shown(entry.image.name), 0, 0, entry.image)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    found: list[tuple[str | int, rle.Instance]] = []
    problems: list[Problem] = []
    for kind, path in entry.maps:
        reason = "unreadable label map"
        try:
            labels = load(path)
            reason = "label map of another size"
            _check_size(labels, record)
            reason = "unknown class"
            if kind and kind not in classes:
                raise UserError(f"is {lint.unknown_class(kind, classes)[4:]}")
            if components:
                own = _parts(labels, classes, kind)
            elif entry.classes is not None:
                reason = "unusable class map"
                own = [*_by_map(labels, entry.classes, classes, record, problems)]
            else:
                own = [(kind, mask) for mask in rle.instances(labels).values()]
            reason = "too many instances"
            found += own
            if len(found) >= lint.MOST_OBJECTS:
                raise UserError(f"has {len(found)} instances: a million or more")
        except UserError as error:
            subject = f"label map of image {record.id}"
            name = f"{kind}/{path.name}" if kind else path.name
            problem = Problem(subject, name, reason, str(error))
            return Reading(None, [problem], reading.turned)
    record.truth = [
        Annotation(
            lint.object_id(entry.number, number),
            mask.box,
            classes.index(kind) if isinstance(kind, str) and kind else int(kind or 0),
            mask.area,
            rle=mask.rle,
        )
        for number, (kind, mask) in enumerate(found, 1)
    ]
    return reading._replace(problems=problems)


def _parts(
    labels: np.ndarray, classes: tuple[str, ...], kind: str
) -> list[tuple[str | int, rle.Instance]]:
    """The connected parts of a map; with several classes its values are theirs."""
    if kind or len(classes) == 1:
        parts = rle.instances(mapfile.components(labels)).values()
        return [(kind, mask) for mask in parts]
    values = np.unique(labels)
    if values[-1] > len(classes):
        raise UserError(
            f"has the value {values[-1]}, and the classes are numbered 1 to "
            f"{len(classes)}: {', '.join(classes)}"
        )
    return [
        (int(value) - 1, mask)
        for value in values[values > 0]
        for mask in rle.instances(mapfile.components(labels == value)).values()
    ]


def _by_map(
    labels: np.ndarray,
    path: Path,
    classes: tuple[str, ...],
    record: Record,
    problems: list[Problem],
) -> Iterator[tuple[str | int, rle.Instance]]:
    """The objects with the class that most of their pixels have in the map `path`."""
    kinds = load(path)
    if kinds.shape != labels.shape:
        (h, w), (lh, lw) = kinds.shape, labels.shape
        raise UserError(f"is {lw} x {lh}, its class map {w} x {h} pixels")
    own, numbers = labels[labels > 0], kinds[labels > 0]
    values, place = np.unique(own, return_inverse=True)
    most = int(numbers.max(initial=0))
    if most > len(classes):
        raise UserError(
            f"has a class map with the value {most}, and the classes are numbered 1 to "
            f"{len(classes)}: {', '.join(classes)}"
        )
    counts = np.zeros((len(values), len(classes) + 1), np.int64)
    np.add.at(counts, (place, numbers), 1)
    chosen = counts.argmax(axis=1)
    for label, mask in zip(chosen, rle.instances(labels).values(), strict=True):
        if label:
            yield int(label) - 1, mask
        else:
            detail = f"at {lint.show(mask.box)} has no class: {path.name} is 0 there"
            subject = f"an object of image {record.id}"
            problems.append(Problem(subject, path.name, "no class", detail))


def _check_size(labels: np.ndarray, record: Record) -> None:
    h, w = labels.shape
    if (h, w) != (record.height, record.width):
        raise UserError(
            f"is {w} x {h}, its image {record.width} x {record.height} pixels"
        )
