"""What heads find and learn: objects in shares of the input, and where they lie."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from detjax.ops import assign, boxes, columns
from detjax.types import Array, Objects

# Boxes of which a crowd covers more are no background.
CROWDED = 0.7
# How far, as a share of its sides, a crowd that fills a picture may end before them.
FILLS = 0.02


class Found(NamedTuple):
    """What a head finds in one image."""

    boxes: Array  # [p 4] xyxy pixels of the input
    objectness: Array  # [p]
    classes: Array  # [p c], probabilities if there is an object


class Sums(NamedTuple):
    """Losses of one image, summed over its places."""

    box: Array
    objectness: Array
    classes: Array
    positives: Array


class Truths(NamedTuple):
    """Objects of one image in shares of the input's sides."""

    boxes: Array  # [n 4] cxcywh; those that are not learnt are the whole input
    labels: Array  # [n]
    valid: Array  # [n] bool: those that are learnt
    crowds: Array  # [n 4] cxcywh: regions that are no background either
    crowded: Array  # [n] bool: which of these there are


class Nearest(NamedTuple):
    """What lies under the boxes of places."""

    overlap: Array  # [p] IoU with the nearest object
    index: Array  # [p] of that object
    crowded: Array  # [p] bool: most of the box lies in a crowd


def truths(objects: Objects, size: tuple[int, int]) -> Truths:
    """The objects of an input of `size` (h, w)."""
    real, crowded = assign.learnable(objects), objects.valid & objects.crowd
    h, w = size
    sides = jnp.array([w, h, w, h], jnp.float32)
    whole = jnp.array([0.0, 0.0, 1.0, 1.0])
    placed, crowds = (
        boxes.xyxy_to_cxcywh(jnp.where(some[:, None], objects.boxes / sides, whole))
        for some in (real, crowded)
    )
    return Truths(placed, objects.labels, real, crowds, crowded)


def unplaced(objects: Objects, window: Array) -> Array:
    """Which objects [n] are somewhere in the picture, in its `window` [4] of the input.

    They are crowds that fill it, where no object has a box: all that is known is their
    class.
    """
    low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
    near = FILLS * (window[2:] - window[:2])
    fills = (low <= window[:2] + near) & (high >= window[2:] - near)
    alone = ~assign.learnable(objects).any()
    return objects.valid & objects.crowd & fills.all(axis=-1) & alone


def nearest(truth: Truths, shares: Array) -> Nearest:
    """The objects nearest to boxes [p 4] cxcywh in shares."""
    found, known, crowds = map(
        boxes.cxcywh_to_xyxy, (shares, truth.boxes, truth.crowds)
    )
    near = assign.nearest(columns.iou_rows(known, found), truth.valid)
    inside = assign.nearest(columns.iou_crowd_rows(found, crowds), truth.crowded)
    return Nearest(near.overlap, near.index, inside.overlap > CROWDED)


def places(
    shape: tuple[int, int], anchors: Sequence[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """The cells [p 2] x, y and the anchors [p 2] w, h of a map (h, w)."""
    h, w = shape
    y, x, _ = np.indices((h, w, len(anchors)))
    cell = np.stack([x, y], axis=-1).reshape(-1, 2)
    return cell, np.tile(np.array(anchors, np.float32), (h * w, 1))


def split(raw: Array, classes: int) -> tuple[Array, Array, Array]:
    """Box [p 4], objectness [p] and classes [p c] of a map [h w a*(5+c)], float32."""
    parts = raw.reshape(-1, 5 + classes).astype(jnp.float32)
    return parts[:, :4], parts[:, 4], parts[:, 5:]


def cells(truth: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The row and the column [n] of the cells that the centres of boxes lie in."""
    h, w = shape
    column, row = truth[:, 0] * w, truth[:, 1] * h
    return (
        jnp.clip(row.astype(jnp.int32), 0, h - 1),
        jnp.clip(column.astype(jnp.int32), 0, w - 1),
    )


def shape_iou(a: Array, b: Array) -> Array:
    """IoU [n m] of boxes with one centre, of widths and heights [n 2] and [m 2]."""
    inter = jnp.minimum(a[:, None], b[None]).prod(axis=-1)
    return boxes.ratio(inter, a.prod(axis=-1)[:, None] + b.prod(axis=-1) - inter)
