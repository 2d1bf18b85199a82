"""What can be explained of the classes of an image's pixels."""

import jax
import jax.numpy as jnp

from detjax.ops import resize
from detjax.types import Array, LabelScores


def score(
    answers: LabelScores, labels: Array | None = None, region: Array | None = None
) -> Array:
    """The mean logits [b q] of `labels` over a region (Vinogradova et al. 2020).

    labels: [q] of all images or [b q]; if None the class that wins most pixels.
    region: [h w] or [b h w] bool or weights, the whole image at any resolution; if None
        where each class wins, and everywhere if it wins nowhere.
    """
    logits = answers.logits.astype(jnp.float32)
    won = jax.lax.stop_gradient(logits.argmax(axis=-1))
    if labels is None:
        count = jax.nn.one_hot(won, logits.shape[-1], dtype=jnp.float32)
        labels = count.sum(axis=(1, 2)).argmax(axis=-1)[:, None]
    labels = jnp.asarray(labels)
    labels = jnp.broadcast_to(labels, (len(logits), labels.shape[-1]))
    of = jnp.take_along_axis(logits, labels[:, None, None], axis=-1)  # [b h w q]
    if region is None:
        inside = won[..., None] == labels[:, None, None]
        nowhere = ~inside.any(axis=(1, 2), keepdims=True)
        weights = (inside | nowhere).astype(jnp.float32)
    else:
        weights = jnp.asarray(region, jnp.float32)
        weights = jnp.broadcast_to(weights, (len(of), *weights.shape[-2:]))[..., None]
        _, h, w, _ = weights.shape
        of = jax.vmap(lambda x: resize.bilinear(x, (h, w), answers.corners))(of)
    total = jnp.where(weights > 0, of * weights, 0.0).sum(axis=(1, 2))
    return total / jnp.maximum(weights.sum(axis=(1, 2)), 1e-6)
