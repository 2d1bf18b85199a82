"""Whether a map points at what is there, by boxes or masks.

b images
"""

import jax.numpy as jnp

from detjax.types import Array


def hits(maps: Array, truth: Array, margin: int = 15) -> Array:
    """Whether the largest value of each map [b h w] lies on the truth, [b] bool.

    The pointing game (Zhang et al. 2016, section 4.2): `truth` [b h w] is True where
    the class is (by masks, or `ops.masks.of_boxes`); a point within `margin` pixels of
    it is a hit as well. The first of equal values counts.
    """
    b, h, w = maps.shape
    place = maps.reshape(b, -1).argmax(axis=1)
    y, x = place // w, place % w
    rows, columns = jnp.arange(h)[:, None], jnp.arange(w)[None]
    away = (rows - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2
    return jnp.any(truth & (away <= margin**2), axis=(1, 2))


def share_inside(maps: Array, truth: Array) -> Array:
    """The part [b] of a map's positive values that lies on `truth` [b h w].

    The energy-based pointing game (Wang et al. 2020, section 4.3); 0 for maps without a
    positive value.
    """
    positive = jnp.maximum(maps, 0.0)
    total = positive.sum(axis=(1, 2))
    inside = jnp.where(truth, positive, 0.0).sum(axis=(1, 2))
    return inside / jnp.where(total > 0, total, 1.0)
