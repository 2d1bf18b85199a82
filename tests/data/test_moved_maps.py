"""Maps under affine matrices against a loop over pixels."""

import numpy as np
import pytest

from detjax.data import frames, moved_maps, views

MATRICES = {
    "larger": frames.scaling(2.5, 3.0),
    "smaller": frames.scaling(0.4, 0.7, 2.0, 1.0),
    "mirrored": frames.scaling(-1.4, 1.0, 20.3, 0.0),
    "transposed": np.array([[0, 2.0, 1], [1.5, 0, 3], [0, 0, 1]]),
    "turned": frames.scaling(1, 1, 3, 4) @ frames.rotation(30, (5, 5)),
}


def loop(held, matrix, size):
    """The nearest pixel of each pixel of the output, and whether there is one."""
    back = np.linalg.inv(matrix)
    out, seen = np.zeros(size, held.dtype), np.zeros(size, bool)
    for y in range(size[0]):
        for x in range(size[1]):
            u, v, _ = back @ (x + 0.5, y + 0.5, 1)
            if 0 <= u < held.shape[1] and 0 <= v < held.shape[0]:
                seen[y, x] = True
                out[y, x] = held[int(v), int(u)]
    return out, seen


@pytest.mark.parametrize("name", MATRICES)
def test_nearest_is_the_pixel_that_a_centre_lies_in(name):
    held = np.random.default_rng(0).integers(0, 200, (11, 9)).astype(np.uint8)
    got, inside = moved_maps.nearest(held, MATRICES[name], (20, 24))
    expected, seen = loop(held, MATRICES[name], (20, 24))
    if name == "turned":
        # OpenCV's numbers are rounded to a thousandth of a pixel.
        assert (inside != seen).mean() < 0.03
        both = inside & seen
        assert (got[both] == expected[both]).mean() > 0.97
        return
    np.testing.assert_array_equal(inside, seen)
    np.testing.assert_array_equal(got[inside], expected[seen])


def test_beyond_the_map_is_its_edge():
    held = np.arange(4, dtype=np.uint16).reshape(2, 2)
    got, inside = moved_maps.nearest(held, frames.scaling(1, 1, 1, 1), (4, 4))
    assert got.dtype == np.uint16
    assert got.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert inside.sum() == 4


@pytest.mark.parametrize("name", ["larger", "mirrored", "transposed", "turned"])
def test_numbers_are_interpolated_and_a_plane_stays_one(name):
    y, x = np.mgrid[:30, :40] + 0.5
    held = (2 * x + 3 * y).astype(np.float32)
    got, inside = moved_maps.bilinear(held, MATRICES[name], (50, 60))
    v, u = np.mgrid[:50, :60] + 0.5
    back = np.linalg.inv(MATRICES[name])
    px = back[0, 0] * u + back[0, 1] * v + back[0, 2]
    py = back[1, 0] * u + back[1, 1] * v + back[1, 2]
    deep = inside & (px > 1) & (px < 39) & (py > 1) & (py < 29)
    assert deep.sum() > 200
    # A turned one is interpolated in steps of 1/32 of a pixel.
    close = 0.2 if name == "turned" else 1e-3
    np.testing.assert_allclose(got[deep], (2 * px + 3 * py)[deep], atol=close)


def test_a_map_moves_as_its_picture_does():
    """The blocks of a chessboard fall where the picture's do."""
    board = np.kron(np.indices((4, 5)).sum(axis=0) % 2, np.ones((8, 8))).astype(
        np.uint8
    )
    matrix = frames.scaling(2.0, 2.0, 5.0, 3.0)
    picture = np.repeat(board[..., None] * 200, 3, axis=2)
    seen = views.move_pixels(picture, matrix, (80, 100))
    labels, inside = moved_maps.nearest(board, matrix, (80, 100))
    agree = (seen[..., 0] > 100) == labels
    assert agree[inside].mean() > 0.97
