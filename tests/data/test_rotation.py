"""Rotation, random-resized crops and blur: pixels, boxes, masks and keypoints agree."""

import cv2
import numpy as np
import pytest
from test_loader import NAMES, prepare, record

from detjax.data import augment, colours, frames, rle, views
from detjax.data.colours import Colours
from detjax.data.frames import Frame
from detjax.tasks.detection.targets import Targets, moved_boxes
from tests import reference

SIZE = (120, 150)


def disc(centre, radius, size=SIZE):
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, centre, radius, 1, -1)
    return mask.astype(bool)


def drawn(mask, annotation):
    """`annotation` with this mask and its box."""
    y, x = np.nonzero(mask)
    annotation.box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
    annotation.rle = reference.rle(mask)["counts"].encode()
    return annotation


def extent(mask):
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


@pytest.mark.parametrize("degrees", [0, 90, 180, -90, 30, -75])
def test_a_rotation_is_clockwise_about_its_centre(degrees):
    matrix = frames.rotation(degrees, (20, 10))
    x, y, _ = matrix @ (25, 10, 1)
    angle = np.deg2rad(degrees)
    assert (x, y) == pytest.approx((20 + 5 * np.cos(angle), 10 + 5 * np.sin(angle)))
    assert frames.upright(frames.rotation(0, (3, 4)))
    assert not frames.upright(frames.rotation(1, (3, 4)))
    turned = np.array([[0, 2, 5], [-3, 0, 1], [0, 0, 1.0]])
    assert frames.upright(turned)


def test_angles_come_from_their_range():
    whole = Frame(np.eye(3), SIZE)

    def angles(span):
        rng = np.random.default_rng(0)
        found = [augment.rotated(rng, whole, span).matrix for _ in range(200)]
        return np.rad2deg([np.arctan2(m[1, 0], m[0, 0]) for m in found])

    both = angles(20)
    assert both.min() < -18
    assert both.max() > 18
    assert np.abs(both).max() <= 20
    one = angles((5, 10))
    assert one.min() >= 5
    assert one.max() <= 10
    assert augment.rotated(None, whole, 0.0) is whole


def test_a_rotated_box_grows_as_it_is_said_to():
    angle = np.deg2rad(30)
    [box] = frames.move_boxes(
        np.array([[10.0, 20, 50, 40]]), frames.rotation(30, (30, 30))
    )
    w = 40 * np.cos(angle) + 20 * np.sin(angle)
    h = 40 * np.sin(angle) + 20 * np.cos(angle)
    np.testing.assert_allclose(box, [30 - w / 2, 30 - h / 2, 30 + w / 2, 30 + h / 2])


def test_the_bounds_of_moved_masks_are_those_of_their_pixels():
    rng = np.random.default_rng(0)
    for _ in range(30):
        size = tuple(rng.integers(3, 12, 2).tolist())
        masks = [rng.random(size) < p for p in (0.1, 0.5, 0.97, 1)]
        masks += [np.zeros(size, bool)]
        codes = [reference.rle(m)["counts"].encode() for m in masks]
        matrix = np.eye(3)
        matrix[:2] += rng.normal(size=(2, 3))
        boxes, some = rle.moved_bounds(rle.runs_of_all(codes, size), matrix)
        for mask, box, there in zip(masks, boxes, some, strict=True):
            assert there == mask.any()
            if there:
                y, x = np.nonzero(mask)
                corners = [(x + i, y + j) for i in (0, 1) for j in (0, 1)]
                points = np.concatenate(corners, axis=1)
                moved = matrix[:2, :2] @ points + matrix[:2, 2:]
                expected = [*moved.min(axis=1), *moved.max(axis=1)]
                np.testing.assert_allclose(box, expected, atol=1e-9)
    nothing = rle.moved_bounds(rle.runs_of_all([b""], (4, 4)), np.eye(3))
    assert not nothing[1].any()


def test_a_rotated_disc_keeps_its_box_and_one_without_mask_does_not():
    some = record(objects=2, size=SIZE)
    drawn(disc((70, 60), 20), some.truth[0])
    drawn(disc((40, 70), 15), some.truth[1]).rle = None
    truth = Targets(4, None).read(some, outlines=True)
    [tight, loose] = moved_boxes(truth, frames.rotation(45, (75, 60)))
    sides = tight[2:] - tight[:2]
    np.testing.assert_allclose(sides, 41, atol=1)
    np.testing.assert_allclose(loose[2:] - loose[:2], 31 * np.sqrt(2), atol=1e-6)
    plain = Targets(4, None).read(some)
    assert plain.runs is None
    np.testing.assert_allclose(moved_boxes(plain, np.eye(3)), truth.boxes)


@pytest.mark.parametrize("learnt", [{}, {"mask_size": 56}, {"mask_stride": None}])
def test_pixels_masks_boxes_and_keypoints_rotate_together(learnt):
    some = record(objects=1, size=SIZE)
    mask = disc((80, 55), 18) | disc((60, 70), 10)
    drawn(mask, some.truth[0])
    some.truth[0].keypoints = np.float32([[80.5, 55.5, 2], [60.5, 70.5, 2]])
    image = np.zeros((*SIZE, 3), np.uint8)
    image[mask] = 255
    some.image = cv2.imencode(".png", image)[1].tobytes()
    steps = prepare(
        size=SIZE, augment={"rotate": 180, "mirror": True}, keypoints=NAMES, **learnt
    )
    for seed in range(8):
        got = steps(some, np.random.default_rng(seed))
        white = got.inputs.images.min(axis=-1) > 140
        box = got.target.boxes[0]
        np.testing.assert_allclose(box, extent(white), atol=1.5)
        matrix = got.inputs.view.affine
        placed = some.truth[0].keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        swapped = np.linalg.det(matrix[:, :2]) < 0
        points = got.target.keypoints[0, :, :2]
        np.testing.assert_allclose(points, placed[:: -1 if swapped else 1], atol=1e-3)
        if got.target.masks is not None:
            whole = cv2.resize(got.target.masks[0], SIZE[::-1], interpolation=0)
            assert (whole.astype(bool) != white).mean() < 0.02
        if got.target.box_masks is not None:
            x1, y1, x2, y2 = np.rint(box).astype(int)
            cut = cv2.resize(white[y1:y2, x1:x2].astype(np.uint8), (56, 56))
            assert (cut != got.target.box_masks[0]).mean() < 0.06


def test_what_is_drawn_turned_is_the_image_on_the_fill_colour():
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 3)
    changed = Colours(before=(1.0, 30.0))
    matrix = frames.scaling(1, 1, 20, 15) @ frames.rotation(25, (40, 30))
    out = np.zeros((90, 120, 3), np.uint8)
    drawn_by = views.place(out, image, Frame(matrix, (90, 120)), changed)
    np.testing.assert_array_equal(drawn_by, matrix)
    y, x = np.mgrid[:90, :120] + 0.5
    back = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    outside = ((back[:2] < -1) | (back[:2].T > (81, 61)).T).any(axis=0)
    inside = ((back[:2] > 1) & (back[:2].T < (79, 59)).T).all(axis=0)
    assert (out.reshape(-1, 3)[outside] == views.FILL).all()
    moved = views.move_pixels(colours.recolour(image, changed), matrix, (90, 120))
    apart = np.abs(out.astype(int) - moved).reshape(-1, 3)[inside]
    assert inside.sum() > 3000
    assert apart.max() <= 1


def test_random_resized_crops_have_their_shares_and_shapes():
    rng, whole = np.random.default_rng(0), Frame(np.eye(3), (100, 140))
    seen = []
    for _ in range(300):
        frame = augment.resized_crop(rng, whole, (0.2, 0.6), (0.75, 4 / 3))
        h, w = frame.size
        x, y = -frame.matrix[:2, 2]
        assert 0 <= x <= 140 - w + 1e-9
        assert 0 <= y <= 100 - h + 1e-9
        seen.append((h * w / 14_000, w / h))
    low, high = np.min(seen, axis=0), np.max(seen, axis=0)
    assert 0.2 <= low[0] < 0.23
    assert 0.57 < high[0] <= 0.6
    assert 0.75 - 1e-9 <= low[1] < 0.78
    assert 1.28 < high[1] <= 4 / 3 + 1e-9


def test_a_crop_that_cannot_fit_is_the_middle_of_the_nearest_shape():
    frame = augment.resized_crop(
        np.random.default_rng(0), Frame(np.eye(3), (10, 100)), (1, 1), (0.5, 2)
    )
    assert frame.size == (10, 20)
    np.testing.assert_allclose(frame.matrix[:2, 2], [-40, 0])


def test_objects_of_which_a_crop_leaves_too_little_are_dropped():
    some, steps = record(), prepare(augment={"crop_area": (0.1, 0.3)}, min_size=4)
    counts = set()
    for seed in range(20):
        got = steps(some, np.random.default_rng(seed))
        counts.add(int(got.target.valid.sum()))
        moved = frames.move_boxes(
            np.array([a.box for a in some.truth], float), got.inputs.view.affine
        )
        inside = frames.centred(moved, np.array([0, 0, 48, 32]))
        sides = np.clip(moved, 0, [48, 32, 48, 32])
        large = (sides[:, 2:] - sides[:, :2]).min(axis=1) >= 4
        assert got.target.valid.sum() == (inside & large).sum()
    assert len(counts) > 1


def test_blur_is_a_gaussian_of_the_pictures_part():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    out = np.zeros((80, 80, 3), np.uint8)
    frame = Frame(frames.scaling(1, 1, 10, 20), (80, 80))
    views.place(out, image, frame, Colours(blur=1.5))
    expected = cv2.GaussianBlur(image, (0, 0), 1.5)
    np.testing.assert_array_equal(out[20:60, 10:70], expected)
    assert (out[:20] == views.FILL).all()
    rng = np.random.default_rng(0)
    drawn = [colours.blurring(rng, Colours(), 0.3, (0.5, 2)).blur for _ in range(500)]
    some = [sigma for sigma in drawn if sigma]
    assert 0.2 < len(some) / 500 < 0.4
    assert 0.5 <= min(some) < max(some) <= 2
    assert colours.blurring(None, Colours(), 0.0, (0.1, 2)) == Colours()


def test_what_is_new_leaves_the_draws_of_the_rest_alone():
    given = {"colour": True, "crop": True, "mirror": True, "scale": (0.5, 2)}
    boxes = np.array([[10, 20, 40, 50.0]])
    for seed in range(10):
        before, after = (
            augment.augment(np.random.default_rng(seed), SIZE, boxes, **given, **new)
            for new in ({}, {"rotate": 1e-9, "blur": 1.0})
        )
        assert after[0]._replace(blur=0.0) == before[0]
        np.testing.assert_allclose(after[1].matrix, before[1].matrix, atol=1e-6)
