"""Priors against loops and hand-computed values."""

import numpy as np
import pytest

from detjax.ops import anchors
from tests import reference

SHAPES = [(3, 5), (2, 3)]
SIZES = [[24, 30], [48, 60]]


@pytest.mark.parametrize("square", [False, True])
def test_grid_is_the_loops(square):
    got = anchors.grid(SHAPES, (96, 160), SIZES, [1, 0.5, 2], square)
    expected = reference.grid_anchors(SHAPES, (96, 160), SIZES, [1, 0.5, 2], square)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert got.dtype == np.float32


def test_grid_by_hand():
    got = anchors.grid([(1, 2)], (10, 20), [[8]], [1, 4])
    expected = [[1, 1, 9, 9], [-3, 3, 13, 7], [11, 1, 19, 9], [7, 3, 23, 7]]
    np.testing.assert_allclose(got, expected)


def test_grid_counts_the_priors_of_yolact():
    shapes = [(n, n) for n in (69, 35, 18, 9, 5)]
    sizes = [[24], [48], [96], [192], [384]]
    assert anchors.grid(shapes, (550, 550), sizes).shape == (19248, 4)


def test_rcnn_is_the_loops():
    got = anchors.rcnn(SHAPES, [8, 16], SIZES, [0.5, 1, 2])
    expected = reference.rcnn_anchors(SHAPES, [8, 16], SIZES, [0.5, 1, 2])
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.float32


def test_rcnn_by_hand():
    got = anchors.rcnn([(1, 2)], [16], [[32]], [0.5, 1])
    first = [[-23, -11, 23, 11], [-16, -16, 16, 16]]
    expected = first + [[x1 + 16, y1, x2 + 16, y2] for x1, y1, x2, y2 in first]
    np.testing.assert_array_equal(got, expected)


def test_levels_must_agree():
    with pytest.raises(ValueError, match="2 feature shapes but sizes for 1 levels"):
        anchors.grid(SHAPES, (96, 160), [[24]])
