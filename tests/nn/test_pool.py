"""Poolings against torch's definition, written out."""

import numpy as np
import pytest

from detjax.nn import pool


def drawn(h, w):
    return np.random.default_rng(h * w).normal(size=(2, h, w, 3)).astype(np.float32)


@pytest.mark.parametrize(("h", "w"), [(7, 8), (1, 2), (12, 3), (5, 6)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2)])
def test_maxima_are_rounded_up(h, w, kernel, stride):
    x = drawn(h, w)
    got = pool.max_pool(x, kernel, stride)
    rows, columns = (
        [i for i in range(0, n, stride) if i == 0 or i + kernel - stride < n]
        for n in (h, w)
    )
    expected = [
        [x[:, i : i + kernel, j : j + kernel].max((1, 2)) for j in columns]
        for i in rows
    ]
    np.testing.assert_array_equal(got, np.moveaxis(expected, 2, 0))


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_3x3_cells_may_be_apart(dilation):
    x, d = drawn(7, 6), dilation
    maxima, means = pool.max3(x, 1, dilation=d), pool.mean3(x, 1, d)
    for i in range(7):
        for j in range(6):
            rows = [k for k in (i - d, i, i + d) if 0 <= k < 7]
            columns = [k for k in (j - d, j, j + d) if 0 <= k < 6]
            cells = x[:, rows][:, :, columns]
            np.testing.assert_array_equal(maxima[:, i, j], cells.max((1, 2)))
            np.testing.assert_allclose(means[:, i, j], cells.sum((1, 2)) / 9, atol=1e-6)


def test_means_of_every_second_cell():
    x = drawn(7, 6)
    np.testing.assert_array_equal(pool.mean3(x, 2), pool.mean3(x)[:, ::2, ::2])


def test_unpadded_maxima_lie_inside():
    x = drawn(7, 8)
    assert pool.max3(x, 2, padded=False).shape == (2, 3, 3, 3)
    padded = pool.max3(x, 2)
    assert padded.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(padded[:, 0, 0], x[:, :2, :2].max((1, 2)))


@pytest.mark.parametrize(("h", "side"), [(7, 4), (4, 4), (2, 4), (9, 5)])
def test_bins_reach_from_floor_to_ceiling(h, side):
    x = drawn(h, 3)
    got = pool.binned(x, side)
    assert got.shape == (2, side, side, 3)
    for i in range(side):
        low, high = i * h // side, int(np.ceil((i + 1) * h / side))
        expected = x[:, low:high, 0:1].mean((1, 2))
        np.testing.assert_allclose(got[:, i, 0], expected, rtol=1e-5)


def test_features_continue_by_maxima():
    x = drawn(5, 2)
    features = pool.continued([x], 4)
    assert [f.shape[1:3] for f in features] == [(5, 2), (3, 1), (2, 1), (1, 1)]
    np.testing.assert_array_equal(features[3][:, 0, 0], x.max((1, 2)))
    assert len(pool.continued([x, x, x], 2)) == 2
