"""Losses of label maps that look at regions and not at single pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from detjax.types import Array


def dice(
    logits: Float[Array, "*shape c"],
    labels: Int[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    smooth: float = 1.0,
) -> Float[Array, ""]:
    """1 - the mean over classes of (2 sum(p t) + s) / (sum(p) + sum(t) + s).

    p are softmax probabilities, t is 1 for the pixels of the class; sums are over all
    pixels where `mask` holds, and the mean is over the classes that have some.

    Milletari et al. 2016, with the sum of probabilities in place of their squares.
    """
    c = logits.shape[-1]
    real = mask[..., None]
    chances = jnp.where(real, jax.nn.softmax(logits.astype(jnp.float32)), 0.0)
    truth = jax.nn.one_hot(labels, c) * real
    over = tuple(range(labels.ndim))
    both, sums = (chances * truth).sum(over), (chances + truth).sum(over)
    some = truth.sum(over) > 0
    each = 1 - (2 * both + smooth) / (sums + smooth)
    return jnp.sum(jnp.where(some, each, 0.0)) / jnp.maximum(some.sum(), 1)


def hardest(
    values: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    threshold: float,
    share: float,
) -> Bool[Array, "*shape"]:
    """The elements of `mask` that online hard example mining keeps.

    Those whose loss, `values`, is above `threshold`, and at least the hardest `share`
    of all.

    The bootstrapped cross entropy of Wu et al. 2016 (section 3.3), as its published
    versions have it: with a probability p of the right class, the threshold -log p.
    """
    ranked = jnp.sort(jnp.where(mask, values, -jnp.inf).reshape(-1))[::-1]
    count = jnp.ceil(share * mask.sum()).astype(jnp.int32)
    last = ranked[jnp.clip(count - 1, 0, ranked.size - 1)]
    return mask & (values >= jnp.minimum(last, threshold))


def lovasz_softmax(
    logits: Float[Array, "*shape c"],
    labels: Int[Array, "*shape"],
    mask: Bool[Array, "*shape"],
) -> Float[Array, ""]:
    """The Lovász extension of 1 - IoU, the mean over the classes that have a pixel.

    Of the pixels where `mask` holds. One class at a time: a sort of all pixels each.

    Berman et al. 2018, equations 8, 9 and 11.
    """
    c = logits.shape[-1]
    chances = jax.nn.softmax(logits.astype(jnp.float32)).reshape(-1, c).T
    labels, mask = (jnp.asarray(x).reshape(-1) for x in (labels, mask))

    def of_class(pair):
        label, chance = pair
        truth = (labels == label) & mask
        errors = jnp.where(mask, jnp.abs(truth - chance), 0.0)
        order = jax.lax.stop_gradient(jnp.argsort(-jnp.where(mask, errors, -1.0)))
        here, counted = truth[order], mask[order]
        total = truth.sum()
        missed = total - jnp.cumsum(here)
        union = total + jnp.cumsum(~here & counted)
        jaccard = 1 - missed / jnp.maximum(union, 1)
        steps = jnp.diff(jaccard, prepend=0.0)
        return jnp.sum(errors[order] * steps), total > 0

    sums, some = jax.lax.map(of_class, (jnp.arange(c), chances))
    return jnp.sum(jnp.where(some, sums, 0.0)) / jnp.maximum(some.sum(), 1)
