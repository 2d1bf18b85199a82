"""Gated-SCNN's losses: of classes, of edges, of classes at edges, and of both tasks.

    b images, c classes, h w pixels
    counted  [b h w] bool: the pixels of the pictures, those without a class included

As the authors' code has them by default; where it leaves the paper (Takikawa et al.
2019, section 3.2) a setting does what that says.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.settings import Fraction, NonNegative, Positive
from detjax.types import Array


@dataclasses.dataclass(frozen=True)
class Loss:
    """The weights of the parts, and how they are computed.

    segmentation, edge, attention, dual: of the cross entropy, of that of edges, of the
        first at pixels that the net takes for edges, and of the regularizer that wants
        edges of both answers alike.
    radius: pixels from where classes meet to what is an edge in targets.
    edge_above: of an edge's probability, for attention.
    squashed_again: edges' probabilities pass a second sigmoid, as in the authors' code.
    gradient: of the regularizer: "published" is the probability itself, which the
        authors' smoothing and differences return; "spatial" what the paper describes.
    temperature: of the regularizer's Gumbel softmax.
    """

    segmentation: NonNegative = 1.0
    edge: NonNegative = 20.0
    attention: NonNegative = 1.0
    dual: NonNegative = 1.0
    radius: int = 2
    edge_above: Fraction = 0.8
    squashed_again: bool = True
    gradient: Literal["published", "spatial"] = "published"
    temperature: Positive = 0.5


def weighted(logits: Array, labels: Array, valid: Array) -> Array:
    """The sum over images of their mean cross entropy, by classes, a number.

    logits [b h w c], labels and valid [b h w]. A class that an image has counts 2 less
    its share of the image's valid pixels, any other 1.
    """
    each = losses.softmax_cross_entropy(logits, labels)
    count = logits.shape[-1]

    def one(each, labels, valid):
        ones = valid.astype(jnp.float32).ravel()
        pixels = jnp.zeros(count).at[labels.ravel()].add(ones)
        share = pixels / jnp.maximum(ones.sum(), 1)
        by_class = jnp.where(pixels > 0, 2 - share, 1)
        weights = jnp.where(valid, by_class[labels], 0)
        return (weights * each).sum() / jnp.maximum(weights.sum(), 1)

    return jax.vmap(one)(each, labels, valid).sum()


def edges(found: Array, target: Array, counted: Array, squashed_again: bool) -> Array:
    """The mean cross entropy of edges; those that are rarer count more, a number.

    found [b h w] probabilities, target [b h w] bool.
    """
    positive = target & counted
    share = positive.sum() / jnp.maximum(counted.sum(), 1)
    logits = found
    if not squashed_again:
        inside = jnp.clip(found, 1e-6, 1 - 1e-6)
        logits = jnp.log(inside) - jnp.log1p(-inside)
    each = losses.sigmoid_cross_entropy(logits, target.astype(jnp.float32))
    return losses.masked_mean(jnp.where(target, 1 - share, share) * each, counted)


def dual(
    logits: Array,
    labels: Array,
    valid: Array,
    counted: Array,
    noise: Array,
    *,
    temperature: float = 0.5,
    gradient: str = "published",
) -> Array:
    """The mean difference of the edges of sampled and of true classes, a number.

    logits and Gumbel `noise` [b h w c], labels, valid and counted [b h w]. Pixels that
    are not valid have logits 0 and class 0, as published.
    """
    logits = jnp.where(valid[..., None], logits, 0)
    sampled = jax.nn.softmax((logits + noise) / temperature)
    true = jax.nn.one_hot(jnp.where(valid, labels, 0), logits.shape[-1])
    magnitude = spatial if gradient == "spatial" else published
    seen = counted[..., None]

    def scaled(x):
        found = magnitude(x)
        return found / jnp.maximum(jnp.where(seen, found, 0).max(), 1e-12)

    apart = jnp.abs(scaled(sampled) - scaled(true))
    return losses.masked_mean(apart, jnp.broadcast_to(seen, apart.shape))


def published(x: Array) -> Array:
    """The size of a gradient whose both parts are x itself."""
    return jnp.sqrt(2 * x**2 + 1e-6)


def spatial(x: Array, radius: int = 4) -> Array:
    """The size of the gradient of maps [b h w c], smoothed by a triangle."""
    ramp = jnp.concatenate([jnp.arange(1, radius + 1), jnp.arange(radius + 1, 0, -1)])
    weights = ramp / ramp.sum()
    for axis in (1, 2):
        width = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(x, width, mode="edge")
        n = x.shape[axis]
        parts = (
            weights[i] * jax.lax.slice_in_dim(padded, i, i + n, axis=axis)
            for i in range(2 * radius + 1)
        )
        x = sum(parts)
    dy, dx = jnp.gradient(x, axis=(1, 2))
    return jnp.sqrt(dx**2 + dy**2 + 1e-6)
