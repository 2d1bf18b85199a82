"""What can be explained of the numbers of an image's pixels."""

import jax.numpy as jnp

from detjax.types import Array, ValueMap


def value(answers: ValueMap, region: Array | None = None) -> Array:
    """The mean value [b 1] over `region`, [h w] or [b h w] bool; over all if None."""
    values = answers.values.astype(jnp.float32)
    inside = jnp.ones(values.shape, bool) if region is None else jnp.asarray(region)
    inside = jnp.broadcast_to(inside, values.shape)
    if answers.valid is not None:
        inside = inside & answers.valid
    total = jnp.where(inside, values, 0.0).sum(axis=(1, 2))
    return (total / jnp.maximum(inside.sum(axis=(1, 2)), 1))[:, None]
