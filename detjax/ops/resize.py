"""Resizing of [h w c] maps, without antialiasing, as published models do it.

Pixel centres lie at half-integers, so output pixel i reads at
(i + 0.5) * in / out - 0.5; beyond the outermost centres the edge is repeated. Some
models align corners instead: output pixel i reads at i * (in - 1) / (out - 1).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from detjax.types import Array


def bilinear(
    x: Float[Array, "h w c"], size: tuple[int, int], corners: bool = False
) -> Float[Array, "oh ow c"]:
    """The map at `size` (oh, ow), interpolated between the four nearest pixels.

    With `corners` the outermost centres of the two maps lie upon each other. Shrinking
    samples and does not average: `antialias=False`, `align_corners=corners` in the
    terms of torch. In the type of `x`, with weights and sums in float32: what is
    stored of a bfloat16 map between its two axes is bfloat16 too.
    """
    x = jnp.asarray(x)
    y = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    rows = _along(y, 0, size[0], corners)
    return _along(rows, 1, size[1], corners).astype(x.dtype)


def nearest(
    x: Shaped[Array, "h w c"], size: tuple[int, int]
) -> Shaped[Array, "oh ow c"]:
    """The map at `size` (oh, ow): pixel i of the output is pixel floor(i * in / out).

    No half-pixel centres here, which is torch's 'nearest' and not its 'nearest-exact'.
    """
    rows, columns = (
        # In float32 like torch: a product just below an integer falls to the one below.
        np.minimum(
            np.arange(out, dtype=np.float32) * (np.float32(n) / np.float32(out)), n - 1
        ).astype(int)
        for n, out in zip(x.shape[:2], size, strict=True)
    )
    return jnp.asarray(x)[rows][:, columns]


def taps(
    n: int, out: int, corners: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper source pixel, and the upper one's weight, of `out` pixels."""
    if corners:
        position = np.arange(out) * ((n - 1) / max(out - 1, 1))
    else:
        position = np.clip((np.arange(out) + 0.5) * n / out - 0.5, 0, n - 1)
    low = position.astype(np.int32)
    return low, np.minimum(low + 1, n - 1), (position - low).astype(np.float32)


def _along(x: jax.Array, axis: int, out: int, corners: bool) -> jax.Array:
    """One axis resized.

    Forward, two gathers: 3 to 100 times faster on a CPU than the product with the
    interpolation matrix. Backward, that product: it beats the scatter that a gather
    transposes to, and unlike it adds in a fixed order on every machine.
    """
    n = x.shape[axis]
    if n == out:
        return x
    low, high, weight = taps(n, out, corners)
    matrix = np.zeros((out, n), np.float32)
    np.add.at(matrix, (np.arange(out), low), 1 - weight)
    np.add.at(matrix, (np.arange(out), high), weight)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(x.ndim)])

    @jax.custom_jvp
    def resized(x):
        first, second = (jnp.take(x, i, axis, mode="clip") for i in (low, high))
        return (first * (1 - weight) + second * weight).astype(x.dtype)

    @resized.defjvp
    def _(primals, tangents):
        # Of float32 an exact product, of bfloat16 one of its own with exact sums.
        exact = jax.lax.Precision.HIGHEST
        tangent = jnp.tensordot(
            jnp.asarray(matrix, x.dtype), tangents[0], (1, axis), precision=exact
        )
        return resized(*primals), jnp.moveaxis(tangent, 0, axis)

    return resized(x)
