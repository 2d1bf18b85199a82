"""The Fast NMS of YOLACT.

c        classes
k        best boxes of a class
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops import ranking
from detjax.ops.columns import columns_of
from detjax.ops.nms import pairs
from detjax.types import Array


def fast(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "c n"],
    threshold: ArrayLike,
    top_k: int,
    max_detections: int,
    score_threshold: ArrayLike = 0.0,
    valid: Bool[Array, "n"] | None = None,
) -> tuple[Int[Array, "d"], Int[Array, "d"], Float[Array, "d"], Bool[Array, "d"]]:
    """The best detections as (index of the box, label, score, keep), each [d].

    d is `max_detections`; entries come by falling score, and where `keep` is False they
    are zeros. Ties go to the lower label, then to the lower index. Carries a gradient
    to the scores only.

    A box takes part, with all its classes, if its best class scores more than
    `score_threshold` and all its numbers are finite. Of each class the `top_k` best
    stay; one is dropped when its IoU with any better one of its class, dropped or not,
    is greater than `threshold`.

    Bolya et al. 2019 (YOLACT), section 3.3, with the order of steps of the authors'
    code.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    num_classes, n = scores.shape
    if num_classes == 0 or n == 0:
        nothing = jnp.zeros((max_detections,), jnp.int32)
        return nothing, nothing, nothing.astype(scores.dtype), nothing.astype(bool)
    candidate = (scores.max(0) > score_threshold) & pairs.sound(boxes, scores.sum(0))
    if valid is not None:
        candidate &= valid
    index, taken = _top_k(lax.stop_gradient(scores), candidate, min(top_k, n))
    label = jnp.arange(num_classes)[:, None]
    best = jnp.where(taken, scores[label, index], -jnp.inf)

    whole = pairs.Labelled(columns_of(lax.stop_gradient(boxes)), None)
    columns = jax.tree.map(lambda x: x[index], whole)
    earlier = jnp.tri(index.shape[1], k=-1, dtype=bool).T
    hit = jax.vmap(pairs.overlapping, (0, 0, None))(columns, columns, threshold)
    dropped = jnp.any(hit & earlier & taken[:, :, None], 1)

    ranked = jnp.where(taken & ~dropped, best, -jnp.inf).ravel()
    missing = max(max_detections - ranked.size, 0)
    ranked = jnp.pad(ranked, (0, missing), constant_values=-jnp.inf)
    score, place = ranking.top_k(ranked, max_detections)
    keep = score > -jnp.inf
    place = jnp.where(keep, place, 0)
    return (
        jnp.where(keep, index.ravel()[place], 0),
        jnp.where(keep, place // index.shape[1], 0).astype(jnp.int32),
        jnp.where(keep, score, 0),
        keep,
    )


def fast_of_list(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    threshold: ArrayLike,
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
) -> Bool[Array, "n"]:
    """Which boxes survive Fast NMS, [n] bool in the order given.

    One is dropped when its IoU with any better one (ties: lower index first) of its
    label, dropped or not, is greater than `threshold`. All take part, however many a
    class has. Invalid boxes, and those with a number that is not finite, are not kept
    and suppress nothing. Carries no gradient.
    """
    n = boxes.shape[0]
    if n == 0:
        return jnp.zeros((0,), bool)
    found = pairs.by_score(boxes, scores, valid, labels)
    rank = jnp.arange(n)
    hit = pairs.overlapping(found.columns, found.columns, threshold)
    hit &= (rank[:, None] < rank) & found.valid[:, None]
    return pairs.given_order(found, found.valid & ~hit.any(0))


def _top_k(
    scores: jax.Array, candidate: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """Indices of the k best candidates of each class, [c k], and which are real.

    Two thirds of the time of `fast`. Shorter lists of the best chunks, thresholds by
    bisection and splitting over threads were no faster on a CPU; a branch for images
    with few candidates was, but not under `vmap`, where both of its sides run.
    """
    best, index = ranking.top_k(jnp.where(candidate, scores, -jnp.inf), k)
    return index, best > -jnp.inf
