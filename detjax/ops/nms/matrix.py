"""Suppression without a loop: Matrix NMS.

n        boxes of one image
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops.nms import pairs
from detjax.ops.nms.soft import Decay
from detjax.types import Array


def matrix(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
    *,
    decay: Decay = "gaussian",
    sigma: ArrayLike = 0.5,
    score_threshold: ArrayLike = 0.0,
) -> Float[Array, "n"]:
    """The scores as Matrix NMS lowers them, [n] in the order given; -inf: dropped.

    A box j of lower score than i (ties: lower index first) and of the same label, where
    labels are given, is lowered by i as by Soft-NMS, f(IoU_ij), but less where i itself
    is probably suppressed: its factor is the least over i of f(IoU_ij) / f(m_i), where
    m_i is the highest IoU of i with a box of higher score. f(u) is exp(-u^2 / sigma)
    for "gaussian" and 1 - u for "linear". Boxes with scores that are no more than
    `score_threshold` then are dropped.

    Scores are at least 0. Invalid boxes, and those with a number that is not finite,
    lower nothing and are dropped. Carries no gradient. Takes memory for n^2
    overlaps.

    Wang et al. 2020 (SOLOv2), section 3.3, equation 5, with the IoU of boxes. The
    authors' code has 1 / sigma for sigma.
    """
    n = boxes.shape[0]
    if n == 0:
        return jnp.zeros((0,), jnp.float32)
    found = pairs.by_score(boxes, scores, valid, labels)
    rank = jnp.arange(n)
    earlier = (rank[:, None] < rank) & found.valid[:, None]

    def overlap():
        return jnp.where(
            earlier, pairs.iou(pairs.rows(found.columns), found.columns), 0
        )

    highest = overlap().max(axis=0)[:, None]
    if decay == "gaussian":
        # The least quotient of exponentials has the largest difference of exponents.
        factor = jnp.exp(-(overlap() ** 2 - highest**2).max(axis=0) / sigma)
    else:
        some = highest < 1
        quotient = (1 - overlap()) / jnp.where(some, 1 - highest, 1)
        # A copy of a better box lowers nothing that the better one does not.
        factor = jnp.where(some, quotient, 1).min(axis=0)
    lowered = found.scores * jnp.minimum(factor, 1)
    taken = found.valid & (lowered > score_threshold)
    return pairs.given_order(found, jnp.where(taken, lowered, -jnp.inf))
