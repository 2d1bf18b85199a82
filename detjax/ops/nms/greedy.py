"""Greedy non-maximum suppression.

n        boxes of one image
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops.nms import pairs
from detjax.types import Array

_TILE = 128  # of 64 ... 512, on a CPU at 1,000 and at 5,000 boxes


def greedy(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    threshold: ArrayLike,
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
    most: int | None = None,
    hits: Callable[..., jax.Array] = pairs.overlapping,
) -> Bool[Array, "n"]:
    """Which boxes survive, [n] bool in the order given.

    From the highest score down (ties: lower index first), a box is kept unless its IoU
    with a box kept before it, and of the same label where labels are given, is greater
    than `threshold`. Invalid boxes, and those with a number that is not finite, are not
    kept and suppress nothing. Carries no gradient.

    most: only the first so many of those that survive are returned. Nothing behind
        them is looked at.
    hits: which pairs of boxes suppress one another, of (boxes, boxes, threshold):
        `pairs.overlapping`, or another function of that form.

    Exact: a tile of boxes is first compared with all boxes kept so far, then solved
    by iterating keep[j] = not any(keep[i] and hit[i, j], i < j). The first t boxes
    are final after t rounds at the latest; a few rounds are usual.

    Felzenszwalb et al. 2010, section 5.2.
    """
    n = boxes.shape[0]
    if n == 0:
        return jnp.zeros((0,), bool)
    found = pairs.by_score(boxes, scores, valid, labels)
    tile = min(_TILE, n)
    columns, valid = jax.tree.map(
        lambda x: jnp.pad(x, (0, -n % tile)), (found.columns, found.valid)
    )
    most = n if most is None else min(most, n)
    keep = _greedy_sorted(columns, valid, threshold, tile, most, hits)
    return pairs.given_order(found, keep[:n])


def diou(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    threshold: ArrayLike,
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
    most: int | None = None,
) -> Bool[Array, "n"]:
    """`greedy`, by the distance IoU: boxes whose centres are apart suppress less.

    The IoU less the squared distance of the centres over the squared diagonal of the
    enclosing box has to be greater than `threshold`.

    Zheng et al. 2020 (Distance-IoU loss), equation 12.
    """
    return greedy(boxes, scores, threshold, valid, labels, most, hits=pairs.close)


def _greedy_sorted(
    columns: pairs.Labelled,
    valid: jax.Array,
    threshold: ArrayLike,
    tile: int,
    most: int,
    hits,
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
            hit = hits(part(kept, first), tile_columns, threshold)
            hit &= (first + rank < count)[:, None]
            return first + tile, alive & ~jnp.any(hit, 0)

        _, alive = lax.while_loop(
            lambda state: (state[0] < count) & jnp.any(state[1]),
            survivors,
            (jnp.int32(0), part(valid, start)),
        )
        hit = hits(tile_columns, tile_columns, threshold) & earlier

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
