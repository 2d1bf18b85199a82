"""Assignment of priors to objects, and sampling of negatives.

Shape legend:

    m        objects of one image, padded; `valid` tells which are real
    p        priors (anchors) or proposals
    k        crowd regions, padded
    r        rows of one block

All pairs of objects and priors are too many to be held: those of 100 objects and of a
pyramid's 270,000 priors take 107 MB an image. So overlaps are functions of the rows
that are looked at, `Rows`, a block of real objects after the other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops.ranking import top_k
from detjax.types import Array, Objects

# (indices [r] of objects or regions) -> their overlaps with all priors, [r p]
Rows = Callable[[Array], Array]
_BLOCK = 16  # rows; of 1 ... 100 the fastest on a CPU


class Match(NamedTuple):
    """The object of each prior; a prior neither positive nor negative is left out."""

    index: Array  # [p] int32, in 0..m-1; means something where positive
    positive: Array  # [p] bool
    negative: Array  # [p] bool


def learnable(objects: Objects) -> Bool[Array, "n"]:
    """The objects [n] that are learnt: real ones, no crowds, none without an area."""
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    return objects.valid & ~objects.crowd & (sides > 0).all(axis=-1)


class Nearest(NamedTuple):
    """What is known of the overlaps of m objects with p priors."""

    overlap: Array  # [p] the highest of the prior with an object; -1 without objects
    index: Array  # [p] int32: the first object of which it is
    prior: Array  # [m] int32: the first free prior that the object overlaps most
    tied: Array  # [p] bool: a prior that some object overlaps, and none of them more


def nearest(
    rows: Rows, valid: Bool[Array, "m"], free: Bool[Array, "p"] | None = None
) -> Nearest:
    """`Nearest` of the valid objects; of no others `prior` means anything.

    Where only some priors are `free`, objects see no others: `prior` and `tied`.
    """

    def look(found: Nearest, index: Array, real: Array) -> Nearest:
        iou = jnp.where(real[:, None], rows(index), -1.0)
        seen = iou if free is None else jnp.where(free, iou, -jnp.inf)
        most, prior = _first_max(seen, 1)
        overlap, first, tied = found.overlap, found.index, found.tied
        # Written out it is one loop over the priors.
        for i in range(len(index)):
            first = jnp.where(iou[i] > overlap, index[i], first)
            overlap = jnp.maximum(overlap, iou[i])
            # Of an object that overlaps nothing every prior would be the best.
            tied |= (seen[i] == most[i]) & (most[i] > 0)
        place = jnp.where(real, index, len(valid))
        return Nearest(overlap, first, found.prior.at[place].set(prior), tied)

    p = _width(rows)
    start = Nearest(
        jnp.full((p,), -1.0),
        jnp.zeros((p,), jnp.int32),
        jnp.zeros(valid.shape, jnp.int32),
        jnp.zeros((p,), bool),
    )
    return _by_blocks(look, start, valid)


def largest(rows: Rows, valid: Bool[Array, "k"]) -> Float[Array, "p"]:
    """The highest overlap of each prior with a valid region; 0 without any."""

    def look(most, index, real):
        return jnp.maximum(most, jnp.where(real[:, None], rows(index), 0).max(0))

    return _by_blocks(look, jnp.zeros((_width(rows),)), valid)


def match(
    rows: Rows,
    valid: Bool[Array, "m"],
    positive: ArrayLike,
    negative: ArrayLike,
    force: bool = True,
    crowd_rows: Rows | None = None,
    crowd_valid: Bool[Array, "k"] | None = None,
    crowd_threshold: ArrayLike = 0.7,
    low_quality: bool = False,
    background: ArrayLike = 0.0,
) -> Match:
    """The `Match` of one image from the IoU of its objects with its priors, `rows`.

    A prior belongs to the object it overlaps most (ties: lower index). It is positive
    from IoU `positive` up, negative below `negative`, and neutral between. A prior that
    is not positive is neutral as well where it overlaps a valid crowd region by more
    than `crowd_threshold` (`crowd_rows` are the shares of priors that crowds cover),
    and below IoU `background` (0.1 in Fast R-CNN, whose negatives are all near an
    object). Without valid objects no prior is positive.

    force: each valid object also gets a prior of its own, by `bipartite`, whatever
        their IoU (SSD, YOLACT).
    low_quality: each valid object's best priors, all ties, are positive too; they
        stay with the object that they themselves overlap most (Faster R-CNN). An object
        that no prior overlaps has none.

    Memory grows with the priors alone, time with the valid objects. Carries no
    gradient.

    Liu et al. 2016 (SSD), section 2.2; Ren et al. 2015 (Faster R-CNN), section 3.1.2;
    the crowd rule and the one-to-one forcing are those of YOLACT's code.
    """
    found = nearest(rows, valid)
    best, index = found.overlap, found.index
    is_positive = (best >= positive) & (best >= 0)
    is_negative = (best < negative) & (jnp.maximum(best, 0) >= background)
    if low_quality:
        is_positive |= found.tied
    if force:
        (p,) = best.shape
        prior, matched = bipartite(rows, valid, found)
        owner = jnp.full((p,), -1, jnp.int32)
        objects = jnp.arange(len(prior), dtype=jnp.int32)
        owner = owner.at[jnp.where(matched, prior, p)].set(objects, mode="drop")
        index = jnp.where(owner >= 0, owner, index)
        is_positive |= owner >= 0
    is_negative &= ~is_positive
    if crowd_rows is not None:
        is_negative &= largest(crowd_rows, crowd_valid) <= crowd_threshold
    return Match(index, is_positive, is_negative)


class Sample(NamedTuple):
    """A fixed number of places, the positives first, then negatives, then padding."""

    index: Array  # [k] int32: which prior
    chosen: Array  # [k] bool: not padding
    positive: Array  # [k] bool


def sample(
    positive: Bool[Array, "p"],
    negative: Bool[Array, "p"],
    count: int,
    fraction: float,
    key: Array,
) -> Sample:
    """`count` priors drawn at random, at most `fraction` of them positive.

    Where positives are few, negatives take their places; where both together are few,
    all are taken and the rest is padding. There are min(count, p) places. What is drawn
    depends on the priors' indices alone.

    Ren et al. 2015 (Faster R-CNN), section 3.1.3.
    """
    (p,) = positive.shape
    count, most = min(count, p), min(int(count * fraction), p)
    rank = jax.random.uniform(key, (p,))
    _, first = top_k(jnp.where(positive, rank, -1.0), most)
    drawn, second = top_k(jnp.where(negative, rank, -1.0), count)
    num_positive = jnp.minimum(jnp.sum(positive), most)
    place = jnp.arange(count)
    is_positive = place < num_positive
    behind = jnp.where(is_positive, 0, place - num_positive)
    ahead = jnp.pad(first, (0, count - most))
    index = jnp.where(is_positive, ahead, second[behind])
    return Sample(index, is_positive | (drawn[behind] >= 0), is_positive)


def bipartite(
    rows: Rows, valid: Bool[Array, "m"], found: Nearest | None = None
) -> tuple[Int[Array, "m"], Bool[Array, "m"]]:
    """A prior of its own for each valid object, (prior [m] int32, matched [m] bool).

    The result of taking the highest IoU of all remaining objects and priors (ties:
    lower object, then lower prior), removing both, and going on. Objects that are not
    valid or for which no prior is left are not matched; their index is 0. `found` is
    what `nearest` makes of all objects and priors, where that is known.

    A round fixes all pairs that are each other's best at once. No pair outside can
    come before such a pair and share an end with it, so the order does not matter. A
    few rounds usually do, where one pair at a time takes m.
    """
    p, valid = _width(rows), jnp.asarray(valid)
    objects = jnp.arange(len(valid), dtype=jnp.int32)

    def unfinished(state):
        _, waiting, free = state
        return jnp.any(waiting) & jnp.any(free)

    def fix_pairs(state, found):
        prior, waiting, free = state
        mutual = waiting & (found.index[found.prior] == objects)
        free = free.at[jnp.where(mutual, found.prior, p)].set(False, mode="drop")
        return jnp.where(mutual, found.prior, prior), waiting & ~mutual, free

    state = jnp.zeros_like(objects), valid, jnp.ones((p,), bool)
    if p == 0:
        return state[0], ~valid & valid
    state = fix_pairs(state, nearest(rows, valid) if found is None else found)
    prior, waiting, _ = lax.while_loop(
        unfinished, lambda state: fix_pairs(state, nearest(rows, *state[1:])), state
    )
    return prior, valid & ~waiting


def hard_negatives(
    loss: Float[Array, "p"],
    positive: Bool[Array, "p"],
    negative: Bool[Array, "p"],
    ratio: ArrayLike,
) -> Bool[Array, "p"]:
    """The negatives that count, [p] bool: those of the highest loss.

    The loss of everything but the negatives is taken as 0; of all priors the
    `ratio * num_positive` (p - 1 at most) highest are picked (ties: lower index), and
    the negatives among these returned. Carries no gradient.

    Liu et al. 2016 (SSD), section 2.2, "hard negative mining".
    """
    p = loss.shape[0]
    if p == 0:
        return jnp.zeros((0,), bool)
    loss = lax.stop_gradient(jnp.where(negative, loss, 0))
    count = jnp.floor(ratio * jnp.sum(positive)).astype(jnp.int32)
    count = jnp.clip(count, 0, p - 1)
    # The first loss in falling order that is not picked; what lies above it is, and of
    # those equal to it, as many of the first as are left.
    limit = jnp.sort(loss)[p - 1 - count]
    above, equal = loss > limit, loss == limit
    left = count - above.sum()
    picked = above | (equal & (jnp.cumsum(equal) <= left))
    return picked & negative


def _by_blocks(
    look: Callable[[Any, Array, Array], Any], start: Any, valid: Array
) -> Any:
    """`look` at the valid rows, a block after the other: (result, index, real).

    Blocks have whichever rows are valid, in their order, and are filled up with others.
    """
    if not len(valid):
        return start
    count, block = jnp.sum(valid), min(_BLOCK, len(valid))
    order = jnp.argsort(~jnp.asarray(valid), stable=True).astype(jnp.int32)
    order = jnp.pad(order, (0, -len(valid) % block))

    def step(state):
        first, found = state
        index = lax.dynamic_slice_in_dim(order, first, block)
        real = first + jnp.arange(block) < count
        return first + block, look(found, index, real)

    return lax.stop_gradient(
        lax.while_loop(
            lambda state: state[0] < count, step, (jnp.zeros_like(count), start)
        )[1]
    )


def _width(rows: Rows) -> int:
    """The number of priors."""
    return jax.eval_shape(rows, jnp.zeros((0,), jnp.int32)).shape[1]


def _first_max(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Maximum along an axis and where it first occurs, int32.

    Two plain reductions: two to five times faster on a CPU than argmax, which XLA
    does not vectorise.
    """
    best = x.max(axis, keepdims=True)
    place = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    first = jnp.where(x == best, place, x.shape[axis] - 1).min(axis)
    return best.squeeze(axis), first
