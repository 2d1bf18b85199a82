"""Non-maximum suppression: greedy, and the Fast NMS of YOLACT.

Shape legend:

    n        boxes of one image
    c        classes
    k        best boxes of a class
    d        detections returned
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops import ranking
from detjax.ops.columns import Columns, columns_of, inter_union
from detjax.types import Array

_TILE = 128  # of 64 ... 512, on a CPU at 1,000 and at 5,000 boxes


class _Labelled(NamedTuple):
    """Boxes ready for slicing, and their labels where there are some."""

    boxes: Columns
    label: jax.Array | None


def greedy(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    threshold: ArrayLike,
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
    most: int | None = None,
) -> Bool[Array, "n"]:
    """Which boxes survive, [n] bool in the order given.

    From the highest score down (ties: lower index first), a box is kept unless its IoU
    with a box kept before it, and of the same label where labels are given, is greater
    than `threshold`. Invalid boxes, and those with a number that is not finite, are not
    kept and suppress nothing. Carries no gradient.

    most: only the first so many of those that survive are returned. Nothing behind
        them is looked at.

    Exact: a tile of boxes is first compared with all boxes kept so far, then solved
    by iterating keep[j] = not any(keep[i] and overlap[i, j], i < j). The first t boxes
    are final after t rounds at the latest; a few rounds are usual.

    Felzenszwalb et al. 2010, section 5.2.
    """
    n = boxes.shape[0]
    if n == 0:
        return jnp.zeros((0,), bool)
    sound = _sound(boxes, scores)
    valid = sound if valid is None else jnp.asarray(valid) & sound
    boxes = lax.stop_gradient(jnp.where(valid[:, None], boxes, 0))
    scores = lax.stop_gradient(jnp.where(valid, scores, -jnp.inf))
    order = jnp.argsort(-scores, stable=True)
    tile = min(_TILE, n)
    padding = -n % tile

    def ranked(x: Array) -> jax.Array:
        return jnp.pad(jnp.asarray(x)[order], (0, padding))

    columns = jax.tree.map(ranked, _Labelled(columns_of(boxes), labels))
    most = n if most is None else min(most, n)
    keep = _greedy_sorted(columns, ranked(valid), threshold, tile, most)
    return jnp.zeros((n,), bool).at[order].set(keep[:n], unique_indices=True)


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
    candidate = (scores.max(0) > score_threshold) & _sound(boxes, scores.sum(0))
    if valid is not None:
        candidate &= valid
    index, taken = _top_k(lax.stop_gradient(scores), candidate, min(top_k, n))
    label = jnp.arange(num_classes)[:, None]
    best = jnp.where(taken, scores[label, index], -jnp.inf)

    whole = _Labelled(columns_of(lax.stop_gradient(boxes)), None)
    columns = jax.tree.map(lambda x: x[index], whole)
    earlier = jnp.tri(index.shape[1], k=-1, dtype=bool).T
    hit = jax.vmap(_overlapping, (0, 0, None))(columns, columns, threshold)
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


def _sound(boxes: Array, scores: Array) -> jax.Array:
    """Boxes [n] without a NaN or an infinity, which would overlap nothing."""
    return jnp.isfinite(boxes).all(-1) & ~jnp.isnan(scores)


def _overlapping(a: _Labelled, b: _Labelled, threshold: ArrayLike) -> jax.Array:
    """IoU > threshold and labels equal, [n m]; an empty union overlaps nothing."""
    a = jax.tree.map(lambda x: x[:, None], a)
    inter, union = inter_union(a.boxes, b.boxes)
    hit = inter / jnp.where(union > 0, union, 1) > threshold
    return hit if a.label is None else hit & (a.label == b.label)


def _greedy_sorted(
    columns: _Labelled, valid: jax.Array, threshold: ArrayLike, tile: int, most: int
) -> jax.Array:
    """`greedy` for boxes by falling score whose number is a multiple of `tile`."""
    rank = jnp.arange(tile)
    earlier = rank[:, None] < rank[None]

    def part(x, start):
        return jax.tree.map(lambda v: lax.dynamic_slice_in_dim(v, start, tile), x)

    def solve_tile(carry):
        start, keep, kept, count = carry
        tile_columns = part(columns, start)

        def survivors(state):
            first, alive = state
            hit = _overlapping(part(kept, first), tile_columns, threshold)
            hit &= (first + rank < count)[:, None]
            return first + tile, alive & ~jnp.any(hit, 0)

        _, alive = lax.while_loop(
            lambda state: (state[0] < count) & jnp.any(state[1]),
            survivors,
            (jnp.int32(0), part(valid, start)),
        )
        hit = _overlapping(tile_columns, tile_columns, threshold) & earlier

        def again(state):
            now, _ = state
            return alive & ~jnp.any(hit & now[:, None], 0), now

        now, _ = lax.while_loop(
            lambda state: jnp.any(state[0] != state[1]),
            again,
            again((alive, alive)),
        )
        now &= count + jnp.cumsum(now) <= most
        # The kept boxes of all tiles lie one after the other: what a tile writes
        # behind its kept boxes, the next tile overwrites.
        first = jnp.argsort(~now, stable=True)
        kept = jax.tree.map(
            lambda whole, new: lax.dynamic_update_slice_in_dim(
                whole, new[first], count, 0
            ),
            kept,
            tile_columns,
        )
        keep = lax.dynamic_update_slice_in_dim(keep, now, start, 0)
        return start + tile, keep, kept, count + now.sum(dtype=jnp.int32)

    end = jnp.max(jnp.where(valid, jnp.arange(valid.size) + 1, 0))
    kept = jax.tree.map(lambda x: jnp.zeros(x.size, x.dtype), columns)
    carry = jnp.int32(0), jnp.zeros_like(valid), kept, jnp.int32(0)
    return lax.while_loop(
        lambda carry: (carry[0] < end) & (carry[3] < most), solve_tile, carry
    )[1]


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
