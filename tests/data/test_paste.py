"""Masks of the network's grids, drawn into the original image."""

import numpy as np
import pytest

from detjax.data import paste, patches
from detjax.ops import masks
from tests import reference


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
    got = map(patches.full_mask, paste.paste(x, None, affine, size, network))
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
            np.testing.assert_array_equal(
                patches.full_mask(one), patches.full_mask(other)
            )


def test_paste_is_resize_for_a_stretched_image():
    x, affine = blobs(2, 16, 16), np.array([[2, 0, 0], [0, 2, 0]], np.float32)
    got = [*map(patches.full_mask, paste.paste(x, None, affine, (32, 32), (64, 64)))]
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
    assert not patches.full_mask(patch).any()
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
        got = patches.full_mask(paste.drawn(mask, box, (32, 40)))
        np.testing.assert_allclose(got, painted(mask, box, (32, 40)), atol=1e-5)


def test_masks_on_boxes_follow_the_image_back():
    x, network = blobs(5, 7, 7), BOXES * [2, 0.5, 2, 0.5] + [3, 1, 3, 1]
    affine = np.float32([[2, 0, 3], [0, 0.5, 1]])
    got = map(
        patches.full_mask, paste.paste_boxes(x, network.astype("f"), affine, (32, 40))
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
    np.testing.assert_array_equal(
        patches.full_mask(flipped), patches.full_mask(straight)
    )


def test_masks_on_boxes_cannot_be_turned():
    with pytest.raises(ValueError, match="turns or shears"):
        paste.paste_boxes(
            blobs(1, 7, 7), BOXES[:1], np.float32([[1, 0.1, 0], [0, 1, 0]]), (9, 9)
        )
