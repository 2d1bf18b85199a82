"""Reduced pictures lie where whole ones do, and are no smaller than they are seen."""

import cv2
import jax
import numpy as np
import pytest
from test_loader import prepare

from detjax.data import example, frames, pixels, reduced, views
from detjax.data.records import Annotation, Record
from detjax.data.sizing import Resize
from detjax.errors import UserError

# Sizes that no factor divides, and one that all do.
SIZES = ((333, 501), (320, 512))


def picture(size, sigma=6):
    """A smooth picture, and its mean values at any scale."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma).astype(np.float32)
    low, high = smooth.min(), smooth.max()
    return np.uint8((smooth - low) / (high - low) * 255)


def jpeg(image, quality=98):
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[..., ::-1], flags)[1].tobytes()


def test_the_factor_leaves_no_pixel_to_be_magnified():
    for scale, expected in (
        (1, 1),
        (0.51, 1),
        (0.5, 2),
        (0.26, 2),
        (0.25, 4),
        (0.13, 4),
        (0.125, 8),
        (0.01, 8),
        (3, 1),
    ):
        assert reduced.factor(frames.scaling(scale, scale / 2)) == expected
        assert reduced.factor(frames.scaling(-scale / 3, scale, 5, 7)) == expected
        turned = frames.rotation(30, (9, 4)) @ frames.scaling(scale, scale)
        assert reduced.factor(turned) == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("by", [1, 2, 4, 8])
def test_a_reduced_pixel_is_the_mean_of_its_block(size, by):
    image = picture(size)
    padded = np.pad(image, ((0, -size[0] % by), (0, -size[1] % by), (0, 0)), "edge")
    h, w = reduced.size(size, by)
    means = padded.reshape(h, by, w, by, 3).mean(axis=(1, 3))
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    for data in (jpeg(image), png):
        found = reduced.decode(data, by)
        assert found.shape == (h, w, 3)
        whole = (slice(size[0] // by), slice(size[1] // by))
        difference = np.abs(found[whole].astype(float) - means[whole])
        # In RGB, and to within half a grey value where no JPEG rounds.
        assert difference.mean() < (3 if data.startswith(b"\xff\xd8") else 0.51)


def shift(a, b):
    """By how many pixels (y, x) picture `b` is moved against `a`, below a pixel."""
    a, b = (x[2:-2, 2:-2].astype(np.float64) for x in (a, b))
    gradients = np.stack([g.ravel() for g in np.gradient(a, axis=(0, 1))], axis=1)
    return -np.linalg.lstsq(gradients, (b - a).ravel(), rcond=None)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sides", [(160, 250), (80, 120), (40, 60)])
def test_an_input_shows_the_same_at_the_same_place(size, sides):
    image = picture(size, sigma=10)
    box = (101.0, 55.0, 301.0, 255.0)
    one = Record(1, "a.jpg", *size, image=jpeg(image))
    one.truth = [Annotation(1, box, 0, 1.0)]
    steps = prepare(size=None, mask_stride=None)
    full = prepare(size=None, mask_stride=None, reduced=False)
    augmented = prepare(size=None, mask_stride=None, augment={"scale": (0.7, 0.7)})
    batches = []
    for how, rng in ((full, None), (steps, None), (augmented, 0)):
        batch = how.empty(1, sides)
        rng = rng if rng is None else np.random.default_rng(rng)
        how.fill(batch, 0, one, Resize(sides, False), rng)
        batches.append(batch)
    a, b, c = batches
    np.testing.assert_array_equal(a.inputs.view.affine, b.inputs.view.affine)
    np.testing.assert_array_equal(a.target.boxes, b.target.boxes)
    images = [x.inputs.images[0] for x in batches]
    assert np.abs(shift(images[0], images[1])).max() < 0.05
    assert np.abs(images[0].astype(int) - images[1]).mean() < 5
    # What is drawn by another matrix lies where that matrix says.
    affine = np.vstack([c.inputs.view.affine[0], [0, 0, 1]]).astype(np.float64)
    expected = views.move_pixels(image, affine, sides)
    assert reduced.factor(affine) > 1
    inside = (images[2] != views.FILL).any(axis=2)
    assert np.abs(expected.astype(int) - images[2])[inside].mean() < 5
    assert np.abs(shift(expected, images[2])).max() < 0.1
    moved = frames.move_boxes(np.array([box]), affine)
    np.testing.assert_allclose(c.target.boxes[0, :1], moved, atol=1e-3)


def test_a_prediction_sees_what_an_evaluation_sees():
    image = picture(SIZES[0])
    stored = pixels.rgb(jpeg(image))
    one = Record(1, "a.jpg", *SIZES[0], image=jpeg(image))
    got = prepare(size=(60, 90), mask_stride=None)(one)
    matrix = np.vstack([got.inputs.view.affine, [0, 0, 1]]).astype(np.float64)
    found = reduced.move_pixels(stored, matrix, (60, 90))
    assert np.abs(found.astype(int) - got.inputs.images).mean() < 2


def test_a_picture_of_another_size_than_its_record_is_named():
    one = Record(1, "a.jpg", 300, 501, image=jpeg(picture(SIZES[0])))
    with pytest.raises(
        UserError, match=r"333 x 501 pixels .*, its record says 300 x 501"
    ):
        prepare(size=(60, 90))(one)


def test_a_cleared_row_is_an_empty_one():
    image = picture(SIZES[0])
    one = Record(1, "a.jpg", *SIZES[0], image=jpeg(image))
    one.truth = [Annotation(1, (10, 10, 300, 300), 2, 1.0)]
    one.proposals = np.array([[1, 2, 300, 200]], np.float32)
    steps = prepare(size=(60, 90), max_proposals=3)
    batch = steps.empty(2, (60, 90))
    steps.fill(batch, 1, one, Resize((60, 90), False))
    batch.target.masks[1, 0] = 1
    assert batch.inputs.proposals.valid[1].any()
    batch.skipped[1] = 5
    steps.clear(batch, 1)
    expected = steps.empty(2, (60, 90))
    expected.inputs.images[:] = batch.inputs.images
    jax.tree.map(np.testing.assert_array_equal, expected, batch)


def test_decode_is_the_whole_picture():
    data = jpeg(picture(SIZES[0]))
    np.testing.assert_array_equal(example.decode(data), pixels.rgb(data))
