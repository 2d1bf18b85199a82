"""Crops against a loop over their pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops.warp import warp


def slow_warp(image, boxes, windows, size, padding=0):
    """One pixel of one crop after the other."""
    crops = np.zeros((len(boxes), size, size, image.shape[2]))
    for crop, box, window in zip(crops, boxes, windows, strict=True):
        x1, y1, x2, y2 = box.astype(float)
        left, top, right, bottom = (
            *np.floor(window[:2]).astype(int),
            *np.ceil(window[2:]).astype(int),
        )
        inner = size - 2 * padding
        for i in range(size):
            for j in range(size):
                x = x1 + (x2 - x1) * (j + 0.5 - padding) / inner
                y = y1 + (y2 - y1) * (i + 0.5 - padding) / inner
                if not (window[0] <= x <= window[2] and window[1] <= y <= window[3]):
                    continue
                for dx in (0, 1):
                    for dy in (0, 1):
                        u, v = np.floor(x - 0.5) + dx, np.floor(y - 0.5) + dy
                        weight = (1 - abs(x - 0.5 - u)) * (1 - abs(y - 0.5 - v))
                        u = int(np.clip(u, left, right - 1))
                        v = int(np.clip(v, top, bottom - 1))
                        crop[i, j] += weight * image[v, u]
    return crops


def case(seed=0, p=6):
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((20, 31, 2)).astype(np.float32)
    low = rng.uniform(-6, 20, (p, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 25, (p, 2))], axis=1)
    windows = np.tile(np.float32([0, 0, 31, 20]), (p, 1))
    windows[p // 2 :] = [3, 5, 17, 16]
    return image, boxes.astype(np.float32), windows


@pytest.mark.parametrize(("size", "padding"), [(7, 0), (16, 3), (31, 8)])
def test_pixel_by_pixel(size, padding):
    image, boxes, windows = case()
    got = jax.jit(warp, static_argnums=(3, 4))(image, boxes, windows, size, padding)
    expected = slow_warp(image, boxes, windows, size, padding)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert (expected == 0).any() and (expected != 0).any()


def test_the_box_itself_at_its_own_size_is_cut_out():
    image, _, windows = case()
    box = np.float32([[4, 6, 16, 18]])
    got = warp(image, box, windows[:1], 12)
    np.testing.assert_allclose(got[0], image[6:18, 4:16], atol=1e-6)


def test_context_is_what_lies_around():
    image, _, windows = case()
    got = warp(image, np.float32([[8, 8, 14, 14]]), windows[:1], 12, 3)
    np.testing.assert_allclose(got[0], image[5:17, 5:17], atol=1e-6)


def test_outside_its_window_nothing_shows_and_nothing_leaks():
    image, boxes, windows = case()
    inside = np.zeros(image.shape[:2], bool)
    inside[5:16, 3:17] = True
    other = np.where(inside[..., None], image, 1e6).astype(np.float32)
    np.testing.assert_array_equal(
        warp(image, boxes[3:], windows[3:], 9, 2),
        warp(other, boxes[3:], windows[3:], 9, 2),
    )


def test_boxes_without_area_are_finite():
    image, _, windows = case()
    boxes = np.float32([[5, 5, 5, 5], [9, 9, 3, 3], [-1e6, 0, 1e6, 9]])
    crops, gradient = jax.value_and_grad(
        lambda x: warp(x, boxes, windows[:3], 8, 2).sum()
    )(jnp.asarray(image))
    assert jnp.isfinite(crops)
    assert jnp.isfinite(gradient).all()
