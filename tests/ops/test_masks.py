"""Mask assembly, cropping, encodings, and pasting into the original image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import masks, paste
from tests import reference


def random_masks(n, h, w, seed=0):
    return np.random.default_rng(seed).random((n, h, w), np.float32)


def blobs(n, h, w, seed=0):
    """Smooth probabilities: sigmoids of random waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / 8.0
    a, b, c = rng.uniform(-2, 2, (3, n, 1, 1))
    return (1 / (1 + np.exp(-4 * np.sin(a * y + b * x + c)))).astype(np.float32)


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


def test_mask_iou():
    a = np.zeros((3, 4, 4), bool)
    a[0, :2], a[1, :, :2] = True, True
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(masks.mask_iou(a, a), expected, rtol=1e-6)
    assert masks.mask_iou(a[:0], a).shape == (0, 3)


def test_rle_round_trip():
    mask = random_masks(1, 13, 17)[0] > 0.6
    rle = masks.encode_rle(mask)
    assert rle["size"] == [13, 17] and isinstance(rle["counts"], str)
    np.testing.assert_array_equal(masks.decode_rle(rle), mask)


def test_uncompressed_counts():
    mask = np.zeros((6, 8), bool)
    mask[2:5, 3:7] = True
    plain = {"size": [6, 8], "counts": [20, 3, 3, 3, 3, 3, 3, 3, 7]}
    np.testing.assert_array_equal(masks.decode_rle(plain), mask)


AFFINES = {
    "stretched": [[2.0, 0, 0], [0, 1.6, 0]],
    "letterbox": [[1.3, 0, 5], [0, 1.3, -7]],
    "flipped": [[-2.0, 0, 80], [0, 1.6, 0]],
    "turned": [[1.2, 0.5, -4], [-0.4, 1.3, 9]],
}


@pytest.mark.parametrize("name", AFFINES)
def test_paste_reads_the_grid_at_pixel_centres(name):
    affine = np.array(AFFINES[name], np.float32)
    size, network, x = (40, 40), (64, 80), blobs(3, 16, 20)
    got = paste.paste(x, None, affine, size, network)
    for mask, pasted in zip(x, got, strict=True):
        probability = reference.warp(mask, affine, size, network)
        sure = np.abs(probability - 0.5) > 1e-3
        np.testing.assert_array_equal(pasted[sure], probability[sure] > 0.5)
        assert sure.mean() > 0.95 and pasted.shape == size


@pytest.mark.parametrize("name", AFFINES)
def test_paste_of_a_box_is_paste_of_the_cropped_mask(name):
    affine = np.array(AFFINES[name], np.float32)
    size, network, x = (50, 44), (64, 80), blobs(40, 16, 20)
    boxes = random_boxes(40, network)
    cropped = masks.crop(x, boxes, network)
    for threshold in (0.5, 0.0):
        got = paste.paste(x, boxes, affine, size, network, threshold)
        expected = paste.paste(cropped, None, affine, size, network, threshold)
        np.testing.assert_array_equal(got, expected)


def test_paste_is_resize_for_a_stretched_image():
    x, affine = blobs(2, 16, 16), np.array([[2, 0, 0], [0, 2, 0]], np.float32)
    got = paste.paste(x, None, affine, (32, 32), (64, 64))
    probability = masks.resize(x, (32, 32))
    sure = np.abs(probability - 0.5) > 1e-3
    np.testing.assert_array_equal(np.array(got)[sure], (probability > 0.5)[sure])


def test_paste_of_nothing():
    affine = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    none = np.zeros((0, 4, 4), np.float32)
    assert paste.paste(none, None, affine, (8, 8), (8, 8)) == []
    outside = np.array([[90, 90, 99, 99]], np.float32)
    ones = np.ones((1, 4, 4), np.float32)
    assert not paste.paste(ones, outside, affine, (8, 8), (8, 8))[0].any()
    with pytest.raises(ValueError, match="threshold is -1"):
        paste.paste(ones, None, affine, (8, 8), (8, 8), -1.0)
