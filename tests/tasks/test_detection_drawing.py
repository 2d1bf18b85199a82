"""Detections drawn: masks where they are, bounds, keypoints."""

import tracemalloc

import numpy as np
import pytest
import supervision as sv

from detjax.tasks.detection import drawing
from detjax.tasks.detection.restore import Found
from tests import reference


def picture(h, w):
    return np.full((h, w, 3), 255, np.uint8)


def found(h, w, *drawn, **more):
    """Detections of the masks `drawn` in a picture of h x w."""
    boxes = []
    for mask in drawn:
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    n = len(drawn)
    return Found(
        np.float32(boxes).reshape(-1, 4),
        np.linspace(0.9, 0.5, n),
        np.arange(n) % 2,
        [reference.rle(mask) for mask in drawn],
        size=(h, w),
        **more,
    )


def block(h, w, y, x):
    mask = np.zeros((h, w), bool)
    mask[y, x] = True
    return mask


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((2, 3000), (2, 3000)),
        ((2, 60), (67, 2000)),
        ((1, 1), (480, 480)),
        ((100, 200), (480, 960)),
        ((3000, 2000), (3000, 2000)),
    ],
)
def test_pictures_are_enlarged_within_bounds(size, drawn):
    assert drawing.draw(picture(*size), found(*size), ["a"]).shape[:2] == drawn


def test_large_pictures_are_shrunk_for_a_panel():
    one = found(6000, 4, block(6000, 4, slice(0, 3000), slice(0, 4)))
    drawn = drawing.draw(picture(6000, 4), one, ["a"], most_side=720)
    assert drawn.shape == (720, 1, 3)
    assert (drawn[:300] != 255).any()


@pytest.mark.parametrize("size", [(600, 500), (60, 48)])
def test_masks_are_blended_where_they_are(size):
    h, w = size
    large = block(h, w, slice(h // 5, h), slice(w // 5, w))
    small = block(h, w, slice(h // 2, h // 5 * 4), slice(w // 2, w // 5 * 4))
    canvas = drawing.draw(picture(h, w), found(h, w), ["a", "b"])
    got = drawing.blended(canvas, found(h, w, small, large), [0, 1])
    scale = got.shape[0] // h
    colours = [
        [0.45 * c + 0.55 * 255 for c in sv.ColorPalette.DEFAULT.by_idx(i).as_bgr()]
        for i in range(2)
    ]
    expected = np.full(got.shape, 255.0)
    # The small one comes first and lies on top all the same.
    for mask, colour in ((large, colours[1]), (small, colours[0])):
        expected[mask.repeat(scale, 0).repeat(scale, 1)] = colour
    np.testing.assert_allclose(got, expected, atol=1)


def test_an_empty_mask_is_drawn_as_nothing():
    nothing = found(50, 60)._replace(rles=[reference.rle(np.zeros((50, 60)))])
    assert (drawing.blended(picture(50, 60), nothing, [0]) == 255).all()


def test_memory_of_many_masks_is_not_theirs():
    h, w = 1500, 2000
    mask = block(h, w, slice(0, h), slice(0, w))
    many = found(h, w, *[mask] * 20)
    image = picture(h, w)
    tracemalloc.start()
    drawing.draw(image, many, ["a", "b"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * mask.size  # 20 masks alone would be 20


def test_keypoints_far_outside_are_left_out():
    one = found(480, 500, block(480, 500, slice(9, 400), slice(9, 400)))._replace(
        rles=None
    )
    points = [
        [100, 200, 3],
        [1e30, 5, 2],
        [-1e30, 5, 2],
        [np.nan, 4, 2],
        [np.inf, 1, 1],
    ]
    drawn = drawing.draw(
        picture(480, 500), one._replace(keypoints=np.float32([points])), ["a"]
    )
    without = drawing.draw(picture(480, 500), one, ["a"])
    y, x = np.nonzero((drawn != without).any(axis=-1))
    assert (y.min(), y.max(), x.min(), x.max()) == (197, 203, 97, 103)
