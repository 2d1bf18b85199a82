"""Run-length masks against plain numpy, and codes that must not be believed."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detjax.data import frames, rle, views
from detjax.tasks.detection import rasters
from tests import reference


def decode(code, size):
    return coco_mask.decode({"size": list(size), "counts": code})


@pytest.mark.parametrize("seed", range(5))
def test_instances_are_the_pixels_of_each_value(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (13, 17)).astype(np.uint16) * 1000
    found = rle.instances(labels)
    assert list(found) == [v for v in np.unique(labels) if v]
    for value, instance in found.items():
        ys, xs = np.nonzero(labels == value)
        np.testing.assert_array_equal(
            decode(instance.rle, labels.shape), labels == value
        )
        assert instance.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert instance.area == len(xs)


@pytest.mark.parametrize("value", [0, 3])
def test_instances_of_a_map_of_one_value(value):
    found = rle.instances(np.full((4, 6), value, np.uint8))
    assert [i.area for i in found.values()] == ([24.0] if value else [])


@pytest.mark.parametrize("seed", range(5))
def test_runs_of_inverts_the_code(seed):
    rng = np.random.default_rng(seed)
    runs = [0, *rng.integers(1, 10 ** rng.integers(1, 5, 30)).tolist()]
    size = (1, sum(runs))
    assert rle.runs_of(rle.from_runs(runs, size)) == runs


def test_polygons_are_united():
    left, right = [0, 0, 4, 0, 4, 4, 0, 4], [2, 0, 8, 0, 8, 4, 2, 4]
    mask = decode(rle.from_polygons([left, right], (6, 10)), (6, 10))
    expected = np.zeros((6, 10))
    expected[:4, :8] = 1
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: rle.from_runs([3, 4], (2, 4)), "7 pixels in an image of 8"),
        (lambda: rle.from_runs([-1, 9], (2, 4)), "whole numbers"),
        (lambda: rle.from_runs([1.5, 6.5], (2, 4)), "whole numbers"),
        (lambda: rle.from_text("0", (2, 4)), "0 pixels in an image of 8"),
        (lambda: rle.from_text("", (2, 4)), "0 pixels"),
        (lambda: rle.from_text("hello world!", (2, 4)), "not a run-length code"),
        (lambda: rle.from_text("P", (2, 4)), "cut off"),
        (lambda: rle.from_polygons([[0, 0, 1, 1]], (2, 4)), "polygon of 4 numbers"),
        (lambda: rle.from_polygons([[0, 0, 1, 1, 2]], (2, 4)), "polygon of 5 numbers"),
        (lambda: rle.from_polygons([[0, 0, 1, 1, 2, np.nan]], (2, 4)), "not finite"),
        (lambda: rle.from_polygons([[0, 0, 1, 1, 2, 1e9]], (2, 4)), "far outside"),
    ],
)
def test_unsound_masks_are_refused(make, what):
    with pytest.raises(ValueError, match=what):
        make()


def random_mask(rng, size):
    """Nothing, noise, a box or everything."""
    mask = np.zeros(size, bool)
    kind = rng.integers(4)
    if kind == 1:
        mask = rng.random(size) < 0.5
    elif kind == 2:
        y, x = rng.integers(size)
        mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
    elif kind == 3:
        mask[:] = True
    return mask


def test_the_masks_of_an_image_are_what_they_are_one_by_one():
    """Decoded and moved together in their boxes, and whole in their images."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        size = tuple(rng.integers(1, 60, 2).tolist())
        drawn = [random_mask(rng, size) for _ in range(rng.integers(0, 5))]
        codes = [reference.rle(m)["counts"].encode() for m in drawn]
        runs = rle.runs_of_all([*codes, b""], size)
        for i, mask in enumerate([*drawn, np.zeros(size, bool)]):
            x1, y1, x2, y2 = runs.boxes[i]
            full = np.zeros(size, np.uint8)
            full[y1:y2, x1:x2] = runs.shades(i).T
            np.testing.assert_array_equal(full, 255 * mask)
        matrix = frames.scaling(*rng.uniform(0.2, 3, 2), *rng.uniform(-10, 10, 2))
        if seed % 2:
            matrix = np.array([[0, 1, 0], [-1, 0, 30], [0, 0, 1.0]]) @ matrix
        order = rng.permutation(len(drawn))[:3]
        out = np.zeros((4, 20, 24), np.uint8)
        matrices = np.tile(matrix, (len(order), 1, 1))
        rasters.draw_masks(out, runs, order, matrices)
        for got, i in zip(out, order, strict=False):
            shades = drawn[i].astype(np.uint8) * 255
            moved = views.move_pixels(shades, matrix, (20, 24), fill=0)
            np.testing.assert_array_equal(got, moved > 127)
        assert not out[len(order) :].any()


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ([b"\x7f"], "not a run-length code"),
        ([b"0o"], "cut off"),
        ([b"00", b"ooooooo0"], "more than 7 characters"),
        ([b"\x3c", b"N"], "from 0 up"),
        ([b"\x3c", b"\x3b"], "a mask of 11 pixels in an image of 12"),
    ],
)
def test_codes_that_are_none_are_found_among_others(codes, words):
    with pytest.raises(ValueError, match=words):
        rle.runs_of_all(codes, (3, 4))


@pytest.mark.parametrize("size", [(40, 30), (4000, 50)])
def test_what_is_in_a_box_is_what_the_whole_mask_has_there(size):
    """Of small pictures, and of those so high that only the box is decoded."""
    rng = np.random.default_rng(0)
    h, w = size
    masks = np.zeros((6, h, w), bool)
    masks[0, h // 2, 3] = masks[1, -1, -1] = masks[1, 0, 0] = True
    masks[2, :, 4:9] = True  # runs that go on in the next column
    masks[3, 5 : h - 7, 2:20] = rng.random((h - 12, 18)) < 0.5
    masks[4, 9:20, 1:] = rng.random((11, w - 1)) < 0.5
    codes = [reference.rle(mask)["counts"].encode() for mask in masks]
    runs = rle.runs_of_all(codes, size)
    for number, mask in enumerate(masks):
        x1, y1, x2, y2 = runs.boxes[number]
        np.testing.assert_array_equal(runs.shades(number).T, mask[y1:y2, x1:x2] * 255)
        assert mask[y1:y2, x1:x2].sum() == mask.sum()
