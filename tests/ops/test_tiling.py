"""Tiles of a picture, and what is blended of them."""

import numpy as np
import pytest

from detjax.ops.tiling import blended, covered, tiling


@pytest.mark.parametrize("side", [1, 63, 64, 65, 96, 200])
def test_tiles_cover_a_picture_and_no_tile_more(side):
    found = covered(side, 64, 32)
    assert found >= side
    assert found == 64 or found - 32 < side
    tiles = tiling((found, found), (64, 64), 32)
    seen = np.zeros((found, found), int)
    for y, x in tiles.places:
        seen[y : y + 64, x : x + 64] += 1
    assert seen.min() >= 1


@pytest.mark.parametrize(
    ("tile", "grid", "corners", "size"),
    [(64, 8, False, 16), (65, 9, True, 17), (64, 64, False, 128)],
)
def test_equal_maps_blend_to_themselves(tile, grid, corners, size):
    whole = covered(100, tile, 32)
    tiles = tiling((whole, whole), (tile, tile), 32)
    held = tiles.grid((grid, grid), corners)
    assert held is not None
    side = (whole - 1) // held.steps[0] + 1 if corners else whole // held.steps[0]
    assert held.size == (side, side)
    values = np.random.default_rng(0).normal(size=(2, side, side, 3))
    values = values.astype(np.float32)
    made = blended(held, 2, 3, lambda x: x, lambda x: x)
    sums = made.blank
    for y, x in tiles.places:
        i, j = y // held.steps[0], x // held.steps[1]
        part = values[:, i : i + grid, j : j + grid]
        sums = made.add(sums, part, np.array([y, x]))
    np.testing.assert_allclose(made.done(sums), values, rtol=1e-5, atol=1e-6)


def test_the_seam_is_smooth_and_tiles_count_less_at_their_ends():
    held = tiling((96, 96), (64, 64), 32).grid((64, 64), False)
    assert held is not None
    row = held.window[32]
    assert (np.diff(row[:32]) >= 0).all()
    # One tile goes as the next one comes.
    np.testing.assert_allclose(row[32:64] + row[:32], 1, atol=2e-3)


def test_maps_that_lie_on_no_common_grid_are_said_so():
    tiles = tiling((128, 128), (64, 64), 32)
    assert tiles.grid((10, 10), False) is None
    assert tiles.grid((2, 2), True) is None
