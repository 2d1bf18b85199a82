"""The rows of YOLO's label files: boxes, polygons and poses of one image.

    class  x y w h                       a box: centre and size
    class  x y  x y  x y ...             a polygon, or the corners of a turned box
    class  x y w h  x y [v]  x y [v] ... a box and keypoints

All are parts of the image's width and height.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from detjax.data import lint
from detjax.data.formats import outlines
from detjax.data.records import Annotation, Problem, Record
from detjax.errors import UserError


class Layout(NamedTuple):
    """What the rows of a data set mean."""

    names: dict[int, str]  # of the class numbers in the files
    classes: tuple[str, ...]  # of the data set
    points: int = 0  # keypoints of an object
    dims: int = 3  # numbers of a keypoint: x, y, visibility; or x, y

    def label(self, number: int) -> int:
        """The label of a class number. Raises UserError."""
        if number not in self.names:
            raise UserError(
                f"has class {number}, and the classes are numbered "
                f"{min(self.names)} to {max(self.names)}"
            )
        name = self.names[number]
        if name not in self.classes:
            raise UserError(lint.unknown_class(name, self.classes))
        return self.classes.index(name)


def annotations(
    text: str, record: Record, layout: Layout, file: str
) -> Iterator[Annotation | Problem]:
    """The objects of a label file, or their problems, by line."""
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        row = " ".join(line.split())
        if not row:
            continue
        reason = "repeated row"
        try:
            if number >= lint.MOST_OBJECTS:
                reason = "too many rows"
                raise UserError("is one of a million or more")
            if row in seen:
                raise UserError(f"is line {seen[row]} again")
            seen[row] = number
            reason = "malformed row"
            kind, *values = _numbers(row)
            reason = "unknown class"
            if not kind.is_integer():
                raise UserError(f"has class {kind:g}: not a whole number")
            label = layout.label(int(kind))
            reason = "malformed row"
            yield _annotation(values, label, number, record, layout)
        except UserError as error:
            yield lint.object_problem(
                number, record, file, reason, str(error), what="line"
            )


def classes_in(text: str) -> set[str]:
    """The class numbers in a label file, as they are written."""
    return {line.split(maxsplit=1)[0] for line in text.splitlines() if line.strip()}


def _numbers(row: str) -> list[float]:
    try:
        found = [float(word) for word in row.split()]
    except ValueError:
        raise UserError(
            f"is {row[:60]!r}: not a class number and numbers, apart by spaces"
        ) from None
    if not all(map(math.isfinite, found)):
        raise UserError("has a number that is not finite")
    return found


def _annotation(
    values: list[float], label: int, number: int, record: Record, layout: Layout
) -> Annotation:
    size, count = (record.height, record.width), len(values)
    posed = 4 + layout.points * layout.dims
    points = None
    if count == 4 or (layout.points and count == posed):
        outline = _box(values[:4], record)
        if count > 4:
            points = _points(values[4:], record, layout)
    elif layout.points:
        raise UserError(
            f"has {count + 1} numbers: a class and a box are 5, with {layout.points} "
            f"keypoints of {layout.dims} numbers {posed + 1}"
        )
    elif count >= 6 and count % 2 == 0:
        outline = outlines.of_polygons([_scaled(values, record)], size)
    else:
        raise UserError(
            f"has {count + 1} numbers: a class and a box are 5, a class and a polygon "
            "7 or more, an odd number"
        )
    return Annotation(
        lint.object_id(int(record.id), number),
        outline.box,
        label,
        outline.area,
        rle=outline.rle,
        keypoints=points,
    )


def _box(values: list[float], record: Record) -> outlines.Outline:
    _check_range(values, record)
    x, y, w, h = values
    if w <= 0 or h <= 0:
        sides = [f"{side} of {v:g}" for side, v in (("width", w), ("height", h))]
        raise UserError(f"has a box with a {' and a '.join(sides)}")
    x1, y1 = (x - w / 2) * record.width, (y - h / 2) * record.height
    x2, y2 = (x + w / 2) * record.width, (y + h / 2) * record.height
    return outlines.Outline((x1, y1, x2, y2), (x2 - x1) * (y2 - y1))


def _scaled(values: list[float], record: Record) -> list[float]:
    """Points in pixels; those beside the image by a pixel at most are on its edge."""
    _check_range(values, record)
    points = np.clip(np.reshape(values, (-1, 2)), 0, 1)
    return (points * (record.width, record.height)).ravel().tolist()


def _points(values: list[float], record: Record, layout: Layout) -> np.ndarray:
    points = np.reshape(values, (layout.points, layout.dims))
    if layout.dims == 2:
        # Without a visibility, what nobody annotated is at 0, 0.
        seen = 2.0 * points.any(axis=1, keepdims=True)
        points = np.concatenate([points, seen], axis=1)
    _check_range(points[points[:, 2] > 0, :2].ravel().tolist(), record)
    points[points[:, 2] == 0] = 0
    return (points * (record.width, record.height, 1)).astype(np.float32)


def _check_range(values: list[float], record: Record) -> None:
    """Raises UserError for numbers that lie a pixel or more outside 0 to 1."""
    slack = 1 / min(record.width, record.height)
    beyond = [v for v in values if not -slack <= v <= 1 + slack]
    if not beyond:
        return
    said = f"has the number {beyond[0]:g}: not between 0 and 1"
    if max(values) > 2:
        said += "; YOLO's numbers are parts of the image's width and height, not pixels"
    raise UserError(said)
