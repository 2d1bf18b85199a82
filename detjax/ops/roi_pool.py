"""RoIPool: the maximum of the cells in each bin of a box.

Shape legend:

    n        regions of interest (RoIs) of one image
    s        bins along each side of a RoI
    h, w, c  a feature map; `scale` is its cells per pixel of the network's input
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from detjax.types import Array

_CHANNELS = 32  # 61 MB of 512 maps of 50 x 84 cells; all at once are 671


def pool(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "n 4"],
    *,
    bins: int,
    scale: float,
) -> Float[Array, "n s s c"]:
    """The maximum in each of bins x bins bins of each box; 0 for a bin without cells.

    The box's corners are rounded to cells, both included; bins are rounded outwards.
    A bin is the maximum of four windows whose sides are powers of two: those of every
    place are made once for all boxes, of `_CHANNELS` at a time, and again for the
    gradient: of all channels they are some 40 maps.

    Girshick 2015 (Fast R-CNN), section 2.1.
    """
    h, w, c = features.shape
    y1, y2, tall = _bins(boxes[:, 1::2], scale, h, bins)
    x1, x2, wide = _bins(boxes[:, ::2], scale, w, bins)
    down, right = _power(y2 - y1), _power(x2 - x1)
    tops, lefts = (y1, y2 - 2**down), (x1, x2 - 2**right)

    @jax.checkpoint
    def some(features):
        table = _windows(_windows(features, 0), 2)

        def window(top, left):
            return table[
                right[:, None], down[:, :, None], top[:, :, None], left[:, None]
            ]

        return functools.reduce(
            jnp.maximum, [window(top, left) for top in tops for left in lefts]
        )

    blocks = -(-c // _CHANNELS)
    parts = jnp.pad(features, ((0, 0), (0, 0), (0, -c % blocks)))
    parts = jnp.moveaxis(parts.reshape(h, w, blocks, -1), 2, 0)
    found = jnp.moveaxis(lax.map(some, parts), 0, 3)
    found = found.reshape(*found.shape[:3], -1)[..., :c]
    there = tall[:, :, None] & wide[:, None]
    return jnp.where(there[..., None], found, 0)


def _bins(ends, scale, cells, bins):
    """First and last + 1 cell of each bin [n s], and whether there is one between."""
    ends = lax.stop_gradient(ends.astype(jnp.float32)) * scale
    corner = (jnp.sign(ends) * jnp.floor(jnp.abs(ends) + 0.5)).astype(jnp.int32)
    start = corner[:, :1]
    length = jnp.maximum(corner[:, 1:] - start + 1, 1).astype(jnp.float32)
    i, step = jnp.arange(bins), length / bins
    low = jnp.clip(start + jnp.floor(i * step).astype(jnp.int32), 0, cells)
    high = jnp.clip(start + jnp.ceil((i + 1) * step).astype(jnp.int32), 0, cells)
    some = high > low
    return jnp.where(some, low, 0), jnp.where(some, high, 1), some


def _power(length) -> jax.Array:
    """The largest k with 2^k <= length, for lengths from 1 up."""
    return 31 - lax.clz(length.astype(jnp.int32))


def _windows(x, axis: int) -> jax.Array:
    """Maxima over windows of 1, 2, 4 .. places from each place on, stacked in front."""
    made, length = [x], 1
    while 2 * length <= x.shape[axis]:
        # Windows that reach over the end are never read.
        made.append(jnp.maximum(made[-1], jnp.roll(made[-1], -length, axis)))
        length *= 2
    return jnp.stack(made)
