"""Boxes as vectors of coordinates, for overlaps of more pairs than can be held.

Shape legend:

    n, m     boxes of one image
    r        rows of their overlaps

XLA turns what is written out over vectors into one simple loop. Areas that are finished
arrays keep a compiler that fuses multiply and add from rounding a union differently
from the textbook's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Int

from detjax.ops import boxes as box_ops
from detjax.types import Array


class Columns(NamedTuple):
    """Boxes as vectors of equal length."""

    x1: Array
    y1: Array
    x2: Array
    y2: Array
    area: Array


def columns_of(boxes: Float[Array, "n 4"]) -> Columns:
    """The boxes, xyxy, as `Columns`."""
    boxes = jnp.asarray(boxes)
    x1, y1, x2, y2 = boxes.T
    return Columns(x1, y1, x2, y2, box_ops.area(boxes))


def inter_union(a: Columns, b: Columns) -> tuple[Array, Array]:
    """Intersection and union of columns whose shapes broadcast."""
    w = jnp.maximum(jnp.minimum(a.x2, b.x2) - jnp.maximum(a.x1, b.x1), 0)
    h = jnp.maximum(jnp.minimum(a.y2, b.y2) - jnp.maximum(a.y1, b.y1), 0)
    inter = w * h
    return inter, a.area + b.area - inter


def iou_rows(
    a: Float[Array, "n 4"], b: Float[Array, "m 4"]
) -> Callable[[Int[Array, "r"]], Float[Array, "r m"]]:
    """`boxes.iou` a few rows at a time: a function of the indices of boxes of `a`."""
    first, second = columns_of(a), columns_of(b)

    def rows(index):
        return box_ops.ratio(*inter_union(_picked(first, index), second))

    return rows


def iou_crowd_rows(
    a: Float[Array, "n 4"], crowd: Float[Array, "m 4"]
) -> Callable[[Int[Array, "r"]], Float[Array, "r n"]]:
    """`boxes.iou_crowd`, transposed, as a function of the indices of crowd regions."""
    first, regions = columns_of(a), columns_of(crowd)

    def rows(index):
        inter, _ = inter_union(_picked(regions, index), first)
        return box_ops.ratio(inter, jnp.broadcast_to(first.area, inter.shape))

    return rows


def _picked(boxes: Columns, index: Array) -> Columns:
    """The boxes of some indices, with an axis more for those of the other list."""
    return Columns(*(x[index][:, None] for x in boxes))
