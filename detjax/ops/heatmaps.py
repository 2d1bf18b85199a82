"""Keypoints as heatmaps on boxes, and back.

Shape legend:

    n        boxes of one image
    k        keypoints of one object
    s        sides of the heatmaps, each of which spans its box
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from detjax.types import Array

_ROWS = 32  # of a resized heatmap, processed together
_A = -0.75  # of the cubic kernel, as in torch and OpenCV


def cells(
    keypoints: Float[Array, "n k 3"], boxes: Float[Array, "n 4"], side: int
) -> tuple[Int[Array, "n k"], Bool[Array, "n k"]]:
    """The cell y * side + x of each keypoint in its box, and which can be learnt.

    Those have a visibility above 0 and lie in the box, right and lower edge included.

    He et al. 2017 (Mask R-CNN), section 5, with the rounding of its code.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    at, size = keypoints[..., :2], high - low
    cell = (at - low) * (side / jnp.where(size > 0, size, 1))
    cell = jnp.where(at == high, side - 1, jnp.floor(cell))
    inside = ((cell >= 0) & (cell < side) & (size > 0)).all(axis=-1)
    some = inside & (keypoints[..., 2] > 0)
    cell = jnp.where(some[..., None], cell, 0).astype(jnp.int32)
    return cell[..., 1] * side + cell[..., 0], some


def decode(
    heatmaps: Float[Array, "n s s k"],
    boxes: Float[Array, "n 4"],
    limit: tuple[int, int],
) -> Float[Array, "n k 3"]:
    """The place (x, y) of each heatmap's maximum in its box, and the value there.

    The maximum is that of the heatmap resized, bicubically, to the box's whole pixels;
    boxes are at most `limit` (h, w) pixels.

    He et al. 2017 (Mask R-CNN), section 5, with the rounding of its code. One box at a
    time, by strips of rows: the maps of all boxes at an image's size would not fit.
    """
    low = boxes[:, :2]
    side = jnp.maximum(boxes[:, 2:] - low, 1)
    whole = jnp.ceil(side)
    most = (limit[0] + 1, limit[1] + 1)

    def one(arguments):
        heatmap, (w, h) = arguments
        columns = _cubic(jnp.arange(most[1]), w, heatmap.shape[1])
        across = jnp.einsum(
            "hwk,xw->khx", heatmap, columns, precision=lax.Precision.HIGHEST
        )
        outside = jnp.arange(most[1]) >= w

        def look(strip, best):
            rows = strip * _ROWS + jnp.arange(_ROWS)
            values = jnp.einsum(
                "khx,yh->kyx",
                across,
                _cubic(rows, h, heatmap.shape[0]),
                precision=lax.Precision.HIGHEST,
            )
            hidden = outside | (rows >= h)[:, None]
            values = jnp.where(hidden, -jnp.inf, values).reshape(len(values), -1)
            highest, place = values.max(axis=1), jnp.argmax(values, axis=1)
            y, x = strip * _ROWS + place // most[1], place % most[1]
            better = highest > best[0]
            return tuple(
                jnp.where(better, new, old)
                for new, old in zip((highest, x, y), best, strict=True)
            )

        nothing = jnp.zeros(heatmap.shape[-1], jnp.int32)
        start = jnp.full(nothing.shape, -jnp.inf), nothing, nothing
        strips = jnp.ceil(h / _ROWS).astype(jnp.int32)
        return lax.fori_loop(0, strips, look, start)

    value, x, y = lax.map(one, (heatmaps.astype(jnp.float32), whole))
    cell = jnp.stack([x, y], axis=-1) + 0.5
    place = low[:, None] + cell * (side / whole)[:, None]
    return jnp.concatenate([place, value[..., None]], axis=-1)


def _cubic(at: jax.Array, size: jax.Array, cells: int) -> jax.Array:
    """Weights [len(at) cells] of `cells` resized to `size` pixels, at pixels `at`."""
    position = (at + 0.5) * (cells / size) - 0.5
    first = jnp.floor(position)
    weights = jnp.zeros((len(at), cells))
    for tap in (-1, 0, 1, 2):
        far = jnp.abs(position - first - tap)
        near = ((_A + 2) * far - (_A + 3)) * far**2 + 1
        wide = ((_A * far - 5 * _A) * far + 8 * _A) * far - 4 * _A
        cell = jnp.clip(first + tap, 0, cells - 1).astype(jnp.int32)
        weight = jnp.where(far <= 1, near, wide)
        weights += weight[:, None] * jax.nn.one_hot(cell, cells)
    return weights
