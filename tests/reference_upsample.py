"""Slow oracles of upsampling in numpy: loops over cells, in double precision."""

import numpy as np


def bed_of_nails(x, factor):
    h, w, c = x.shape
    out = np.zeros((h * factor, w * factor, c))
    for y in range(h):
        for z in range(w):
            out[y * factor, z * factor] = x[y, z]
    return out


def interpolated(x, factor, weight, reach):
    """Each output pixel from the cells that lie less than `reach` away, per axis.

    `weight` is a function of the distance in cells; beyond the edges they repeat.
    """
    h, w, c = x.shape
    out = np.zeros((h * factor, w * factor, c))
    for y in range(h * factor):
        for z in range(w * factor):
            at = (y + 0.5) / factor - 0.5, (z + 0.5) / factor - 0.5
            low = [int(np.floor(n)) for n in at]
            for i in range(low[0] - reach, low[0] + reach + 2):
                for j in range(low[1] - reach, low[1] + reach + 2):
                    cell = x[min(max(i, 0), h - 1), min(max(j, 0), w - 1)]
                    out[y, z] += weight(abs(i - at[0])) * weight(abs(j - at[1])) * cell
    return out


def nearest(x, factor):
    return interpolated(x, factor, lambda far: float(far < 0.5), 1)


def linear(x, factor):
    return interpolated(x, factor, lambda far: max(1 - far, 0), 1)


def cubic(x, factor, a=-0.5):
    def keys(far):
        if far <= 1:
            return (a + 2) * far**3 - (a + 3) * far**2 + 1
        return a * (far**3 - 5 * far**2 + 8 * far - 4) if far < 2 else 0.0

    return interpolated(x, factor, keys, 2)


def max_pool(x, window, stride):
    """Maxima and places (row * w + column) of windows that begin inside."""
    h, w, c = x.shape
    sizes = []
    for side in (h, w):
        starts = [0]
        while starts[-1] + window < side and starts[-1] + stride < side:
            starts.append(starts[-1] + stride)
        sizes.append(starts)
    values = np.zeros((len(sizes[0]), len(sizes[1]), c))
    places = np.zeros(values.shape, int)
    for i, top in enumerate(sizes[0]):
        for j, left in enumerate(sizes[1]):
            for k in range(c):
                best = -np.inf
                for y in range(top, min(top + window, h)):
                    for z in range(left, min(left + window, w)):
                        if x[y, z, k] > best:
                            best = x[y, z, k]
                            places[i, j, k] = y * w + z
                values[i, j, k] = best
    return values, places


def max_unpool(values, places, size):
    h, w = size
    out = np.zeros((h, w, values.shape[-1]))
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for k in range(values.shape[2]):
                y, z = divmod(int(places[i, j, k]), w)
                out[y, z, k] += values[i, j, k]
    return out


def transposed_convolution(x, kernel, stride, padding, size=None):
    """Each cell adds its product with the kernel [kh kw o i] to the output."""
    h, w, _ = x.shape
    kh, kw, o, _ = kernel.shape
    large = np.zeros(((h + 1) * stride + kh, (w + 1) * stride + kw, o))
    for y in range(h):
        for z in range(w):
            top, left = y * stride, z * stride
            large[top : top + kh, left : left + kw] += kernel @ x[y, z]
    oh, ow = size or (
        (h - 1) * stride - 2 * padding + kh,
        (w - 1) * stride - 2 * padding + kw,
    )
    return large[padding : padding + oh, padding : padding + ow]


def convolution(x, kernel, stride, padding):
    """Sums of products with the kernel [kh kw i o] at every stride."""
    kh, kw, _, o = kernel.shape
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    rows = (x.shape[0] - kh) // stride + 1
    columns = (x.shape[1] - kw) // stride + 1
    out = np.zeros((rows, columns, o))
    for y in range(rows):
        for z in range(columns):
            seen = x[y * stride : y * stride + kh, z * stride : z * stride + kw]
            out[y, z] = np.einsum("hwi,hwio->o", seen, kernel)
    return out


def pixel_shuffle(x, factor):
    h, w, c = x.shape
    out = np.zeros((h * factor, w * factor, c // factor**2))
    for y in range(h):
        for z in range(w):
            for k in range(c):
                channel, rest = divmod(k, factor**2)
                i, j = divmod(rest, factor)
                out[y * factor + i, z * factor + j, channel] = x[y, z, k]
    return out
