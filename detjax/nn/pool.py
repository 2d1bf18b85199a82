"""Pooling of maps [b h w c] of any size, as the originals of published weights do."""

import functools

import jax
import jax.numpy as jnp
from flax import linen


def max_pool(x, kernel: int, stride: int):
    """Maxima of windows, the last of which may reach outside the map.

    Sides are rounded up, as Caffe and torch's `ceil_mode` do, and are 1 at least.
    """
    around = []
    for side in x.shape[1:3]:
        count = max(-(-(side - kernel) // stride), 0) + 1
        around.append((0, max((count - 1) * stride + kernel - side, 0)))
    return linen.max_pool(x, (kernel, kernel), (stride, stride), around)


def max3(x, stride: int, padded: bool = True, dilation: int = 1):
    """Maxima of 3x3 cells, those that are `dilation` apart; dilated at stride 1 alone.

    Where the map is not `padded` a window lies inside it.
    """
    if dilation > 1:
        return functools.reduce(jnp.maximum, _shifted(x, dilation, -jnp.inf))
    around = (int(padded),) * 2
    return linen.max_pool(x, (3, 3), (stride, stride), (around, around))


def mean3(x, stride: int = 1, dilation: int = 1):
    """Means of 3x3 cells, those that are `dilation` apart; dilated at stride 1 alone.

    Zeros around the map count too.
    """
    if dilation > 1:
        return sum(_shifted(x, dilation, 0)) / 9
    return linen.avg_pool(x, (3, 3), (stride, stride), ((1, 1), (1, 1)))


def _shifted(x, by: int, fill: float):
    """The nine maps that 3x3 cells, `by` apart, are of each cell of `x`."""
    h, w = x.shape[1:3]
    around = ((0, 0), (by, by), (by, by), (0, 0))
    x = jnp.pad(x, around, constant_values=jnp.asarray(fill, x.dtype))
    places = [(i * by, j * by) for i in range(3) for j in range(3)]
    return [x[:, i : i + h, j : j + w] for i, j in places]


def binned(x, side: int):
    """[b h w c] -> [b side side c]: means over cells from floor to ceil of each bin."""
    for axis in (1, 2):
        n = x.shape[axis]
        bins = [(i * n // side, -(-(i + 1) * n // side)) for i in range(side)]
        parts = [
            jax.lax.slice_in_dim(x, low, high, axis=axis).mean(axis, keepdims=True)
            for low, high in bins
        ]
        x = jnp.concatenate(parts, axis)
    return x


def continued(features, stages: int):
    """`features` and halves of the last one by 2x2 maxima, up to `stages` in all."""
    features = list(features)
    while len(features) < stages:
        features.append(max_pool(features[-1], 2, 2))
    return tuple(features[:stages])
