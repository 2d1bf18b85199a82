"""Keypoints to cells of heatmaps and back, against loops and torch."""

import math

import jax
import numpy as np
import pytest

from detjax.ops import heatmaps


def test_cells_are_those_the_keypoints_lie_in():
    boxes = np.float32([[10, 20, 30, 60], [0, 0, 5, 5], [3, 3, 3, 9]])
    points = np.float32(
        [
            [[10, 20, 2], [30, 60, 1], [19.9, 40, 1], [20, 40, 0], [31, 40, 2]],
            [[4.9, 0, 2], [5, 2, 2], [-0.1, 2, 2], [2, 5.1, 2], [2, 2, 1]],
            [[3, 4, 2]] * 5,
        ]
    )
    cell, some = heatmaps.cells(points, boxes, 4)
    assert some.tolist() == [
        [True, True, True, False, False],
        [True, True, False, False, True],
        [False] * 5,
    ]
    assert cell[0, :3].tolist() == [0, 15, 2 * 4 + 1]
    assert cell[1].tolist() == [3, 4 + 3, 0, 0, 4 + 1]


def test_decode_is_the_maximum_of_the_resized_map():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((5, 8, 8, 3)).astype("f")
    boxes = np.float32(
        [
            [3, 4, 40.5, 50.2],
            [0, 0, 0.3, 0.2],
            [5, 5, 9, 70],
            [2, 2, 64, 64],
            [7, 7, 7, 7],
        ]
    )
    got = jax.jit(heatmaps.decode, static_argnums=2)(maps, boxes, (72, 72))
    for i, box in enumerate(boxes):
        w, h = (max(float(s), 1.0) for s in box[2:] - box[:2])
        size = math.ceil(h), math.ceil(w)
        for k in range(3):
            grown = torch.nn.functional.interpolate(
                torch.from_numpy(maps[i, ..., k])[None, None],
                size=size,
                mode="bicubic",
                align_corners=False,
            )[0, 0].numpy()
            y, x = np.unravel_index(grown.argmax(), size)
            expected = [
                box[0] + (x + 0.5) * w / size[1],
                box[1] + (y + 0.5) * h / size[0],
                grown.max(),
            ]
            np.testing.assert_allclose(got[i, k], expected, rtol=1e-4, atol=1e-4)


def test_scores_have_the_gradient_of_the_cells_that_make_them():
    """As differences of the maps have it; scores are linear where places stay."""
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((3, 6, 6, 2)).astype("f")
    boxes = np.float32([[3, 4, 40.5, 50.2], [0, 0, 0.3, 0.2], [5, 5, 9, 70]])

    def total(maps):
        return heatmaps.decode(maps, boxes, (72, 72))[..., 2].sum()

    gradient = jax.jit(jax.grad(total))(maps)
    step = 1e-3 * rng.standard_normal(maps.shape).astype("f")
    found = jax.jit(total)(maps + step) - jax.jit(total)(maps)
    assert found == pytest.approx(float((gradient * step).sum()), rel=2e-2)
    assert np.abs(gradient).sum(axis=(1, 2)).min() > 0.9


def test_decode_takes_the_first_of_equal_values():
    """Of a map of zeros, whatever tile finds it; and memory is not the image's."""
    maps = np.zeros((40, 4, 4, 2), np.float32)
    low = np.arange(40, dtype=np.float32)[:, None] * 3
    boxes = np.concatenate([low, low, low + 200.0, low + 150.0], axis=1)
    compiled = (
        jax.jit(heatmaps.decode, static_argnums=2)
        .lower(maps, boxes, (600, 800))
        .compile()
    )
    got = np.asarray(compiled(maps, boxes))
    expected = np.concatenate([low + 0.5, low + 0.5, 0 * low], axis=1)
    np.testing.assert_array_equal(got, np.stack([expected] * 2, axis=1))
    # All maps at the image's size would take 154 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 10e6
