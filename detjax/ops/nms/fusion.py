"""Boxes that are averaged and not suppressed: weighted boxes fusion.

n        boxes of one image
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops.columns import columns_of
from detjax.ops.nms import pairs
from detjax.types import Array


class _Clusters(NamedTuple):
    """Clusters of boxes that are one, in the order in which they begin; [n ...]."""

    boxes: jax.Array  # [n 4] the mean of their boxes, weighted by scores
    total: jax.Array  # the sum of the scores
    size: jax.Array  # boxes, 0: there is no such cluster
    label: jax.Array
    first: jax.Array  # the index of their best box


def fuse(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    threshold: ArrayLike,
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
    *,
    sources: int = 1,
) -> tuple[Float[Array, "n 4"], Float[Array, "n"]]:
    """Boxes and scores of what the boxes are together, each at its best box's index.

    From the highest score down (ties: lower index first) a box joins the cluster whose
    mean has the highest IoU with it, if that is greater than `threshold` (ties: the
    cluster that began first), and else begins one; where labels are given clusters are
    of one label. The mean is weighted by scores, and the score of a cluster is the mean
    of its boxes', times min(size, sources) / sources: of boxes that few of several
    models have found it is lower. Scores are -inf where no cluster has its best box.

    sources: models, or views of the picture, that the boxes are of together.

    Scores are at least 0. Invalid boxes, and those with a number that is not finite,
    are in no cluster. Carries no gradient. A loop over the valid boxes.

    Solovyev et al. 2021 (Weighted boxes fusion), section 3, equations 1 to 5.
    """
    n = boxes.shape[0]
    if n == 0:
        return jnp.zeros((0, 4), jnp.float32), jnp.zeros((0,), jnp.float32)
    found = pairs.by_score(boxes, scores, valid, labels)
    ordered = lax.stop_gradient(jnp.where(found.valid[:, None], boxes[found.order], 0))
    label = found.columns.label
    label = jnp.zeros((n,), jnp.int32) if label is None else label

    def join(i, held: _Clusters) -> _Clusters:
        means = pairs.Labelled(columns_of(held.boxes), held.label)
        own = pairs.Labelled(columns_of(ordered[i, None]), label[i])
        overlap = jnp.where(held.size > 0, pairs.iou(own, means), -1)
        best = jnp.argmax(overlap)
        new = overlap[best] <= threshold
        # Clusters are begun one after the other: the first without a box is free.
        place = jnp.where(new, jnp.argmin(held.size > 0), best)
        score = found.scores[i]
        total = held.total[place] + score
        share = jnp.where(new, 1, score / jnp.where(total > 0, total, 1))
        mean = held.boxes[place]
        return _Clusters(
            held.boxes.at[place].set(mean + share * (ordered[i] - mean)),
            held.total.at[place].set(total),
            held.size.at[place].add(1),
            held.label.at[place].set(label[i]),
            held.first.at[place].set(jnp.where(new, i, held.first[place])),
        )

    held = _Clusters(
        jnp.zeros_like(ordered),
        jnp.zeros_like(found.scores),
        jnp.zeros((n,), jnp.int32),
        jnp.zeros_like(label),
        # Out of bounds: nothing is written for clusters that there are not.
        jnp.full((n,), n, jnp.int32),
    )
    count = found.valid.sum(dtype=jnp.int32)
    held = lax.fori_loop(jnp.int32(0), count, join, held)
    size = jnp.maximum(held.size, 1)
    score = held.total / size * jnp.minimum(size, sources) / sources
    place = jnp.where(held.size > 0, found.order[held.first], n)
    return (
        jnp.zeros_like(ordered).at[place].set(held.boxes, mode="drop"),
        jnp.full_like(score, -jnp.inf).at[place].set(score, mode="drop"),
    )
