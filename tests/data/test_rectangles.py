"""Rectangles at an angle on the host: moved, stretched and cut."""

import cv2
import numpy as np
import pytest

from detjax.data import frames, rectangles, rle
from detjax.ops import rotated


def some(count=50, seed=3, slender=1.6):
    """Rectangles [n 5] in a picture of 200 x 200 pixels."""
    rng = np.random.default_rng(seed)
    short = rng.uniform(4, 20, count)
    rows = [*rng.uniform(40, 160, (2, count)), short * rng.uniform(slender, 4, count)]
    angle = rng.uniform(-np.pi / 2, np.pi / 2, count)
    return np.stack([*rows, short, angle], axis=1)


def overlaps(one, other):
    return np.asarray(rotated.paired_iou(np.float32(one), np.float32(other)))


@pytest.mark.parametrize(
    "matrix",
    [
        frames.scaling(0.5, 0.5, 3, -2),
        frames.scaling(-2, 2, 400, 5),
        frames.rotation(33, (90, 110)) @ frames.scaling(1.5, 1.5),
        np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]),
    ],
)
def test_a_similarity_moves_their_corners(matrix):
    given = some()
    found = rectangles.moved(given, matrix)
    places = rectangles.corners(given) @ matrix[:2, :2].T + matrix[:2, 2]
    for row, expected in zip(rectangles.corners(found), places, strict=True):
        apart = np.linalg.norm(row[:, None] - expected, axis=-1)
        assert apart.min(axis=0).max() < 1e-9
    assert (found[:, 2] >= found[:, 3]).all()
    assert ((found[:, 4] >= -np.pi / 2) & (found[:, 4] < np.pi / 2)).all()


@pytest.mark.parametrize("stretch", [(1.25, 1.0), (0.8, 1.1), (3.0, 4.0)])
def test_what_is_stretched_comes_back(stretch):
    """A long side that stays the long one; and the area is that of what was moved."""
    x, y = stretch
    matrix = frames.scaling(x, y, 3, 5)
    given = some(slender=1.6)
    there = rectangles.moved(given, matrix)
    np.testing.assert_allclose(
        there[:, 2:4].prod(axis=1), x * y * given[:, 2:4].prod(axis=1)
    )
    back = rectangles.moved(there, np.linalg.inv(matrix))
    assert (overlaps(back, given) > 0.9999).all()
    # The device has the same rule for several looks at a picture.
    plain = frames.scaling(x, y)
    ours = rotated.rescale(np.float32(given), (y, x))
    assert (overlaps(ours, rectangles.moved(given, plain)) > 0.9999).all()


def test_a_window_cuts_them():
    """Against pixels: at their angles around all that is drawn in the window."""
    window = np.array([60.0, 50, 130, 120])
    given = some(60, slender=2)
    found = rectangles.cut(given, window)
    cut = gone = 0
    for box, kept in zip(given, found, strict=True):
        sheet = np.zeros((2000, 2000), np.uint8)
        four = np.rint(rectangles.corners(box[None])[0] * 10).astype(np.int32)
        cv2.fillPoly(sheet, [four], 1)
        sheet[:500], sheet[1200:], sheet[:, :600], sheet[:, 1300:] = 0, 0, 0, 0
        points = np.argwhere(sheet)[:, ::-1] / 10
        if not len(points):
            gone += 1
            assert kept[2:4].prod() < 1
            continue
        turn = frames.rotation(-np.rad2deg(box[4]), (0, 0))[:2, :2]
        low, high = (points @ turn.T).min(axis=0), (points @ turn.T).max(axis=0)
        cut += (high - low < box[2:4] - 1).any()
        expected = [*turn.T @ (low + high) / 2, *(high - low), box[4]]
        one, other = rectangles.corners(np.array([kept, expected]))
        apart = np.linalg.norm(one[:, None] - other, axis=-1)
        assert apart.min(axis=0).max() < 0.4
    assert cut > 5
    assert gone > 5


def test_those_of_objects_are_their_own_before_those_of_masks():
    given = np.array([[30, 25, 36, 10, 0.6], [60, 40, 24, 8, -0.9]])
    fours = rectangles.corners(given)
    codes = [rle.from_polygons([four.ravel().tolist()], (60, 80)) for four in fours]
    own = rectangles.of_codes(codes, [fours[0], None], (60, 80))
    assert overlaps(own[:1], given[:1])[0] > 0.9999
    assert 0.75 < overlaps(own[1:], given[1:])[0] < 0.999
    empty = rectangles.of_codes([None, b"broken \xff"], [None, None], (60, 80))
    assert not empty.any()
