"""Assignment of priors to objects, and sampling of negatives.

Shape legend:

    m        objects of one image, padded; `valid` tells which are real
    p        priors (anchors) or proposals
    k        crowd regions, padded
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.types import Array, Objects


class Match(NamedTuple):
    """The object of each prior; a prior neither positive nor negative is left out."""

    index: Array  # [p] int32, in 0..m-1; means something where positive
    positive: Array  # [p] bool
    negative: Array  # [p] bool


def learnable(objects: Objects) -> Bool[Array, "n"]:
    """The objects [n] that are learnt: real ones, no crowds, none without an area."""
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    return objects.valid & ~objects.crowd & (sides > 0).all(axis=-1)


def match(
    iou: Float[Array, "m p"],
    valid: Bool[Array, "m"],
    positive: ArrayLike,
    negative: ArrayLike,
    force: bool = True,
    crowd_iou: Float[Array, "k p"] | None = None,
    crowd_valid: Bool[Array, "k"] | None = None,
    crowd_threshold: ArrayLike = 0.7,
    low_quality: bool = False,
    background: ArrayLike = 0.0,
) -> Match:
    """The `Match` of one image from the IoU of its objects with its priors.

    A prior belongs to the object it overlaps most (ties: lower index). It is positive
    from IoU `positive` up, negative below `negative`, and neutral between. A prior that
    is not positive is neutral as well where it overlaps a crowd region by more than
    `crowd_threshold` (`crowd_iou` is the share of the prior that the crowd covers), and
    below IoU `background` (0.1 in Fast R-CNN, whose negatives are all near an object).
    Without valid objects no prior is positive.

    force: each valid object also gets a prior of its own, by `bipartite`, whatever
        their IoU (SSD, YOLACT).
    low_quality: each valid object's best priors, all ties, are positive too; they
        stay with the object that they themselves overlap most (Faster R-CNN). An object
        that no prior overlaps has none.

    Liu et al. 2016 (SSD), section 2.2; Ren et al. 2015 (Faster R-CNN), section 3.1.2;
    the crowd rule and the one-to-one forcing are those of YOLACT's code.
    """
    m, p = iou.shape
    if m == 0:
        iou, valid = jnp.zeros((1, p)), jnp.zeros((1,), bool)
    iou = jnp.where(valid[:, None], iou, -1.0)
    best, index = _first_max(iou, 0)
    is_positive = (best >= positive) & (best >= 0)
    is_negative = (best < negative) & (jnp.maximum(best, 0) >= background)
    if low_quality:
        of_object = iou.max(1, keepdims=True)
        # Of an object that overlaps nothing every prior would be the best.
        touched = valid[:, None] & (of_object > 0)
        is_positive |= jnp.any((iou == of_object) & touched, 0)
    if force:
        prior, matched = bipartite(iou, valid)
        owner = jnp.full((p,), -1, jnp.int32)
        objects = jnp.arange(len(prior), dtype=jnp.int32)
        owner = owner.at[jnp.where(matched, prior, p)].set(objects, mode="drop")
        index = jnp.where(owner >= 0, owner, index)
        is_positive |= owner >= 0
    is_negative &= ~is_positive
    if crowd_iou is not None and crowd_iou.shape[0]:
        if crowd_valid is not None:
            crowd_iou = jnp.where(crowd_valid[:, None], crowd_iou, 0)
        is_negative &= crowd_iou.max(0) <= crowd_threshold
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
    _, first = lax.top_k(jnp.where(positive, rank, -1.0), most)
    drawn, second = lax.top_k(jnp.where(negative, rank, -1.0), count)
    num_positive = jnp.minimum(jnp.sum(positive), most)
    place = jnp.arange(count)
    is_positive = place < num_positive
    behind = jnp.where(is_positive, 0, place - num_positive)
    ahead = jnp.pad(first, (0, count - most))
    index = jnp.where(is_positive, ahead, second[behind])
    return Sample(index, is_positive | (drawn[behind] >= 0), is_positive)


def bipartite(
    iou: Float[Array, "m p"], valid: Bool[Array, "m"]
) -> tuple[Int[Array, "m"], Bool[Array, "m"]]:
    """A prior of its own for each valid object, (prior [m] int32, matched [m] bool).

    The result of taking the highest IoU of all remaining objects and priors (ties:
    lower object, then lower prior), removing both, and going on. Objects that are not
    valid or for which no prior is left are not matched; their index is 0.

    A round fixes all pairs that are each other's best at once. No pair outside can
    come before such a pair and share an end with it, so the order does not matter. A
    few rounds usually do, where one pair at a time takes m.
    """
    m, p = iou.shape
    if m == 0 or p == 0:
        return jnp.zeros((m,), jnp.int32), jnp.zeros((m,), bool)
    iou = lax.stop_gradient(jnp.where(valid[:, None], iou, 0))
    objects = jnp.arange(m, dtype=jnp.int32)

    def unfinished(state):
        _, waiting, free = state
        return jnp.any(waiting) & jnp.any(free)

    def fix_pairs(state):
        prior, waiting, free = state
        _, favourite = _first_max(jnp.where(free, iou, -jnp.inf), 1)
        rivals = jnp.where(waiting[:, None], iou[:, favourite], -jnp.inf)
        mutual = waiting & (_first_max(rivals, 0)[1] == objects)
        free = free.at[jnp.where(mutual, favourite, p)].set(False, mode="drop")
        return jnp.where(mutual, favourite, prior), waiting & ~mutual, free

    start = jnp.zeros((m,), jnp.int32), jnp.asarray(valid), jnp.ones((p,), bool)
    prior, waiting, _ = lax.while_loop(unfinished, fix_pairs, start)
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


def _first_max(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Maximum along an axis and where it first occurs, int32.

    Two plain reductions: two to five times faster on a CPU than argmax, which XLA
    does not vectorise.
    """
    best = x.max(axis, keepdims=True)
    place = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    first = jnp.where(x == best, place, x.shape[axis] - 1).min(axis)
    return best.squeeze(axis), first
