"""Edges against OpenCV's Canny, and against distances to the other side of a class."""

import cv2
import jax
import numpy as np
import pytest
from scipy import ndimage

from detjax.ops import edges


def picture(seed, size=(40, 56)):
    """Smooth shades with rectangles and noise."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.uniform(0, 255, (*size, 3)), (3, 3, 0))
    image = (image - image.min()) / np.ptp(image) * 200
    for _ in range(4):
        y, x = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        image[y : y + 12, x : x + 15] += rng.uniform(-80, 80, 3)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("thresholds", [(10, 100), (60, 200)])
def test_cannys_edges_are_opencvs(thresholds):
    run = jax.jit(edges.canny, static_argnums=(1, 2))
    for seed in range(4):
        image = picture(seed)
        expected = cv2.Canny(image, *thresholds) > 0
        assert expected.any()
        np.testing.assert_array_equal(run(image, *thresholds), expected)


def test_an_edge_grows_along_a_long_weak_line():
    # A line whose contrast falls from its top: only there it is strong.
    image = np.zeros((90, 20, 3), np.uint8)
    image[:, 10:] = np.linspace(120, 15, 90).astype(np.uint8)[:, None, None]
    found = np.asarray(edges.canny(image, 10, 300))
    np.testing.assert_array_equal(found, cv2.Canny(image, 10, 300) > 0)
    assert found.any(axis=1).sum() > 80


def distances(labels, valid, radius, classes):
    """Pixels within `radius` of the other side of some class's mask, zeros around."""
    found = np.zeros(labels.shape, bool)
    for c in range(1, classes):
        mask = np.pad((labels == c) & valid, 1)
        if mask.any():
            to = ndimage.distance_transform_edt
            apart = to(mask) + to(~mask)
            found |= apart[1:-1, 1:-1] <= radius
    return found


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_edges_of_labels_lie_near_another_class(radius):
    rng = np.random.default_rng(radius)
    labels = np.kron(rng.integers(0, 4, (5, 6)), np.ones((7, 8), int)).astype(np.int32)
    valid = np.ones(labels.shape, bool)
    valid[9:20, 13:30] = False
    found = jax.jit(edges.label_edges, static_argnums=2)(labels, valid, radius)
    np.testing.assert_array_equal(found, distances(labels, valid, radius, 4))
    junk = np.where(valid, labels, 3)
    again = edges.label_edges(junk, valid, radius)
    np.testing.assert_array_equal(found, again)


def test_one_class_without_a_border_has_no_edges():
    nothing = np.zeros((6, 7), np.int32)
    assert not edges.label_edges(nothing, nothing == 0, 2).any()
    # Class 0 is no class of its own beside what is outside.
    everywhere = edges.label_edges(nothing + 1, nothing == 0, 1)
    assert everywhere[0].all()
    assert not everywhere[1:-1, 1:-1].any()
