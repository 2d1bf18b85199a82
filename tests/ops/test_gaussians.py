"""Gaussians around points, against loops over points and cells."""

import itertools
import math

import jax
import numpy as np
import pytest

from detjax.ops import boxes as box_ops
from detjax.ops import gaussians


def drawn(cells, radii, labels, valid, size, classes):
    """One Gaussian after the other."""
    h, w = size
    found = np.zeros((h, w, classes))
    for (x, y), r, label, some in zip(cells, radii, labels, valid, strict=True):
        if not some or not (0 <= x < w and 0 <= y < h):
            continue
        deviation = (2 * r + 1) / 6
        for i, j in itertools.product(range(h), range(w)):
            if abs(i - y) <= r and abs(j - x) <= r:
                far = (i - y) ** 2 + (j - x) ** 2
                value = math.exp(-far / (2 * deviation**2))
                found[i, j, label] = max(found[i, j, label], value)
    return found


def test_gaussians_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    n, size = 12, (17, 23)
    cells = rng.integers(-3, 25, (n, 2))
    cells[0] = 4, 5
    radii = rng.integers(0, 8, n).astype(np.float32)
    labels, valid = rng.integers(0, 3, n), rng.random(n) < 0.8
    args = cells, radii, labels, valid
    found = jax.jit(gaussians.splat, static_argnums=(4, 5))(*args, size, 4)
    np.testing.assert_allclose(found, drawn(*args, size, 4), atol=1e-6)
    assert (np.asarray(found)[..., 3] == 0).all()


def test_a_point_is_exactly_one():
    found = gaussians.splat(
        np.array([[3, 2]]), np.array([2.0]), np.array([0]), np.array([True]), (6, 7), 1
    )
    assert found[2, 3, 0] == 1
    assert (np.asarray(found) == 1).sum() == 1


@pytest.mark.parametrize("overlap", [0.3, 0.7])
def test_corners_within_the_radius_keep_the_overlap(overlap):
    """And one of the three cases does not with a radius of one pixel more."""
    sides = np.random.default_rng(1).uniform(20, 200, (50, 2)).astype(np.float32)
    radii = np.asarray(gaussians.radius(sides, overlap))
    assert (radii == np.floor(radii)).all()

    def least(radii):
        box = np.concatenate([np.zeros_like(sides), sides], axis=1)
        found = []
        for a, b in ((1, 1), (1, -1), (-1, 1)):
            moved = box + np.stack([a * radii] * 2 + [b * radii] * 2, axis=1)
            found.append(np.diagonal(box_ops.iou(box, moved)))
        return np.min(found, axis=0)

    assert (least(radii) >= overlap - 1e-5).all()
    assert (least(radii + 1) < overlap).all()


def test_centernets_radius_is_that_of_its_code():
    for w, h in ((30.0, 50.0), (7.0, 7.0), (200.0, 3.0)):
        o = 0.7
        b1, c1 = h + w, w * h * (1 - o) / (1 + o)
        b2, c2 = 2 * (h + w), (1 - o) * w * h
        a3, b3, c3 = 4 * o, -2 * o * (h + w), (o - 1) * w * h
        roots = (
            (b1 + math.sqrt(b1**2 - 4 * c1)) / 2,
            (b2 + math.sqrt(b2**2 - 16 * c2)) / 2,
            (b3 + math.sqrt(b3**2 - 4 * a3 * c3)) / 2,
        )
        found = gaussians.centernet_radius(np.array([[w, h]], np.float32))
        assert float(found[0]) == max(0, int(min(roots)))
