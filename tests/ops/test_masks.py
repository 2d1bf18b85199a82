"""Mask assembly, cropping, encodings, and pasting into the original image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import masks, paste, patches
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
    got = map(patches.whole, paste.paste(x, None, affine, size, network))
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
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(patches.whole(one), patches.whole(other))


def test_paste_is_resize_for_a_stretched_image():
    x, affine = blobs(2, 16, 16), np.array([[2, 0, 0], [0, 2, 0]], np.float32)
    got = [*map(patches.whole, paste.paste(x, None, affine, (32, 32), (64, 64)))]
    probability = masks.resize(x, (32, 32))
    sure = np.abs(probability - 0.5) > 1e-3
    np.testing.assert_array_equal(np.array(got)[sure], (probability > 0.5)[sure])


def test_paste_of_nothing():
    affine = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    none = np.zeros((0, 4, 4), np.float32)
    assert [*paste.paste(none, None, affine, (8, 8), (8, 8))] == []
    outside = np.array([[90, 90, 99, 99]], np.float32)
    ones = np.ones((1, 4, 4), np.float32)
    (patch,) = paste.paste(ones, outside, affine, (8, 8), (8, 8))
    assert not patches.whole(patch).any()
    with pytest.raises(ValueError, match="threshold is -1"):
        paste.paste(ones, None, affine, (8, 8), (8, 8), -1.0)


def painted(mask, box, size):
    """A box's mask on an image as He et al. paste it, one pixel at a time."""
    r = len(mask)
    padded = np.zeros((r + 2, r + 2))
    padded[1:-1, 1:-1] = mask
    x1, y1, x2, y2 = (float(v) for v in box)
    grow = (r + 2) / r
    left, right = ((x1 + x2) / 2 + s * (x2 - x1) / 2 * grow for s in (-1, 1))
    top, bottom = ((y1 + y2) / 2 + s * (y2 - y1) / 2 * grow for s in (-1, 1))
    left, top, right, bottom = (int(v) for v in (left, top, right, bottom))
    w, h = max(right - left + 1, 1), max(bottom - top + 1, 1)
    image = np.zeros(size)
    for y in range(max(top, 0), min(bottom + 1, size[0])):
        for x in range(max(left, 0), min(right + 1, size[1])):
            v = min(max((y - top + 0.5) * (r + 2) / h - 0.5, 0), r + 1)
            u = min(max((x - left + 0.5) * (r + 2) / w - 0.5, 0), r + 1)
            i, j = min(int(v), r), min(int(u), r)
            a, b = v - i, u - j
            image[y, x] = (1 - a) * (
                (1 - b) * padded[i, j] + b * padded[i, j + 1]
            ) + a * ((1 - b) * padded[i + 1, j] + b * padded[i + 1, j + 1])
    return image


BOXES = np.float32(
    [
        [3, 4, 20, 15],
        [-8, -3, 9, 40],
        [10, 10, 10.2, 10.1],
        [25, 20, 90, 80],
        [-9, -9, -5, -5],
    ]
)


def test_masks_on_boxes_are_painted_into_the_image():
    x = blobs(5, 7, 7)
    for mask, box in zip(x, BOXES, strict=True):
        got = patches.whole(paste.drawn(mask, box, (32, 40)))
        np.testing.assert_allclose(got, painted(mask, box, (32, 40)), atol=1e-5)


def test_masks_on_boxes_follow_the_image_back():
    x, network = blobs(5, 7, 7), BOXES * [2, 0.5, 2, 0.5] + [3, 1, 3, 1]
    affine = np.float32([[2, 0, 3], [0, 0.5, 1]])
    got = map(
        patches.whole, paste.paste_boxes(x, network.astype("f"), affine, (32, 40))
    )
    for mask, box, pasted in zip(x, BOXES, got, strict=True):
        probability = painted(mask, box, (32, 40))
        sure = np.abs(probability - 0.5) > 1e-3
        np.testing.assert_array_equal(pasted[sure], probability[sure] > 0.5)
    # Turned over, a symmetric window gives the mirrored picture.
    mirror = np.float32([[-1, 0, 40], [0, 1, 0]])
    box = np.float32([[8, 6, 33, 27]])
    (flipped,) = paste.paste_boxes(x[:1], box, mirror, (32, 40))
    (straight,) = paste.paste_boxes(
        x[:1, :, ::-1],
        40 - box[:, [2, 1, 0, 3]] * [1, -1, 1, -1] + [0, -40, 0, -40],
        np.eye(3)[:2],
        (32, 40),
    )
    np.testing.assert_array_equal(patches.whole(flipped), patches.whole(straight))


def test_masks_on_boxes_cannot_be_turned():
    with pytest.raises(ValueError, match="turns or shears"):
        paste.paste_boxes(
            blobs(1, 7, 7), BOXES[:1], np.float32([[1, 0.1, 0], [0, 1, 0]]), (9, 9)
        )
