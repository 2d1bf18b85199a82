"""Keypoints as heatmaps on boxes, and back.

Shape legend:

    n        boxes of one image
    k        keypoints of one object
    s        sides of the heatmaps, each of which spans its box
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from detjax.types import Array

_TILE = 64  # pixels along a side
_TOGETHER = 16  # tiles
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
    boxes are at most `limit` (h, w) pixels. Among equal values the first row counts,
    and in it the first column.

    He et al. 2017 (Mask R-CNN), section 5, with the rounding of its code. By tiles of
    the resized maps, `_TOGETHER` at once, of whichever boxes: work and memory are those
    of the boxes' pixels, where all maps at an image's size would not fit. Of gradients
    the cells of maxima are constants.
    """
    low = boxes[:, :2]
    sides = jnp.maximum(boxes[:, 2:] - low, 1)
    whole = jnp.minimum(jnp.ceil(sides), jnp.array(limit[::-1]) + 1)
    value, cell = _maxima(heatmaps.astype(jnp.float32), whole, limit)
    at = low[:, None] + (cell + 0.5) * (sides / whole)[:, None]
    return jnp.concatenate([at, value[..., None]], axis=-1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _maxima(
    heatmaps: jax.Array, whole: jax.Array, limit: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """The maxima [n k] of maps [n s s k] resized to `whole` [n 2] (w, h) pixels.

    And the pixels where they lie, [n k 2] x, y as floats.
    """
    n, *_, k = heatmaps.shape
    across, down = jnp.ceil(whole / _TILE).astype(jnp.int32).T
    ends = jnp.cumsum(across * down)
    behind = (limit[0] + 1) * (limit[1] + 1)

    def look(state):
        start, best, place = state
        number = start + jnp.arange(_TOGETHER)
        box = jnp.minimum(jnp.searchsorted(ends, number, side="right"), n - 1)
        number -= (ends - across * down)[box]
        row, column = number // across[box], number % across[box]
        value, cell = jax.vmap(_tile_maximum)(heatmaps[box], whole[box], row, column)
        # Beyond the last tile there is nothing.
        value = jnp.where(
            (start + jnp.arange(_TOGETHER) < ends[-1])[:, None], value, -jnp.inf
        )
        higher = best.at[box].max(value)
        place = jnp.where(higher > best, behind, place)
        tied = jnp.where(
            value == higher[box], cell[..., 1] * (limit[1] + 1) + cell[..., 0], behind
        )
        return start + _TOGETHER, higher, place.at[box].min(tied)

    start = jnp.int32(0), jnp.full((n, k), -jnp.inf), jnp.full((n, k), behind)
    _, value, place = lax.while_loop(lambda state: state[0] < ends[-1], look, start)
    cell = jnp.stack([place % (limit[1] + 1), place // (limit[1] + 1)], axis=-1)
    return value, cell.astype(jnp.float32)


@_maxima.defjvp
def _(limit, primals, tangents):
    # A loop has no transpose; what it finds is a sum of cells by their cubic weights.
    value, cell = _maxima(*primals, limit)
    (heatmaps, whole), (moved, _) = primals, tangents
    across, down = (
        jax.vmap(_cubic, (0, 0, None))(cell[..., i], whole[:, i], heatmaps.shape[2 - i])
        for i in (0, 1)
    )  # [n k s]
    exact = lax.Precision.HIGHEST
    tangent = jnp.einsum("nhwk,nkw,nkh->nk", moved, across, down, precision=exact)
    return (value, cell), (tangent, jnp.zeros_like(cell))


def _tile_maximum(
    heatmap: jax.Array, whole: jax.Array, row: jax.Array, column: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The maxima [k] of a tile of a map [s s k] resized to `whole` (w, h) pixels.

    And where they lie, [k 2] x, y.
    """
    w, h = whole
    exact = lax.Precision.HIGHEST
    xs, ys = (i * _TILE + jnp.arange(_TILE) for i in (column, row))
    wide = jnp.einsum(
        "hwk,xw->khx", heatmap, _cubic(xs, w, heatmap.shape[1]), precision=exact
    )
    values = jnp.einsum(
        "khx,yh->kyx", wide, _cubic(ys, h, heatmap.shape[0]), precision=exact
    )
    hidden = (xs >= w) | (ys >= h)[:, None]
    values = jnp.where(hidden, -jnp.inf, values).reshape(len(values), -1)
    place = jnp.argmax(values, axis=1)
    cell = jnp.stack([xs[place % _TILE], ys[place // _TILE]], axis=-1)
    return values.max(axis=1), cell


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
