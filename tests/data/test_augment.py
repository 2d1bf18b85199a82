"""Geometry that can be undone, crops that keep an object, colours that stay bytes."""

import cv2
import numpy as np
import pytest

from detjax.data import augment
from detjax.data.augment import Frame

BOXES = np.array([[10, 20, 40, 50], [60, 10, 90, 80.0]])


def whole(h=100, w=120):
    return Frame(np.eye(3), (h, w))


def blob(box, h=100, w=120):
    image = np.zeros((h, w), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


def test_pixels_and_boxes_move_together():
    rng = np.random.default_rng(0)
    box = (30, 20, 70, 60)
    image = np.repeat(blob(box)[..., None], 3, axis=2)
    for _ in range(30):
        _, frame = augment.augment(
            rng,
            image,
            np.float64([box]),
            expand_to=2,
            mirror=True,
            turn=True,
            scale=(0.7, 1.5),
        )
        frame = augment.fit(frame, (200, 160), letterbox=bool(rng.integers(2)))
        pixels = augment.move_pixels(image[..., 0], frame.matrix, (200, 160), fill=0)
        x1, y1, x2, y2 = augment.move_boxes(np.float64([box]), frame.matrix)[0]
        y, x = np.nonzero(pixels > 127)
        expected = np.clip([x1, y1, x2, y2], 0, [160, 200, 160, 200])
        if len(x):
            got = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            np.testing.assert_allclose(got, expected, atol=1.01)


def test_plain_resizing_is_opencvs():
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
    matrix = augment.fit(Frame(np.eye(3), (50, 70)), (64, 64), False).matrix
    got = augment.move_pixels(image, matrix, (64, 64))
    np.testing.assert_array_equal(got, cv2.resize(image, (64, 64)))


def test_letterbox_keeps_the_aspect_and_centres():
    frame = augment.fit(whole(50, 100), (80, 80), letterbox=True)
    moved = augment.move_boxes(np.float64([[0, 0, 100, 50]]), frame.matrix)
    np.testing.assert_allclose(moved, [[0, 20, 80, 60]])


def test_crops_hold_an_object_and_keep_their_limits():
    rng = np.random.default_rng(1)
    for _ in range(100):
        frame = augment.iou_crop(rng, whole(), BOXES)
        h, w = frame.size
        moved = augment.move_boxes(BOXES, frame.matrix)
        assert augment.centred(moved, np.array([0, 0, w, h])).any()
        assert 30 <= h <= 100
        assert 36 <= w <= 120


def test_crop_of_an_empty_image_is_the_image():
    frame = augment.iou_crop(np.random.default_rng(0), whole(), np.zeros((0, 4)))
    assert frame.size == (100, 120)


def test_expand_leaves_the_image_inside():
    rng = np.random.default_rng(2)
    for _ in range(50):
        h, w = (frame := augment.expand(rng, whole(), 4)).size
        x1, y1, x2, y2 = augment.move_boxes(
            np.float64([[0, 0, 120, 100]]), frame.matrix
        )[0]
        assert 0 <= x1 < x2 <= w + 1e-9
        assert 0 <= y1 < y2 <= h + 1e-9
        assert (x2 - x1, y2 - y1) == pytest.approx((120, 100))


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_flips_are_numpys(horizontal, vertical, transpose):
    image = np.random.default_rng(0).integers(0, 255, (6, 9)).astype(np.uint8)
    frame = augment.flip(
        Frame(np.eye(3), (6, 9)),
        horizontal=horizontal,
        vertical=vertical,
        transpose=transpose,
    )
    expected = image[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    expected = expected.T if transpose else expected
    got = augment.move_pixels(image, frame.matrix, tuple(map(int, frame.size)))
    np.testing.assert_array_equal(got, expected)


def test_colours_change_within_bytes_and_leave_the_original_alone():
    image = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
    before = image.copy()
    rng = np.random.default_rng(3)
    made = [augment.photometric(rng, image) for _ in range(20)]
    np.testing.assert_array_equal(image, before)
    assert {m.dtype for m in made} == {np.dtype(np.uint8)}
    assert sum(bool((m != before).any()) for m in made) > 10


def test_same_seed_same_augmentation():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    one, two = (
        augment.augment(
            np.random.default_rng(9),
            image,
            BOXES / 4,
            colour=True,
            crop=True,
            turn=True,
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1].matrix, two[1].matrix)
