"""Suppression that lowers scores: Soft-NMS.

n        boxes of one image
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops.nms import pairs
from detjax.types import Array

Decay = Literal["linear", "gaussian"]


def soft(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    threshold: ArrayLike,
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
    most: int | None = None,
    *,
    decay: Decay = "gaussian",
    sigma: ArrayLike = 0.5,
    score_threshold: ArrayLike = 0.0,
) -> Float[Array, "n"]:
    """The scores as Soft-NMS lowers them, [n] in the order given; -inf: dropped.

    Again and again the box of the highest score (ties: lower index first) is taken out
    with the score that it has by then, and those left that are of the same label, where
    labels are given, are lowered by their IoU with it: "gaussian" all of them by
    exp(-IoU^2 / sigma), "linear" those of an IoU greater than `threshold` by 1 - IoU.
    Ends where none is left that scores more than `score_threshold`.

    Scores are at least 0. Invalid boxes, and those with a number that is not finite,
    lower nothing and are dropped. Carries no gradient.

    most: only the first so many are taken out, which is exact: scores never rise.

    Bodla et al. 2017, figure 2 and equations 2 and 3. As in the authors' code an IoU of
    `threshold` itself lowers nothing.
    """
    n = boxes.shape[0]
    most = n if most is None else min(most, n)
    if n == 0:
        return jnp.zeros((0,), jnp.float32)
    found = pairs.by_score(boxes, scores, valid, labels)
    columns, rank = found.columns, jnp.arange(n)

    def again(state):
        left, _, count = state
        return (left.max() > score_threshold) & (count < most)

    def take(state):
        left, taken, count = state
        best = jnp.argmax(left)
        taken = taken.at[best].set(left[best])
        overlap = pairs.iou(jax.tree.map(lambda x: x[best], columns), columns)
        lowered = left * _factor(overlap, threshold, decay, sigma)
        out = ~(left > -jnp.inf) | (rank == best)
        return jnp.where(out, -jnp.inf, lowered), taken, count + 1

    nothing = jnp.full((n,), -jnp.inf, found.scores.dtype)
    state = found.scores, nothing, jnp.int32(0)
    _, taken, _ = lax.while_loop(again, take, state)
    return pairs.given_order(found, taken)


def _factor(iou: Array, threshold: ArrayLike, decay: Decay, sigma: ArrayLike) -> Array:
    """What a score is multiplied by."""
    if decay == "gaussian":
        return jnp.exp(-(iou**2) / sigma)
    return jnp.where(iou > threshold, 1 - iou, 1)
