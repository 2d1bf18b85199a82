"""Mask assembly, cropping and resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import masks
from tests import reference


def random_masks(n, h, w, seed=0):
    return np.random.default_rng(seed).random((n, h, w), np.float32)


def random_boxes(n, size, seed=0):
    rng = np.random.default_rng(seed)
    ends = rng.uniform(-0.1, 1.1, (n, 2, 2)) * size[::-1]
    return np.concatenate([ends.min(1), ends.max(1)], 1).astype(np.float32)


def test_assemble():
    prototypes = random_masks(3, 4, 5).transpose(1, 2, 0)
    coefficients = random_masks(1, 6, 3)[0] - 0.5
    expected = [(prototypes * c).sum(-1) for c in coefficients]
    got = masks.assemble(prototypes, coefficients)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("padding", [0, 1])
def test_crop_is_the_loop(padding):
    size, x = (40, 60), random_masks(30, 10, 12) + 1
    boxes = random_boxes(30, size)
    boxes[0] = boxes[0, [2, 3, 0, 1]]
    boxes[1] = [10, 8, 30, 24]  # on cell borders
    got = masks.crop(x, boxes, size, padding)
    np.testing.assert_array_equal(got, reference.crop(x, boxes, size, padding))


def test_crop_by_hand():
    x = np.ones((1, 8, 8), np.float32)
    got = masks.crop(x, np.array([[6.0, 0, 10, 16]], np.float32), (16, 16), 0)
    assert got[0, 0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    got = masks.crop(x, np.array([[6.0, 0, 10, 16]], np.float32), (16, 16))
    assert got[0, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_crop_and_resize_under_jit_and_vmap():
    x, boxes = random_masks(6, 8, 8).reshape(2, 3, 8, 8), random_boxes(6, (16, 16))
    boxes = boxes.reshape(2, 3, 4)

    def function(x, boxes):
        return masks.resize(masks.crop(x, boxes, (16, 16)), (13, 20))

    batched = jax.jit(jax.vmap(function))(x, boxes)
    looped = np.stack([function(*pair) for pair in zip(x, boxes, strict=True)])
    np.testing.assert_allclose(batched, looped, atol=1e-6)


def test_crop_passes_the_gradient_inside_only():
    x, boxes = jnp.asarray(random_masks(3, 8, 8)), random_boxes(3, (16, 16))
    gradient = jax.grad(lambda x: masks.crop(x, boxes, (16, 16)).sum())(x)
    inside = reference.crop(np.ones((3, 8, 8)), boxes, (16, 16))
    np.testing.assert_array_equal(gradient, inside)


def test_resize_is_the_loop():
    x = random_masks(3, 5, 7)
    expected = reference.bilinear(x.transpose(1, 2, 0), (11, 9)).transpose(2, 0, 1)
    np.testing.assert_allclose(masks.resize(x, (11, 9)), expected, atol=1e-6)
