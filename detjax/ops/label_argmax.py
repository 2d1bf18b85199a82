"""The most probable class of every pixel, of coarser logits, in strips of rows.

Shape legend:

    h, w     height and width of the labels
    oh, ow   height and width of the logits
    c        classes
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from detjax.ops.resize import taps
from detjax.types import Array

# Bytes of enlarged columns that are held at a time.
HELD = 1 << 24


def label_argmax(
    logits: Float[Array, "oh ow c"], size: tuple[int, int], corners: bool = False
) -> tuple[Num[Array, "h w"], Float[Array, "h w"]]:
    """Labels at `size` (h, w) and their probability: argmax and maximum of a softmax.

    Of the logits enlarged bilinearly along the columns and then along the rows, see
    `ops.resize.bilinear`; the first of equal classes counts. Labels are uint8, or
    uint16 from 256 classes on. A strip of rows at a time goes through the classes one
    by one, so that no [h w c] is ever held: of each pixel the greatest logit, its class
    and the sum of exponentials are. Not differentiable.
    """
    h, w = size
    oh, ow, c = logits.shape
    kind = jnp.uint8 if c < 256 else jnp.uint16
    low, high, above = taps(oh, h, corners)
    rows, span = _strips(low, high, w * c * 4)
    left, right, beside = taps(ow, w, corners)

    # Rows that fill up the last strip repeat the last one.
    padded = np.minimum(np.arange(-(-h // rows) * rows), h - 1).reshape(-1, rows)
    first = np.minimum(low[padded[:, 0]], oh - span)

    def strip(part: tuple[Array, ...]) -> tuple[jax.Array, jax.Array]:
        begin, upper, lower, weight = part
        held = jax.lax.dynamic_slice_in_dim(logits, begin, span)
        # In the order and the terms of `resize`, which gives the very same numbers.
        wide = held[:, left] * (1 - beside)[:, None] + held[:, right] * beside[:, None]
        planes = jnp.moveaxis(wide, -1, 0)

        def plane(one: Array) -> jax.Array:
            return one[upper] * (1 - weight[:, None]) + one[lower] * weight[:, None]

        def follow(best, numbered):
            most, total, label = best
            number, one = numbered
            value = plane(one)
            larger = value > most
            share = jnp.exp(-jnp.abs(value - most))
            return (
                jnp.where(larger, value, most),
                jnp.where(larger, total * share + 1, total + share),
                jnp.where(larger, number, label),
            ), None

        start = plane(planes[0])
        none = jnp.zeros(start.shape, jnp.int32)
        others = jnp.arange(1, c, dtype=jnp.int32), planes[1:]
        found, _ = jax.lax.scan(follow, (start, jnp.ones_like(start), none), others)
        return found[2].astype(kind), 1 / found[1]

    logits = jnp.asarray(logits, jnp.float32)
    parts = (
        first,
        low[padded] - first[:, None],
        high[padded] - first[:, None],
        above[padded],
    )
    labels, scores = jax.lax.map(strip, tuple(map(jnp.asarray, parts)))
    return labels.reshape(-1, w)[:h], scores.reshape(-1, w)[:h]


def _strips(low: np.ndarray, high: np.ndarray, row: int) -> tuple[int, int]:
    """The rows of a strip, and the most rows that one reads, of `row` bytes each."""
    h = len(low)
    rows = min(64, h)
    while True:
        last = np.minimum(np.arange(0, h, rows) + rows, h) - 1
        span = int((high[last] - low[::rows]).max()) + 1
        if rows == 1 or span * row <= HELD:
            return rows, span
        rows = rows // 2
