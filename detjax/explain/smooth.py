"""What keeps a climbed picture from noise: moves, blur and total variation.

Of one picture [h w 3], everything differentiable and of static shape.
"""

import jax
import jax.numpy as jnp

from detjax.types import Array


def moved(picture: Array, key: jax.Array, jitter: int, scale: float) -> Array:
    """`picture` shifted by up to `jitter` pixels, and enlarged by up to 1 + `scale`.

    Drawn from `key`: shifts are whole pixels and wrap around, the size is between
    1 / (1 + scale) and 1 + scale of what it was, about the centre. What answers to
    the picture then answers to its neighbours too.
    """
    shifts, sizes = jax.random.split(key)
    if scale:
        factor = (1 + scale) ** jax.random.uniform(sizes, minval=-1, maxval=1)
        h, w = picture.shape[:2]
        rows, columns = _stretch(h, factor), _stretch(w, factor)
        picture = jnp.einsum("yh,xw,hwc->yxc", rows, columns, picture)
    if jitter:
        by = jax.random.randint(shifts, (2,), -jitter, jitter + 1)
        picture = jnp.roll(picture, by, axis=(0, 1))
    return picture


def _stretch(n: int, factor: Array) -> Array:
    """The matrix [n n] of a bilinear stretch by `factor` about the middle."""
    place = jnp.arange(n) - (n - 1) / 2
    at = jnp.clip(place / factor + (n - 1) / 2, 0, n - 1)
    return jnp.maximum(0, 1 - jnp.abs(at[:, None] - jnp.arange(n)))


def blurred(picture: Array, sigma: Array) -> Array:
    """`picture` under a Gaussian of `sigma` pixels; of 0 as it is.

    Weights of pixels beyond the border go to those inside.
    """
    h, w = picture.shape[:2]
    return jnp.einsum("yh,xw,hwc->yxc", _bell(h, sigma), _bell(w, sigma), picture)


def _bell(n: int, sigma: Array) -> Array:
    """The matrix [n n] of a Gaussian blur, whose rows sum to 1."""
    apart = jnp.arange(n)[:, None] - jnp.arange(n)
    wide = jnp.maximum(sigma, 1e-3)  # of which a neighbour's weight is 0
    weights = jnp.exp(-(apart**2) / (2 * wide**2))
    return weights / weights.sum(axis=1, keepdims=True)


def variation(picture: Array) -> Array:
    """The mean absolute difference of neighbouring pixels, down and across.

    Total variation (Rudin, Osher and Fatemi 1992), by the number of pixels.
    """
    down = jnp.abs(jnp.diff(picture, axis=0)).mean()
    return down + jnp.abs(jnp.diff(picture, axis=1)).mean()


def unit(gradient: Array) -> Array:
    """`gradient` of one picture divided by its norm: its mean square becomes 1."""
    size = jnp.sqrt(jnp.mean(gradient**2))
    return gradient / jnp.maximum(size, 1e-12)
