"""RoIAlign, and the pyramid level of a box.

Shape legend:

    n        regions of interest (RoIs) of one image
    s        bins along each side of a RoI
    t        samples along each side of a RoI, `sampling` in each bin
    h, w, c  a feature map; `scale` is its cells per pixel of the network's input

Boxes are xyxy pixels of the network's input. A sample reads the map bilinearly, cell
centres lying at whole numbers; up to one cell outside it reads the edge, and 0 beyond.

Sampling is separable: a RoI reads products of weights along the rows and along the
columns. That gives RoIAlign two formulations, gathers of the cells that are read and
products with interpolation matrices, which agree up to rounding.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int, Shaped

from detjax.types import Array

EXACT = lax.Precision.HIGHEST


class _Taps(NamedTuple):
    """The two cells that each sample along one side reads, and what they weigh."""

    low: jax.Array  # [n t] int32
    high: jax.Array  # [n t] int32
    weight_low: jax.Array  # [n t]
    weight_high: jax.Array  # [n t]


def align(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "n 4"],
    *,
    bins: int,
    scale: float | tuple[float, float],
    sampling: int = 2,
    aligned: bool = False,
    method: str = "gather",
) -> Float[Array, "n s s c"]:
    """The mean of sampling x sampling samples in each of bins x bins bins of each box.

    scale: one number, or (vertical, horizontal).
    aligned: pixel centres lie at half-integers, and boxes may be smaller than a cell.
        The first implementations, and the weights trained with them, do without.
    method: "gather" or "einsum". On CPUs gathers were the faster ones at all sizes from
        8x8 cells to 200x272, forward (2 to 46 times) and backward (up to 11 times);
        accelerators are unmeasured.

    He et al. 2017 (Mask R-CNN), section 3.
    """
    if method == "gather":
        return multilevel(
            [features],
            boxes,
            jnp.zeros(boxes.shape[0], jnp.int32),
            bins=bins,
            scales=[scale],
            sampling=sampling,
            aligned=aligned,
        )
    vertical, horizontal = _pair(scale)
    h, w, _ = features.shape
    rows = _taps(boxes[:, 1::2], vertical, h, bins, sampling, aligned)
    columns = _taps(boxes[:, ::2], horizontal, w, bins, sampling, aligned)
    exact = functools.partial(jnp.einsum, precision=EXACT)
    part = exact("nsh,hwc->nswc", _matrix(rows, h, bins), features.astype(jnp.float32))
    whole = exact("nswc,ntw->nstc", part, _matrix(columns, w, bins))
    return whole.astype(features.dtype)


def multilevel(
    features: Sequence[Float[Array, "_ _ c"]],
    boxes: Float[Array, "n 4"],
    level: Int[Array, "n"],
    *,
    bins: int,
    scales: Sequence[float | tuple[float, float]],
    sampling: int = 2,
    aligned: bool = False,
) -> Float[Array, "n s s c"]:
    """`align` where box i reads `features[level[i]]`, at the cost of one level.

    The levels lie one after the other in one list of cells, in which each box has its
    own origin, row length and limits.

    Lin et al. 2017 (FPN), section 4.2.
    """
    cells = jnp.concatenate([f.reshape(-1, f.shape[-1]) for f in features])
    sides = jnp.array([f.shape[:2] for f in features])[level]
    sizes = [f.shape[0] * f.shape[1] for f in features]
    origin = jnp.array([sum(sizes[:i]) for i in range(len(sizes))])[level]
    scale = jnp.array([_pair(s) for s in scales], jnp.float32)[level]
    rows, columns = (
        _taps(boxes[:, 1 - i :: 2], scale[:, i], sides[:, i], bins, sampling, aligned)
        for i in (0, 1)
    )
    width = sides[:, 1, None]
    rows = rows._replace(
        low=origin[:, None] + rows.low * width, high=origin[:, None] + rows.high * width
    )
    return _gathered(cells, rows, columns, bins)


def levels(
    boxes: Float[Array, "n 4"],
    count: int,
    finest: int = 2,
    canonical_size: float = 224,
    canonical_level: int = 4,
) -> Int[Array, "n"]:
    """Which of `count` levels each box reads, 0 being the finest.

    Level k has stride 2^k; a box of canonical size reads the canonical level, one of
    half its side the level below.

    Lin et al. 2017 (FPN), equation 1.
    """
    side = jnp.sqrt(
        jnp.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 0)
    )
    level = jnp.floor(canonical_level + jnp.log2(side / canonical_size + 1e-12) + 1e-6)
    return jnp.clip(level, finest, finest + count - 1).astype(jnp.int32) - finest


def align_masks(
    masks: Shaped[Array, "n h w"],
    boxes: Float[Array, "n 4"],
    *,
    bins: int,
    scale: tuple[float, float],
    aligned: bool = False,
) -> Float[Array, "n s s"]:
    """`align` of mask i by box i, with as many samples in a bin as it has cells.

    That is ceil(side / bins) along each side of the box, at least one. `scale` (rows,
    columns) is cells a pixel of the boxes. Without `aligned` a mask is read half a
    pixel, of the boxes and not of its cells, to the right and below, as torchvision
    reads masks at full size. Exact, and without gradients: the interpolation matrices
    are summed over the samples.
    """
    _, h, w = masks.shape
    rows = _adaptive(boxes[:, 1::2], scale[0], h, bins, aligned)
    columns = _adaptive(boxes[:, ::2], scale[1], w, bins, aligned)
    exact = functools.partial(jnp.einsum, precision=EXACT)
    part = exact("nsh,nhw->nsw", rows, masks.astype(jnp.float32))
    return lax.stop_gradient(exact("nsw,ntw->nst", part, columns))


def align_box_masks(
    masks: Shaped[Array, "n r r"],
    frames: Float[Array, "n 4"],
    boxes: Float[Array, "n 4"],
    *,
    bins: int,
    aligned: bool = False,
) -> Float[Array, "n s s"]:
    """`align_masks` of masks that are stored on a grid in a box of their own each.

    Mask i spans `frames[i]`, outside of which it is 0, and is read by `boxes[i]`; both
    are pixels of the network's input.
    """
    r = masks.shape[1]
    corner, side = frames[:, :2], frames[:, 2:] - frames[:, :2]
    scale = r / jnp.maximum(side, 1e-6)
    # What is read without `aligned` lies half a pixel of the input further.
    shift = 0.0 if aligned else 0.5
    ends = (boxes.reshape(-1, 2, 2) + shift - corner[:, None]) * scale[:, None]
    # A ring of zeros, which is what lies beside the frame.
    padded = jnp.pad(masks, ((0, 0), (1, 1), (1, 1)))
    return align_masks(
        padded,
        ends.reshape(-1, 4) + 1,
        bins=bins,
        scale=(1.0, 1.0),
        aligned=True,
    )


def _pair(scale: float | tuple[float, float]) -> tuple[float, float]:
    return scale if isinstance(scale, tuple) else (scale, scale)


def _span(ends, scale, aligned):
    """Start and length in cells, [n 1] each."""
    ends = ends * jnp.asarray(scale)[..., None] - (0.5 if aligned else 0.0)
    length = ends[:, 1:] - ends[:, :1]
    return ends[:, :1], length if aligned else jnp.maximum(length, 1)


def _at(position, cells) -> _Taps:
    """The taps of samples at `position` [n t] on an axis of `cells` (number or [n])."""
    last = jnp.broadcast_to(jnp.asarray(cells), position.shape[:1])[:, None] - 1
    inside = (position >= -1) & (position <= last + 1)
    position = jnp.clip(position, 0, last)
    low = jnp.minimum(position.astype(jnp.int32), last)
    share = position - low
    return _Taps(
        low,
        jnp.minimum(low + 1, last),
        jnp.where(inside, 1 - share, 0),
        jnp.where(inside, share, 0),
    )


def _taps(ends, scale, cells, bins, sampling, aligned) -> _Taps:
    ends = lax.stop_gradient(ends.astype(jnp.float32))
    start, length = _span(ends, scale, aligned)
    step = length / bins
    bin_, sample = jnp.divmod(jnp.arange(bins * sampling), sampling)
    return _at(start + bin_ * step + (sample + 0.5) * step / sampling, cells)


def _matrix(taps: _Taps, cells: int, bins: int) -> jax.Array:
    """The weight of every cell in the mean of each bin, [n s cells]."""
    low, high = (jax.nn.one_hot(index, cells) for index in (taps.low, taps.high))
    weights = taps.weight_low[..., None] * low + taps.weight_high[..., None] * high
    n, t = taps.low.shape
    return weights.reshape(n, bins, t // bins, cells).mean(axis=2)


def _adaptive(ends, scale, cells, bins, aligned) -> jax.Array:
    """`_matrix` of ceil(length / bins) samples a bin; the largest box sets the time."""
    start, length = _span(lax.stop_gradient(ends.astype(jnp.float32)), scale, aligned)
    if not aligned:
        start += (scale - 1) / 2
    count = jnp.ceil(length / bins)
    some = jnp.maximum(count, 1)
    step = length / bins
    first = start + jnp.arange(bins) * step

    def add(sample, weights):
        taps = _at(first + (sample + 0.5) * step / some, cells)
        return weights + jnp.where(
            (sample < count)[..., None], _matrix(taps, cells, bins), 0
        )

    most = jnp.max(count, initial=0).astype(jnp.int32)
    nothing = jnp.zeros((ends.shape[0], bins, cells))
    return lax.fori_loop(0, most, add, nothing) / some[..., None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _gathered(cells, rows: _Taps, columns: _Taps, bins: int) -> jax.Array:
    """The means of bins from a list of cells [. c]; `rows` index the rows' starts.

    Forward, every tap is a gather that XLA fuses into one loop. Backward, scatters of
    two neighbours at once, one after the other: a fused form would hold them all.
    """
    rows, columns = (_by_sample(taps, bins) for taps in (rows, columns))
    n, step = rows.low.shape[0], rows.low.shape[2]
    total = jnp.zeros((n, bins, bins, cells.shape[-1]), jnp.float32)
    for i in range(step):
        for j in range(step):
            for row, vertical in (
                (rows.low, rows.weight_low),
                (rows.high, rows.weight_high),
            ):
                for column, horizontal in (
                    (columns.low, columns.weight_low),
                    (columns.high, columns.weight_high),
                ):
                    index = row[:, :, None, i] + column[:, None, :, j]
                    weight = vertical[:, :, None, i] * horizontal[:, None, :, j]
                    read = jnp.take(cells, index, axis=0, mode="clip")
                    total += weight[..., None] * read
    return (total / step**2).astype(cells.dtype)


def _by_sample(taps: _Taps, bins: int) -> _Taps:
    n, t = taps.low.shape
    return _Taps(*(v.reshape(n, bins, t // bins) for v in taps))


def _gathered_forward(cells, rows, columns, bins):
    return _gathered(cells, rows, columns, bins), (cells, rows, columns)


def _gathered_backward(bins, kept, gradient):
    cells, rows, columns = kept
    rows, columns = (_by_sample(taps, bins) for taps in (rows, columns))
    step = rows.low.shape[2]
    gradient = gradient.astype(jnp.float32) / step**2
    # A column's two cells lie side by side; on the last one both weights fall on it.
    alone = columns.high == columns.low
    pair = jnp.stack(
        [
            columns.weight_low + jnp.where(alone, columns.weight_high, 0),
            jnp.where(alone, 0, columns.weight_high),
        ],
        axis=-1,
    )
    starts = jnp.concatenate([rows.low, rows.high], axis=-1)
    weights = jnp.concatenate([rows.weight_low, rows.weight_high], axis=-1)

    def put_back(total, at):
        i, j = at
        index = starts[:, :, None, i] + columns.low[:, None, :, j]
        weight = weights[:, :, None, i, None] * pair[:, None, :, j]
        updates = weight[..., None] * gradient[:, :, :, None]
        numbers = lax.ScatterDimensionNumbers((3, 4), (), (0,))
        mode = lax.GatherScatterMode.PROMISE_IN_BOUNDS
        return lax.scatter_add(total, index[..., None], updates, numbers, mode=mode), ()

    # One more cell, since the last one has a neighbour too, of weight 0.
    nothing = jnp.zeros((cells.shape[0] + 1, cells.shape[1]), jnp.float32)
    i, j = jnp.divmod(jnp.arange(2 * step * step), step)
    total, _ = lax.scan(put_back, nothing, (i, j))
    return total[:-1].astype(cells.dtype), None, None


_gathered.defvjp(_gathered_forward, _gathered_backward)
