"""Slow oracles for regions of interest, one loop at a time."""

import math

import numpy as np


def axis_taps(position, cells):
    """[(cell, weight)] of one sample along an axis."""
    if position < -1 or position > cells:
        return []
    position = max(position, 0.0)
    low = int(position)
    if low >= cells - 1:
        return [(cells - 1, 1.0)]
    return [(low, 1 - (position - low)), (low + 1, position - low)]


def bin_weights(lo, hi, cells, bins, scale, sampling, aligned):
    """Weight of every cell in each bin's mean along one axis, [bins cells] float64."""
    shift = 0.5 if aligned else 0.0
    start, length = lo * scale - shift, (hi - lo) * scale
    if not aligned:
        length = max(length, 1.0)
    count = sampling if sampling > 0 else math.ceil(length / bins)
    weights = np.zeros((bins, cells))
    for i in range(bins):
        for k in range(count):
            at = start + i * length / bins + (k + 0.5) * length / bins / count
            for cell, weight in axis_taps(at, cells):
                weights[i, cell] += weight / count
    return weights


def align(features, boxes, bins, scale, sampling, aligned):
    """RoIAlign [n s s c] and its weights, rows [n s h] and columns [n s w]."""
    h, w, _ = features.shape
    rows = np.stack(
        [bin_weights(b[1], b[3], h, bins, scale, sampling, aligned) for b in boxes]
    )
    columns = np.stack(
        [bin_weights(b[0], b[2], w, bins, scale, sampling, aligned) for b in boxes]
    )
    out = np.einsum("nsh,hwc,ntw->nstc", rows, features.astype(float), columns)
    return out, rows, columns


def half_away(x):
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def pool(features, boxes, bins, scale):
    """RoIPool [n s s c], and the cell (y, x) of each maximum, -1 for none."""
    h, w, c = features.shape
    out = np.zeros((len(boxes), bins, bins, c))
    where = np.full((len(boxes), bins, bins, c, 2), -1)
    for n, box in enumerate(boxes):
        x1, y1, x2, y2 = (half_away(float(np.float32(v) * scale)) for v in box)
        tall, wide = max(y2 - y1 + 1, 1) / bins, max(x2 - x1 + 1, 1) / bins
        for i in range(bins):
            for j in range(bins):
                top = min(max(y1 + math.floor(i * tall), 0), h)
                bottom = min(max(y1 + math.ceil((i + 1) * tall), 0), h)
                left = min(max(x1 + math.floor(j * wide), 0), w)
                right = min(max(x1 + math.ceil((j + 1) * wide), 0), w)
                for y in range(top, bottom):
                    for x in range(left, right):
                        first = where[n, i, j, :, 0] < 0
                        better = first | (features[y, x] > out[n, i, j])
                        out[n, i, j, better] = features[y, x, better]
                        where[n, i, j, better] = y, x
    return out, where


def level(box, count, finest, size, canonical):
    side = math.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 0))
    found = math.floor(canonical + math.log2(side / size + 1e-12) + 1e-6)
    return min(max(found, finest), finest + count - 1) - finest
