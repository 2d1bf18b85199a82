"""The shapes of LabelMe's files: outlines with labels, some of them of one object."""

import base64
import binascii
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2

from detjax.data import lint, pixels
from detjax.data.formats import outlines
from detjax.data.formats.coco_rows import brief
from detjax.data.formats.outlines import Outline
from detjax.data.records import Annotation, Problem, Record
from detjax.errors import UserError

# Lines and points cover nothing.
_KINDS = ("polygon", "rectangle", "circle", "mask", "rotation")


def annotations(
    shapes: Sequence[Any], record: Record, classes: tuple[str, ...], file: str
) -> Iterator[Annotation | Problem]:
    """The objects of a file, or their problems, by their numbers from 1.

    Shapes of one label and one group_id are parts of one object, which has the number
    of its first.
    """
    objects: dict[Any, list[Outline]] = {}
    first: dict[Any, tuple[int, str, bool]] = {}
    for number, shape in enumerate(shapes, 1):
        reason = "malformed shape"
        try:
            if number >= lint.MOST_OBJECTS:
                raise UserError("is one of a million or more")
            if not isinstance(shape, Mapping):
                raise UserError(f"is {brief(shape)}: not a shape")
            label = shape.get("label")
            reason = "unknown class"
            if not isinstance(label, str) or label not in classes:
                raise UserError(lint.unknown_class(brief(label), classes))
            reason = "malformed shape"
            kind = shape.get("shape_type") or "polygon"
            if kind not in _KINDS:
                reason = "unsupported shape"
                raise UserError(
                    f"is a {brief(kind)}, which covers no area; an object is one of "
                    f"{', '.join(_KINDS[:-1])}"
                )
            found = _outline(kind, shape, (record.height, record.width))
        except UserError as error:
            yield lint.object_problem(
                number, record, file, reason, str(error), what="shape"
            )
            continue
        group = shape.get("group_id")
        together = group is not None and not isinstance(group, dict | list)
        key = (label, group) if together else number
        first.setdefault(key, (number, label, _difficult(shape)))
        objects.setdefault(key, []).append(found)
    for key, parts in objects.items():
        number, label, difficult = first[key]
        whole = outlines.union(parts, (record.height, record.width))
        yield Annotation(
            lint.object_id(int(record.id), number),
            whole.box,
            classes.index(label),
            whole.area,
            difficult=difficult,
            rle=whole.rle,
        )


def _difficult(shape: Mapping[str, Any]) -> bool:
    flags = shape.get("flags")
    inner = flags.get("difficult") if isinstance(flags, Mapping) else None
    return shape.get("difficult") is True or inner is True


def _outline(kind: str, shape: Mapping[str, Any], size: tuple[int, int]) -> Outline:
    """The outline of a shape of an image of `size` (h, w). Raises UserError."""
    points = _points(shape.get("points"))
    if kind in ("polygon", "rotation"):
        if len(points) < 3:
            raise UserError(f"is a polygon of {len(points)} points, not 3 or more")
        return outlines.of_polygons([[x for point in points for x in point]], size)
    if kind == "rectangle":
        if len(points) not in (2, 4):
            raise UserError(f"is a rectangle of {len(points)} points, not 2")
        xs, ys = zip(*points, strict=True)
        return outlines.of_box(min(xs), min(ys), max(xs), max(ys))
    if len(points) != 2:
        raise UserError(f"is a {kind} of {len(points)} points, not 2")
    (x1, y1), (x2, y2) = points
    if kind == "circle":
        radius = math.hypot(x2 - x1, y2 - y1)
        # LabelMe keeps the two points inside the image, and not the circle.
        disc = outlines.ellipse(x1, y1, radius, radius)
        return outlines.of_polygons([disc], size, clip=True)
    mask = _mask(shape.get("mask"))
    h, w = mask.shape
    # The second corner is the last pixel, or the one after it.
    if max(abs(x2 - x1 + 0.5 - w), abs(y2 - y1 + 0.5 - h)) > 1:
        raise UserError(
            f"has a mask of {w} x {h} pixels between [{x1:g}, {y1:g}] and [{x2:g}, "
            f"{y2:g}]"
        )
    return outlines.of_mask(mask, (round(x1), round(y1)), size)


def _points(given: Any) -> list[tuple[float, float]]:
    try:
        found = [(float(x), float(y)) for x, y in given]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"has points {brief(given)}: not pairs of numbers") from None
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in found):
        raise UserError("has a point with a number that is not finite")
    return found


def _mask(given: Any) -> Any:
    """The mask [h w] bool of a PNG in base64."""
    if not isinstance(given, str):
        raise UserError("has no mask, and is of the type mask")
    try:
        found = pixels.decode(unpacked(given, "mask"), cv2.IMREAD_GRAYSCALE)
    except UserError:
        raise UserError("has a mask that is not a PNG in base64") from None
    return found > 0


def unpacked(text: str, what: str) -> bytes:
    """The bytes of base64. Raises UserError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"has {what} that is not base64") from None
