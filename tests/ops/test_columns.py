"""Overlaps by rows against those of all pairs."""

import jax
import numpy as np

from detjax.ops import boxes, columns


def random_boxes(n, seed):
    rng = np.random.default_rng(seed)
    low, size = rng.uniform(0, 60, (n, 2)), rng.uniform(1, 50, (n, 2))
    return np.concatenate([low, low + size], 1).astype(np.float32)


def test_rows_of_overlaps_are_those_of_all_pairs():
    a, b = random_boxes(9, 0), random_boxes(30, 1)
    index = np.array([3, 0, 8, 3])
    found = jax.jit(lambda i: columns.iou_rows(a, b)(i))(index)
    np.testing.assert_allclose(found, boxes.iou(a, b)[index], rtol=1e-6)
    found = jax.jit(lambda i: columns.iou_crowd_rows(b, a)(i))(index)
    np.testing.assert_allclose(found, boxes.iou_crowd(b, a).T[index], rtol=1e-6)
    empty = np.zeros((2, 4), np.float32)
    assert not columns.iou_rows(empty, empty)(np.arange(2)).any()


def test_columns_are_the_boxes():
    a, b = random_boxes(9, 0), random_boxes(9, 1)
    found = columns.columns_of(a)
    np.testing.assert_array_equal(np.stack(found[:4], axis=1), a)
    np.testing.assert_array_equal(found.area, boxes.area(a))
    inter, union = columns.inter_union(found, columns.columns_of(b))
    expected = np.diag(boxes.iou(a, b))
    np.testing.assert_allclose(inter / union, expected, rtol=1e-6)
