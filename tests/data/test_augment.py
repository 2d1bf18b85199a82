"""Geometry that can be undone, crops that keep an object, colours that stay bytes."""

import cv2
import jax
import numpy as np
import pytest

from detjax.data import augment, frames, views
from detjax.data.colours import Colours, photometric, recolour
from detjax.data.frames import Frame

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
    image = blob(box)
    for _ in range(30):
        _, frame = augment.augment(
            rng,
            image.shape,
            np.float64([box]),
            expand_to=2,
            mirror=True,
            turn=True,
            scale=(0.7, 1.5),
        )
        frame = frames.resize(frame, (200, 160), letterbox=bool(rng.integers(2)))
        pixels = views.move_pixels(image, frame.matrix, (200, 160), fill=0)
        x1, y1, x2, y2 = frames.move_boxes(np.float64([box]), frame.matrix)[0]
        y, x = np.nonzero(pixels > 127)
        expected = np.clip([x1, y1, x2, y2], 0, [160, 200, 160, 200])
        if len(x):
            got = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            np.testing.assert_allclose(got, expected, atol=1.01)


def test_plain_resizing_is_opencvs():
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
    matrix = frames.resize(Frame(np.eye(3), (50, 70)), (64, 64), False).matrix
    got = views.move_pixels(image, matrix, (64, 64))
    np.testing.assert_array_equal(got, cv2.resize(image, (64, 64)))


def test_letterbox_keeps_the_aspect_and_centres():
    frame = frames.resize(whole(50, 100), (80, 80), letterbox=True)
    moved = frames.move_boxes(np.float64([[0, 0, 100, 50]]), frame.matrix)
    np.testing.assert_allclose(moved, [[0, 20, 80, 60]])


def test_crops_hold_an_object_and_keep_their_limits():
    rng = np.random.default_rng(1)
    for _ in range(100):
        frame = augment.iou_crop(rng, whole(), BOXES)
        h, w = frame.size
        moved = frames.move_boxes(BOXES, frame.matrix)
        assert frames.centred(moved, np.array([0, 0, w, h])).any()
        assert 30 <= h <= 100
        assert 36 <= w <= 120


def test_crop_of_an_empty_image_is_the_image():
    frame = augment.iou_crop(np.random.default_rng(0), whole(), np.zeros((0, 4)))
    assert frame.size == (100, 120)


def test_expand_leaves_the_image_inside():
    rng = np.random.default_rng(2)
    for _ in range(50):
        h, w = (frame := augment.expand(rng, whole(), 4)).size
        x1, y1, x2, y2 = frames.move_boxes(
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
    got = views.move_pixels(image, frame.matrix, tuple(map(int, frame.size)))
    np.testing.assert_array_equal(got, expected)


def test_colours_change_within_bytes_and_leave_the_original_alone():
    image = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
    before = image.copy()
    rng = np.random.default_rng(3)
    made = [recolour(image, photometric(rng)) for _ in range(20)]
    np.testing.assert_array_equal(image, before)
    assert {m.dtype for m in made} == {np.dtype(np.uint8)}
    assert sum(bool((m != before).any()) for m in made) > 10


def test_colours_are_ssds_one_change_after_another():
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        drawn = [
            rng.uniform(*span) if rng.random() < 0.5 else neutral
            for *span, neutral in (
                (-32, 32, 0),
                (0.5, 1.5, 1),
                (0.5, 1.5, 1),
                (-18, 18, 0),
            )
        ]
        brightness, contrast, saturation, hue = drawn
        early = rng.random() < 0.5
        expected = np.clip((image + brightness) * (contrast if early else 1), 0, 255)
        hsv = cv2.cvtColor(np.float32(expected / 255), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + hue) % 360
        hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
        expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
        expected = np.clip(expected * (1 if early else contrast), 0, 255)
        got = recolour(image, photometric(np.random.default_rng(seed)))
        assert np.abs(got - expected).mean() < 1
        assert np.abs(got - expected).max() < 9


def test_drawing_what_is_seen_is_warping_everything():
    """Where a picture is seen from its edge on, that is not mixed with grey."""
    noise = np.random.default_rng(0).integers(0, 255, (100, 120, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 4)
    for seed in range(80):
        rng = np.random.default_rng(seed)
        colours, frame = augment.augment(
            rng,
            image.shape[:2],
            BOXES,
            colour=True,
            expand_to=4,
            crop=seed % 3 > 0,
            scale=(0.3, 3) if seed % 2 else (1, 1),
            turn=True,
        )
        size = (64, 80) if seed % 4 else (300, 200)
        fitted = frames.resize(frame, size, letterbox=bool(seed % 5))
        view = views.snap(fitted, image.shape[:2])
        # Half a pixel at each edge, of the image or of the frame.
        box = np.array([[0, 0, 120, 100.0]])
        there, was = (frames.move_boxes(box, m) for m in (view.matrix, fitted.matrix))
        seen = np.clip([there, was], 0, [*size[::-1], *size[::-1]])
        most = 1 + 0.5 * np.abs(fitted.matrix[:2, :2]).max()
        assert np.abs(seen[0] - seen[1]).max() <= most
        out = np.full((*size, 3), 7, np.uint8)
        views.draw(out, image, view, colours)
        moved = views.move_pixels(recolour(image, colours), view.matrix, size)
        outside = np.ones(size, bool)
        outside[view.target] = False
        assert (out[outside] == views.FILL).all()
        rows, columns = view.target
        edge = 1 + int(np.abs(view.matrix[:2, :2]).max())
        inner = (
            slice(rows.start + edge, rows.stop - edge),
            slice(columns.start + edge, columns.stop - edge),
        )
        difference = np.abs(out[inner].astype(int) - moved[inner])
        assert difference.size == 0 or difference.mean() <= 1
        assert difference.size == 0 or np.quantile(difference, 0.99) <= 5


def test_an_image_with_less_than_a_pixel_in_the_frame_is_not_seen():
    image, out = np.full((30, 10, 3), 9, np.uint8), np.zeros((20, 20, 3), np.uint8)
    for shift in (-9.9, 19.9, 40):
        frame = Frame(frames.scaling(1, 1, shift, 0), (20, 20))
        view = views.snap(frame, (30, 10))
        views.draw(out, image, view, Colours())
        assert (out == views.FILL).all()
        np.testing.assert_array_equal(view.matrix, frame.matrix)


def test_same_seed_same_augmentation():
    one, two = (
        augment.augment(
            np.random.default_rng(9),
            (40, 40),
            BOXES / 4,
            colour=True,
            crop=True,
            turn=True,
        )
        for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)


POINTS = ("nose", "left_eye", "right_eye", "left_tail", "bright_spot")


def test_opposites_change_places_and_the_rest_stays():
    assert frames.opposites(POINTS) == [0, 2, 1, 3, 4]
    assert frames.opposites(("right", "left", "a")) == [0, 1, 2]


def placed(shift=0.0):
    """Keypoints of two objects at known places of a picture of 20 x 40."""
    x = np.array([[3.0, 8, 14, 20, 39], [1, 5, 9, 13, 17]]) + shift
    y = np.array([[2.0, 4, 6, 8, 19], [10, 9, 8, 7, 6]])
    visible = np.array([[2, 1, 2, 2, 1], [2, 2, 0, 1, 2]])
    return np.stack([x, y, visible], axis=-1)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("horizontal", [False, True])
def test_keypoints_there_and_back(horizontal, vertical, transpose):
    frame = augment.flip(
        frames.Frame(frames.scaling(3, 3), (60, 120)),
        horizontal=horizontal,
        vertical=vertical,
        transpose=transpose,
    )
    points = placed()
    there = frames.move_keypoints(points, frame.matrix, frame.size, POINTS)
    # An odd number of mirrors makes left right.
    order = [0, 1, 2, 3, 4]
    if (horizontal + vertical + transpose) % 2:
        order = [0, 2, 1, 3, 4]
    np.testing.assert_array_equal(there[:, order, 2], points[..., 2])
    corners = np.concatenate([points[..., :2]] * 2, axis=-1).reshape(-1, 4)
    expected = frames.move_boxes(corners, frame.matrix)[:, :2].reshape(2, 5, 2)
    visible = points[..., 2] > 0
    np.testing.assert_allclose(there[:, order, :2][visible], expected[visible])
    back = frames.move_keypoints(there, np.linalg.inv(frame.matrix), (20, 40), POINTS)
    np.testing.assert_allclose(back[visible], points[visible])
    assert not back[~visible].any()


def test_keypoints_outside_are_as_if_nobody_had_annotated_them():
    moved = frames.move_keypoints(placed(-5.0), np.eye(3), (8, 20), POINTS)
    assert (moved[..., 2] > 0).tolist() == [
        [False, True, True, True, False],
        [False, False, False, True, True],
    ]
    assert not moved[moved[..., 2] == 0].any()
