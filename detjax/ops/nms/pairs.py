"""Pairs of boxes, as every kind of suppression compares them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops.boxes import ratio
from detjax.ops.columns import Columns, columns_of, inter_union
from detjax.types import Array


class Labelled(NamedTuple):
    """Boxes ready for slicing, and their labels where there are some."""

    boxes: Columns
    label: jax.Array | None


class Ordered(NamedTuple):
    """Boxes by falling score (ties: lower index first), those that are not valid last.

    order: [n] the index that each has in the order given.
    """

    order: jax.Array
    columns: Labelled
    scores: jax.Array  # -inf where not valid
    valid: jax.Array


def sound(boxes: Float[Array, "n 4"], scores: Float[Array, "n"]) -> Bool[Array, "n"]:
    """Boxes without a NaN or an infinity, which would overlap nothing."""
    return jnp.isfinite(boxes).all(-1) & ~jnp.isnan(scores)


def by_score(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
) -> Ordered:
    """The boxes in the order of their scores; those that are not `sound` as invalid.

    Carries no gradient.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    real = sound(boxes, scores)
    valid = real if valid is None else jnp.asarray(valid) & real
    boxes = lax.stop_gradient(jnp.where(valid[:, None], boxes, 0))
    scores = lax.stop_gradient(jnp.where(valid, scores, -jnp.inf))
    order = jnp.argsort(-scores, stable=True)
    label = None if labels is None else jnp.asarray(labels)
    columns = jax.tree.map(lambda x: x[order], Labelled(columns_of(boxes), label))
    return Ordered(order, columns, scores[order], valid[order])


def given_order(found: Ordered, values: Array) -> jax.Array:
    """`values` [n] of boxes by falling score, in the order in which they were given."""
    return jnp.zeros_like(values).at[found.order].set(values, unique_indices=True)


def iou(a: Labelled, b: Labelled) -> jax.Array:
    """IoU of boxes of one label, [n m] or as the shapes broadcast; 0 for others."""
    found = ratio(*inter_union(a.boxes, b.boxes))
    return found if a.label is None else jnp.where(a.label == b.label, found, 0)


def rows(found: Labelled) -> Labelled:
    """The boxes [n 1], to be compared with others [m]."""
    return jax.tree.map(lambda x: x[:, None], found)


def overlapping(a: Labelled, b: Labelled, threshold: ArrayLike) -> jax.Array:
    """IoU > threshold and labels equal, [n m]; an empty union overlaps nothing."""
    a = rows(a)
    inter, union = inter_union(a.boxes, b.boxes)
    return _same(a, b, inter / jnp.where(union > 0, union, 1) > threshold)


def close(a: Labelled, b: Labelled, threshold: ArrayLike) -> jax.Array:
    """Distance IoU > threshold and labels equal, [n m]: see `boxes.diou`."""
    a = rows(a)
    c, d = a.boxes, b.boxes
    w = jnp.maximum(c.x2, d.x2) - jnp.minimum(c.x1, d.x1)
    h = jnp.maximum(c.y2, d.y2) - jnp.minimum(c.y1, d.y1)
    x = (c.x1 + c.x2 - d.x1 - d.x2) / 2
    y = (c.y1 + c.y2 - d.y1 - d.y2) / 2
    apart = ratio(x * x + y * y, w * w + h * h)
    return _same(a, b, ratio(*inter_union(c, d)) - apart > threshold)


def _same(a: Labelled, b: Labelled, hit: jax.Array) -> jax.Array:
    return hit if a.label is None else hit & (a.label == b.label)
