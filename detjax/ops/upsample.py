"""Larger maps [h w c]: fixed filters, places of maxima, transposed convolution.

Shape legend:

    h, w     a map's rows and columns
    c, i, o  channels
    f        the factor by which a map grows

All but max unpooling are one thing: zeros are put between the cells, and the map that
this leaves is convolved with a filter, fixed or learnt. With a filter of f x f cells
for each cell the sums have one term, and that is the sub-pixel convolution's shuffle.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from detjax.types import Array


class Pooled(NamedTuple):
    """Maxima of windows, and where they were."""

    values: Array  # [ph pw c]
    places: Array  # [ph pw c] int32: row * w + column in the map of h x w cells


def bed_of_nails(x: Float[Array, "h w c"], factor: int) -> Float[Array, "fh fw c"]:
    """Each cell the upper left one of factor x factor, the others 0."""
    around = [(0, factor - 1, factor - 1)] * 2
    return jax.lax.pad(jnp.asarray(x), jnp.zeros((), x.dtype), [*around, (0, 0, 0)])


def nearest(x: Float[Array, "h w c"], factor: int) -> Float[Array, "fh fw c"]:
    """Each cell repeated factor x factor times, as `resize.nearest` does."""
    return _filtered(x, factor, np.ones(factor))


def linear(x: Float[Array, "h w c"], factor: int) -> Float[Array, "fh fw c"]:
    """Bilinear interpolation with pixel centres at half-integers; edges are repeated.

    Equal to `resize.bilinear`, borders included, and away from these to the transposed
    convolution that Caffe's bilinear filler makes (`bilinear_kernel`).
    """
    return _filtered(x, factor, linear_taps(factor))


def cubic(
    x: Float[Array, "h w c"], factor: int, a: float = -0.5
) -> Float[Array, "fh fw c"]:
    """Bicubic interpolation with pixel centres at half-integers; edges are repeated.

    With a = -0.5 it is exact for quadratic maps (Keys 1981, eq. 15) and what PIL and
    `jax.image.resize` have away from borders; torch and OpenCV have a = -0.75.
    """
    return _filtered(x, factor, cubic_taps(factor, a))


def linear_taps(factor: int) -> np.ndarray:
    """The triangle that `linear` filters with, [2f - f % 2]; its sum is the factor."""
    return np.maximum(1 - np.abs(_offsets(factor, 1)), 0)


def cubic_taps(factor: int, a: float = -0.5) -> np.ndarray:
    """The filter of `cubic`, [4f - f % 2]; its sum is the factor."""
    far = np.abs(_offsets(factor, 2))
    near = ((a + 2) * far - (a + 3)) * far**2 + 1
    rest = a * (((far - 5) * far + 8) * far - 4)
    return np.where(far <= 1, near, np.where(far < 2, rest, 0))


def bilinear_kernel(side: int) -> np.ndarray:
    """[side side]: the filter by which transposed convolution interpolates bilinearly.

    At stride f of side 2f - f % 2 (Long et al. 2015, section 3.3; Caffe's filler).
    """
    factor = (side + 1) // 2
    middle = factor - 1 if side % 2 else factor - 0.5
    taps = 1 - np.abs(np.arange(side) - middle) / factor
    return (taps[:, None] * taps).astype(np.float32)


def max_pool(x: Float[Array, "h w c"], window: int, stride: int) -> Pooled:
    """Maxima of windows and their places; the first place of equal ones, by rows.

    The last windows may reach outside of the map, as with Caffe and torch's
    `ceil_mode`. Where windows do not overlap each place is in one window alone.
    """
    x = jnp.asarray(x)
    h, w, _ = x.shape
    rows, columns = (pooled_size(n, window, stride) for n in (h, w))
    around = [
        (0, max((n - 1) * stride + window - side, 0))
        for n, side in ((rows, h), (columns, w))
    ]
    low = jnp.asarray(-jnp.inf, x.dtype)
    padded = jnp.pad(x, [*around, (0, 0)], constant_values=low)
    best, cell = None, None
    for i in range(window):
        for j in range(window):
            seen = padded[
                i : i + (rows - 1) * stride + 1 : stride,
                j : j + (columns - 1) * stride + 1 : stride,
            ]
            if best is None:
                best, cell = seen, jnp.zeros(seen.shape, jnp.int32)
                continue
            more = seen > best
            best = jnp.where(more, seen, best)
            cell = jnp.where(more, i * w + j, cell)
    corners = (
        np.arange(rows)[:, None] * stride * w + np.arange(columns) * stride
    ).astype(np.int32)
    return Pooled(best, cell + corners[..., None])


def max_unpool(
    values: Float[Array, "ph pw c"],
    places: Int[Array, "ph pw c"],
    size: tuple[int, int],
    stride: int | None = None,
) -> Float[Array, "h w c"]:
    """A map of `size` (h, w) with `values` at `places`, 0 elsewhere.

    `places` are those of `max_pool` of a map of that size, `values` any: in a decoder
    not the maxima themselves. `stride` tells that windows of as many cells did not
    overlap; without it values that meet in one place are added.

    Zeiler and Fergus 2014, section 2.1; SegNet.
    """
    h, w = size
    values, places = jnp.asarray(values), jnp.asarray(places)
    if stride is None:
        channels = np.arange(values.shape[-1])
        empty = jnp.zeros((h * w, values.shape[-1]), values.dtype)
        return empty.at[places, channels].add(values).reshape(h, w, -1)
    # A cell compares its own place with its window's: no scatter, which is slow.
    own = np.arange(h * w, dtype=np.int32).reshape(h, w, 1)
    here = _repeated(places, stride, size) == own
    return jnp.where(here, _repeated(values, stride, size), 0)


def transposed_convolution(
    x: Float[Array, "h w i"],
    kernel: Float[Array, "kh kw o i"],
    stride: int = 1,
    padding: int = 0,
    size: tuple[int, int] | None = None,
) -> Float[Array, "oh ow o"]:
    """What a convolution with `kernel` from o to i channels does to gradients.

    It has torch's meaning (`conv_transpose2d`): a cell adds its product with the kernel
    to the output from row * stride - padding on. Of kh x kw cells oh = (h - 1) * stride
    - 2 * padding + kh, or up to stride - 1 more where `size` (oh, ow) says so, which
    says which input of the convolution this is to be.

    Computed as a convolution of the kernel's cells by their phase and a shuffle
    (`pixel_shuffle`), which leaves out the products with zeros. Raises ValueError for a
    `size` that no such convolution makes a map of h x w cells of.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    sides = kernel.shape[:2]
    least = [
        (n - 1) * stride - 2 * padding + k
        for n, k in zip(x.shape[:2], sides, strict=True)
    ]
    wanted = least if size is None else [*size]
    if any(not 0 <= n - m < stride for n, m in zip(wanted, least, strict=True)):
        raise ValueError(
            f"a transposed convolution of {x.shape[0]} x {x.shape[1]} cells with "
            f"stride {stride} makes sides of {least} to {stride - 1} more, no {size}"
        )
    blocks = [-(-k // stride) for k in sides]
    around = [(0, n * stride - k) for n, k in zip(blocks, sides, strict=True)]
    filled = jnp.pad(kernel, [*around, (0, 0), (0, 0)])
    kh, kw = blocks
    _, _, o, i = kernel.shape
    # [blocks of rows, phase, blocks of columns, phase, o, i], the last block first.
    phases = filled.reshape(kh, stride, kw, stride, o, i)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 5, 4, 1, 3).reshape(kh, kw, i, o * stride**2)
    cells = jax.lax.conv_general_dilated(
        x[None],
        phases,
        (1, 1),
        [(n - 1, n - 1) for n in blocks],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    whole = pixel_shuffle(cells, stride)
    # What a size adds lies behind the last cell's kernel: nothing but zeros.
    more = [max(padding + n - m, 0) for n, m in zip(wanted, whole.shape, strict=False)]
    whole = jnp.pad(whole, [(0, more[0]), (0, more[1]), (0, 0)])
    h, w = wanted
    return whole[padding : padding + h, padding : padding + w]


def pixel_shuffle(x: Float[Array, "h w fc"], factor: int) -> Float[Array, "fh fw c"]:
    """Channels spread over factor x factor cells, in torch's order of channels.

    Channel c * f^2 + row * f + column of a cell is channel c of the cell in that row
    and column of its f x f. Shi et al. 2016 (sub-pixel convolution), eq. 4.
    """
    h, w, c = x.shape
    spread = jnp.asarray(x).reshape(h, w, c // factor**2, factor, factor)
    return spread.transpose(0, 3, 1, 4, 2).reshape(h * factor, w * factor, -1)


def pooled_size(side: int, window: int, stride: int) -> int:
    """Windows along a `side`, the last of which begins inside and may reach outside."""
    count = max(-(-(side - window) // stride), 0) + 1
    return min(count, -(-side // stride))


def _offsets(factor: int, reach: int) -> np.ndarray:
    """Distances, in cells, of output pixels less than `reach` from a cell's centre."""
    count = 2 * reach * factor - factor % 2
    return (np.arange(count) - (count - 1) / 2) / factor


def _repeated(x: jax.Array, factor: int, size: tuple[int, int]) -> jax.Array:
    """Each cell factor x factor times, cut to or filled up to `size` with what is last.

    Cells that are filled up belong to no window: their place is another.
    """
    h, w, c = x.shape
    wide = jnp.broadcast_to(x[:, None, :, None], (h, factor, w, factor, c))
    wide = wide.reshape(h * factor, w * factor, c)[: size[0], : size[1]]
    missing = [(0, n - m) for n, m in zip(size, wide.shape[:2], strict=True)]
    if not any(map(any, missing)):
        return wide
    return jnp.pad(wide, [*missing, (0, 0)], mode="edge")


def _filtered(x: Array, factor: int, taps: np.ndarray) -> jax.Array:
    """Rows and columns of zeros put in, then filtered by `taps` along both.

    Beyond its edges the map is what it is there. A tap of the middle lies on the middle
    of a cell's f pixels.
    """
    y = jnp.asarray(x)
    for axis in (0, 1):
        y = _along(y, axis, factor, taps)
    return y


def _along(x: jax.Array, axis: int, factor: int, taps: np.ndarray) -> jax.Array:
    """One axis filtered. Channels and the other axis are a batch: taps are the same."""
    reach = -(-len(taps) // (2 * factor))
    n, rows = x.shape[axis], jnp.moveaxis(x, axis, -1)
    others = rows.shape[:-1]
    edges = [(0, 0)] * len(others) + [(reach, reach)]
    rows = jnp.pad(rows, edges, mode="edge").reshape(-1, n + 2 * reach, 1)
    # A cell's first pixel is (taps - factor) / 2 pixels behind the filter's first.
    begin = reach * factor + (len(taps) - factor) // 2
    before = len(taps) - 1 - begin
    after = begin - (2 * reach - 1) * factor - 1
    found = jax.lax.conv_general_dilated(
        rows,
        jnp.asarray(taps[::-1].copy(), x.dtype)[:, None, None],
        (1,),
        [(before, after)],
        lhs_dilation=(factor,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return jnp.moveaxis(found.reshape(*others, n * factor), -1, axis)
