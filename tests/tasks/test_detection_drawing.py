"""Detections drawn: masks where they are, bounds, keypoints."""

import colorsys
import tracemalloc

import cv2
import numpy as np
import pytest

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
    tints = [(10, 20, 250), (200, 90, 30)]
    got = drawing.blended(canvas, found(h, w, small, large), tints)
    scale = got.shape[0] // h
    # The canvas is BGR, colours are RGB.
    colours = [[0.45 * c + 0.55 * 255 for c in tint[::-1]] for tint in tints]
    expected = np.full(got.shape, 255.0)
    # The small one comes first and lies on top all the same.
    inside = np.zeros(got.shape[:2], bool)
    for mask, colour in ((large, colours[1]), (small, colours[0])):
        whole = mask.repeat(scale, 0).repeat(scale, 1)
        expected[whole] = colour
        # Outlines are not blended, and are not looked at here.
        shape, kernel = np.pad(whole, 4).astype(np.uint8), np.ones((7, 7))
        edge = cv2.dilate(shape, kernel) > cv2.erode(shape, kernel)
        inside |= edge[4:-4, 4:-4]
    np.testing.assert_allclose(got[~inside], expected[~inside], atol=1)
    assert 0 < inside.mean() < 0.5


def test_outlines_are_drawn_in_the_colour_itself():
    h, w = 480, 500
    mask = block(h, w, slice(100, 300), slice(100, 400))
    got = drawing.blended(picture(h, w), found(h, w, mask), [(1, 2, 3)])
    # Lines are smooth: nearly the colour.
    assert (got[100, 120:380] < 40).all() and (got[120:280, 100] < 40).all()
    assert (got[150:250, 150:350] > 130).all()


def test_instances_of_a_class_have_shades_of_its_colour():
    tints = drawing.colours(np.array([0, 1, 0, 0, 1]), 2)
    assert len(set(tints)) == 5
    own = drawing.colours(np.array([0]), 2) + drawing.colours(np.array([1]), 2)
    assert tints[0] == own[0] and tints[1] == own[1]

    def hue(tint):
        return colorsys.rgb_to_hls(*(c / 255 for c in tint))[0]

    for i, tint in enumerate(tints):
        label = (0, 1, 0, 0, 1)[i]
        assert abs(hue(tint) - hue(own[label])) < 0.05
        assert abs(hue(tint) - hue(own[1 - label])) > 0.1
    # Of one class they have colours of their own.
    alone = drawing.colours(np.zeros(20, int), 1)
    assert len(set(alone)) == 20


def test_many_small_objects_have_a_legend_and_large_ones_names():
    image = picture(480, 500)
    boxes = [[10 + 22 * i, 300, 25 + 22 * i, 318] for i in range(20)]
    many = Found(
        np.float32(boxes), np.full(20, 0.5), np.arange(20) % 2, None, size=(480, 500)
    )
    drawn = drawing.draw(image, many, ["a", "b"])
    changed = (drawn != 255).any(axis=-1)
    # The legend, in a corner where nothing is, and the boxes without names.
    assert changed[:60, :120].any() and not changed[:250, 200:].any()
    assert not changed[290:298].any()
    named = drawing.draw(image, drawing_of(many, 12), ["a", "b"])
    assert (named[285:298] != 255).any()


def drawing_of(what, count):
    """The first detections of `what`."""
    return what._replace(
        boxes=what.boxes[:count], scores=what.scores[:count], labels=what.labels[:count]
    )


@pytest.mark.parametrize("kind", ["rgb", "grey", "alpha", "palette"])
def test_pictures_of_pil_are_drawn_on_as_arrays_are(kind):
    pil = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    one = found(60, 80, block(60, 80, slice(9, 40), slice(9, 60)))
    mode = {"rgb": "RGB", "grey": "L", "alpha": "RGBA", "palette": "P"}[kind]
    noise = rng.integers(0, 255, (60, 80, 3), np.uint8)
    image = pil.fromarray(noise).convert(mode)
    expected = drawing.draw(np.asarray(image.convert("RGB")), one, ["a", "b"])
    np.testing.assert_array_equal(drawing.draw(image, one, ["a", "b"]), expected)
    if kind in ("grey", "alpha"):
        got = drawing.draw(np.asarray(image), one, ["a", "b"])
        np.testing.assert_array_equal(got, expected)


def test_a_box_of_one_pixel_can_be_seen_without_a_mask():
    one = Found(
        np.float32([[200, 200, 201, 201]]), np.array([0.5]), np.array([0]), None
    )
    drawn = drawing.draw(picture(480, 500), one, ["a"])
    assert (drawn[199:203, 199:203] != 255).any(axis=-1).sum() >= 4


def test_an_empty_mask_is_drawn_as_nothing():
    nothing = found(50, 60)._replace(rles=[reference.rle(np.zeros((50, 60)))])
    assert (drawing.blended(picture(50, 60), nothing, [(0, 0, 0)]) == 255).all()


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
