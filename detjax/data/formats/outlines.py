"""Outlines of objects, of polygons, discs, turned boxes and small masks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from detjax.data import rle
from detjax.data.records import Box
from detjax.errors import UserError

Polygon = list[float]  # x, y, x, y, ...
# Corners of a polygon in place of a circle: 0.1 per cent of its area.
_CORNERS = 96
# Of polygons thinner than this, in pixels, the box is that of the pixels they cover: it
# and the corners' would share less than half of their area.
THIN = 4


class Outline(NamedTuple):
    """What an object covers: its box, and its mask if it has one."""

    box: Box
    area: float
    rle: bytes | None = None


def of_box(x1: float, y1: float, x2: float, y2: float) -> Outline:
    """A box without a mask; corners may come in any order."""
    x1, x2 = min(x1, x2), max(x1, x2)
    y1, y2 = min(y1, y2), max(y1, y2)
    return Outline((x1, y1, x2, y2), (x2 - x1) * (y2 - y1))


def of_polygons(
    polygons: Sequence[Polygon], size: tuple[int, int], clip: bool = False
) -> Outline:
    """The union of polygons in an image of `size` (h, w); the box holds their corners.

    With `clip` only what is inside the image counts. Raises UserError, whose message
    lacks its subject, for invalid or empty ones.
    """
    found = rle.measure(rle.from_polygons(polygons, size), size)
    if not found.area:
        raise UserError("has a mask without a pixel")
    corners = np.concatenate([np.reshape(p, (-1, 2)) for p in polygons])
    if clip:
        corners = np.clip(corners, 0, (size[1], size[0]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (high - low).min() < THIN:
        return Outline(found.box, found.area, found.rle)
    return Outline((*low.tolist(), *high.tolist()), found.area, found.rle)


def of_mask(
    mask: np.ndarray, corner: tuple[int, int], size: tuple[int, int]
) -> Outline:
    """The mask [mh mw] bool, whose first pixel is at `corner` (x, y) of an image.

    Raises UserError, whose message lacks its subject, if it is empty or leaves the
    image of `size` (h, w).
    """
    (h, w), (x, y), (mh, mw) = size, corner, mask.shape
    if x < 0 or y < 0 or x + mw > w or y + mh > h:
        raise UserError(
            f"has a mask of {mw} x {mh} pixels at [{x}, {y}], outside the {w} x {h} "
            "image"
        )
    # A row of zeros below ends the runs of each column.
    columns = np.zeros((mw, mh + 1), np.int8)
    columns[:, :mh] = mask.T
    steps = np.flatnonzero(np.diff(columns.ravel(), prepend=0))
    if not len(steps):
        raise UserError("has a mask without a pixel")
    edges = (steps // (mh + 1) + x) * h + steps % (mh + 1) + y
    # Runs that touch, at the end of a column and the begin of the next, are one.
    joint = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * joint + 1, 2 * joint + 2]))
    ends = edges if edges[-1] == h * w else np.append(edges, h * w)
    runs = np.diff(ends, prepend=0)
    found = rle.measure(rle.encode(runs, np.array([0, len(runs)]))[0], size)
    return Outline(found.box, found.area, found.rle)


def union(outlines: Sequence[Outline], size: tuple[int, int]) -> Outline:
    """All `outlines` as one object; boxes without masks count as filled in it.

    Without any mask it has none.
    """
    if len(outlines) == 1:
        return outlines[0]
    boxes = np.array([outline.box for outline in outlines])
    box = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    if not any(outline.rle for outline in outlines):
        return of_box(*box)
    codes = [outline.rle or _filled(outline.box, size) for outline in outlines]
    held = [{"size": list(size), "counts": code} for code in codes]
    found = rle.measure(coco_mask.merge(held)["counts"], size)
    return Outline(box, found.area, found.rle)


def _filled(box: Box, size: tuple[int, int]) -> bytes:
    x1, y1, x2, y2 = box
    return rle.from_polygons([[x1, y1, x2, y1, x2, y2, x1, y2]], size)


def ellipse(x: float, y: float, a: float, b: float, degrees: float = 0) -> Polygon:
    """An ellipse around (x, y) of half axes a and b, turned clockwise."""
    at = 2 * np.pi * np.arange(_CORNERS) / _CORNERS
    return _turned(np.stack([a * np.cos(at), b * np.sin(at)], axis=1), (x, y), degrees)


def turned_box(
    x1: float, y1: float, x2: float, y2: float, degrees: float = 0
) -> Polygon:
    """A box turned clockwise about its centre."""
    a, b = (x2 - x1) / 2, (y2 - y1) / 2
    corners = np.array([[-a, -b], [a, -b], [a, b], [-a, b]])
    return _turned(corners, ((x1 + x2) / 2, (y1 + y2) / 2), degrees)


def _turned(
    corners: np.ndarray, centre: tuple[float, float], degrees: float
) -> Polygon:
    # y points down, so that this turns clockwise as seen.
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (corners @ np.array([[cos, sin], [-sin, cos]]) + centre).ravel().tolist()
