"""The shapes of an image in CVAT's XML."""

import math
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from detjax.data import lint
from detjax.data.formats import outlines
from detjax.data.formats.outlines import Outline
from detjax.data.records import Annotation, Problem, Record
from detjax.errors import UserError

# What an image may hold; not all of them are objects.
SHAPES = (
    "box",
    "polygon",
    "mask",
    "ellipse",
    "skeleton",
    "polyline",
    "points",
    "cuboid",
    "tag",
)
_OBJECTS = SHAPES[:5]


class Layout(NamedTuple):
    """The classes and keypoints of a data set."""

    classes: tuple[str, ...]
    points: tuple[str, ...]
    labels: tuple[str, ...]  # all of the file's


def annotations(
    image: Element, record: Record, layout: Layout, file: str
) -> Iterator[Annotation | Problem]:
    """The objects of an image, or their problems, by their numbers from 1.

    Polygons, masks and ellipses of one label and one group are parts of one object,
    as in CVAT's own export to COCO. Whether a shape is occluded is not kept.
    """
    objects: dict[object, list[Outline]] = {}
    first: dict[object, Annotation] = {}
    shapes = [shape for shape in image if shape.tag in SHAPES]
    for number, shape in enumerate(shapes, 1):
        reason = "unknown class"
        try:
            if number >= lint.MOST_OBJECTS:
                raise UserError("is one of a million or more")
            label = (shape.get("label") or "").strip()
            if label not in layout.classes:
                raise UserError(lint.unknown_class(label, layout.classes))
            reason = "unsupported shape"
            if shape.tag not in _OBJECTS:
                raise UserError(
                    f"is a {shape.tag}; an object is one of {', '.join(_OBJECTS)}"
                )
            reason = "malformed shape"
            found, points = _outline(shape, record, layout)
        except UserError as error:
            yield lint.object_problem(
                number, record, file, reason, str(error), what="shape"
            )
            continue
        group = shape.get("group_id") or "0"
        joined = group != "0" and shape.tag in ("polygon", "mask", "ellipse")
        key = (label, group) if joined else number
        objects.setdefault(key, []).append(found)
        if key not in first:
            first[key] = Annotation(
                lint.object_id(int(record.id), number),
                found.box,
                layout.classes.index(label),
                found.area,
                crowd=_flagged(shape, "is_crowd", "iscrowd"),
                difficult=_flagged(shape, "difficult"),
                keypoints=points,
            )
    for made, parts in zip(first.values(), objects.values(), strict=True):
        whole = outlines.union(parts, (record.height, record.width))
        made.box, made.area, made.rle = whole
        yield made


def _flagged(shape: Element, *names: str) -> bool:
    """Whether an attribute that a labeller ticks is set."""
    return any(
        (held.text or "").strip().lower() in ("true", "1")
        for held in shape.iter("attribute")
        if (held.get("name") or "").lower() in names
    )


def _outline(
    shape: Element, record: Record, layout: Layout
) -> tuple[Outline, np.ndarray | None]:
    """The outline of a shape, and its keypoints. Raises UserError."""
    size = (record.height, record.width)
    degrees = _numbers(shape, "rotation", default="0")[0]
    if shape.tag == "box":
        x1, y1, x2, y2 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
        if min(x2 - x1, y2 - y1) <= 0:
            raise UserError(lint.flat((x1, y1, x2, y2))[1])
        if not degrees % 360:
            return outlines.of_box(x1, y1, x2, y2), None
        corners = outlines.turned_box(x1, y1, x2, y2, degrees)
        return outlines.of_polygons([corners], size, clip=True), None
    if shape.tag == "ellipse":
        x, y, a, b = _numbers(shape, "cx", "cy", "rx", "ry")
        corners = outlines.ellipse(x, y, a, b, degrees)
        return outlines.of_polygons([corners], size, clip=True), None
    if shape.tag == "mask":
        return _mask(shape, size), None
    if shape.tag == "skeleton":
        return _skeleton(shape, layout)
    points = _points(shape)
    if len(points) < 3:
        raise UserError(f"is a polygon of {len(points)} points, not 3 or more")
    return outlines.of_polygons([points.ravel().tolist()], size), None


def _mask(shape: Element, size: tuple[int, int]) -> Outline:
    """Run lengths along the rows of a window, zeros first."""
    numbers = _numbers(shape, "left", "top", "width", "height")
    left, top, width, height = map(int, numbers)
    text = shape.get("rle") or ""
    try:
        runs = np.array([int(word) for word in text.split(",")], np.int64)
    except (ValueError, OverflowError):
        raise UserError("has a mask whose rle is not a list of whole numbers") from None
    h, w = size
    if not (0 < width <= w and 0 < height <= h and runs.min() >= 0):
        raise UserError(
            f"has a mask of {width} x {height} pixels in the {w} x {h} image"
        )
    if runs.max() > width * height or runs.sum() != width * height:
        raise UserError(
            f"has a mask of {width} x {height} pixels whose runs add up to "
            f"{sum(runs.tolist())}"
        )
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return outlines.of_mask(mask, (left, top), size)


def _skeleton(shape: Element, layout: Layout) -> tuple[Outline, np.ndarray]:
    """Keypoints, and the box around those that are in the image."""
    found = np.zeros((len(layout.points), 3), np.float32)
    for point in shape.findall("points"):
        name = point.get("label") or ""
        if name not in layout.points:
            raise UserError(f"has a point {name!r}, which its label does not list")
        if point.get("outside") != "1":
            (at,) = _points(point)[:1]
            visibility = 1 if point.get("occluded") == "1" else 2
            found[layout.points.index(name)] = (*at, visibility)
    seen = found[found[:, 2] > 0, :2]
    if not len(seen):
        raise UserError("is a skeleton without a point in the image")
    low, high = seen.min(axis=0).tolist(), seen.max(axis=0).tolist()
    return outlines.of_box(*low, *high), found


def _points(shape: Element) -> np.ndarray:
    """The points [n 2] of "x,y;x,y"."""
    text = shape.get("points") or ""
    try:
        found = np.array(
            [[float(x) for x in pair.split(",")] for pair in text.split(";")]
        )
    except ValueError:
        raise UserError(f"has points {text[:60]!r}: not x,y;x,y") from None
    if found.ndim != 2 or found.shape[1] != 2:
        raise UserError(f"has points {text[:60]!r}: not x,y;x,y")
    if not np.isfinite(found).all():
        raise UserError("has a point with a number that is not finite")
    return found


def _numbers(shape: Element, *names: str, default: str | None = None) -> list[float]:
    found = [shape.get(name, default) for name in names]
    try:
        numbers = [float(text) for text in found]
    except (TypeError, ValueError):
        said = ", ".join(f"{n} {t!r:.40}" for n, t in zip(names, found, strict=True))
        raise UserError(f"has {said}: not numbers") from None
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"has {', '.join(names)} with a number that is not finite")
    return numbers
