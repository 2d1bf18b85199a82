"""Edges: of label maps, where classes meet, and of pictures (Canny)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, UInt8

from detjax.types import Array

# tan(22.5 degrees) in 1/2^15, as OpenCV rounds it.
_SHIFT = 15
_TAN22 = 13573
# Cells that an edge grows by before it is asked whether it has grown.
_GROWTH = 8


def label_edges(
    labels: Int[Array, "h w"], valid: Bool[Array, "h w"], radius: int
) -> Bool[Array, "h w"]:
    """The pixels that lie within `radius` of one of another class.

    The distance is Euclidean, between centres. Class 0, what is not `valid` and what
    lies outside of the map are one class.
    """
    held = jnp.where(valid, labels, 0)
    h, w = held.shape
    around = jnp.pad(held, radius)
    found = jnp.zeros((h, w), bool)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if 0 < x * x + y * y <= radius * radius:
                top, left = radius + y, radius + x
                found |= around[top : top + h, left : left + w] != held
    return found


def canny(
    image: UInt8[Array, "h w c"], low: int = 10, high: int = 100
) -> Bool[Array, "h w"]:
    """Canny's edges (1986), equal to those of OpenCV's `Canny(image, low, high)`.

    3x3 Sobel derivatives of the channel where they are largest, |dx| + |dy| as their
    size; of that the maxima across the edge above `low`, and of these what hangs
    together with one above `high`.
    """
    size, dx, dy = _gradient(image)
    ridge = _maxima(size, dx, dy) & (size > low)
    strong = ridge & (size > high)

    def grown(edges):
        for _ in range(_GROWTH):
            edges = _neighbours(edges) & ridge
        return edges

    def body(held):
        edges, _ = held
        more = grown(edges)
        return more, jnp.any(more != edges)

    return jax.lax.while_loop(lambda held: held[1], body, (strong, jnp.any(strong)))[0]


def _gradient(image):
    """|dx| + |dy|, dx and dy [h w] of the channel where the first is largest."""
    x = jnp.pad(jnp.asarray(image, jnp.int32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    columns = x[:-2] + 2 * x[1:-1] + x[2:]
    rows = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    dx, dy = columns[:, 2:] - columns[:, :-2], rows[2:] - rows[:-2]
    size = jnp.abs(dx) + jnp.abs(dy)
    best = size.argmax(axis=-1, keepdims=True)
    return tuple(
        jnp.take_along_axis(each, best, axis=-1)[..., 0] for each in (size, dx, dy)
    )


def _maxima(size, dx, dy):
    """Where `size` is largest among the neighbours in the direction of the gradient."""
    around = jnp.pad(size, 1)
    h, w = size.shape

    def at(y, x):
        return around[1 + y : 1 + y + h, 1 + x : 1 + x + w]

    x, y = jnp.abs(dx), jnp.abs(dy) << _SHIFT
    flat = x * _TAN22
    steep = flat + (x << (_SHIFT + 1))
    across = (size > at(0, -1)) & (size >= at(0, 1))
    along = (size > at(-1, 0)) & (size >= at(1, 0))
    falling = (dx ^ dy) < 0
    diagonal = jnp.where(
        falling,
        (size > at(-1, 1)) & (size > at(1, -1)),
        (size > at(-1, -1)) & (size > at(1, 1)),
    )
    return jnp.where(y < flat, across, jnp.where(y > steep, along, diagonal))


def _neighbours(edges):
    """`edges` and the eight cells around each."""
    window = (3, 3)
    return jax.lax.reduce_window(
        edges, np.False_, jax.lax.bitwise_or, window, (1, 1), "SAME"
    )
