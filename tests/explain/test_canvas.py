"""What is climbed, and what calms it: spectra, ranges, moves, blur, variation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import key

from detjax.errors import UserError
from detjax.explain import canvas, goals, smooth
from detjax.nn.images import STATISTICS, normalize
from detjax.types import Inputs

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_a_spectrum_is_a_sum_of_waves(size):
    """Of one number each: cosine waves whose height falls with the frequency."""
    h, w = size
    made = canvas.spectrum(size)
    colours = canvas.COLOURS / np.linalg.norm(canvas.COLOURS, axis=0).max()
    y, x = np.mgrid[:h, :w]
    for row, column, colour in ((1, 0, 0), (2, 1, 2), (0, 0, 1)):
        numbers = np.zeros((h, w // 2 + 1, 3, 2), np.float32)
        numbers[row, column, colour, 0] = 0.5
        cycles = np.hypot(row / h, column / w) or 1 / max(h, w)
        # A column between 0 and the last stands for its mirror image too; of rows in
        # column 0 only the real part of one of the pair is given.
        both = 2 if column else 1
        waves = both * np.cos(2 * np.pi * (row * y / h + column * x / w))
        waves *= 0.5 * (h * w) ** 0.5 / cycles / (h * w) / 4
        expected = 1 / (1 + np.exp(-waves[..., None] * colours[:, colour]))
        np.testing.assert_allclose(made.picture(numbers), expected, atol=1e-5)


def test_pictures_start_near_grey_and_stay_in_range():
    for name, make in canvas.CANVASES.items():
        made = make((16, 24))
        start = made.picture(made.start(key()))
        assert start.shape == (16, 24, 3)
        assert 0.005 < np.abs(start - 0.5).max() < 0.45, name
        wild = made.picture(1e3 * made.start(key()))
        assert wild.min() >= 0 and wild.max() <= 1
        assert wild.min() < 0.01 and wild.max() > 0.99


def predict(kind):
    return lambda params, state, inputs: normalize(inputs.images, kind)


@pytest.mark.parametrize("kind", STATISTICS)
def test_the_span_is_that_of_files(kind):
    low, high = canvas.span(predict(kind), {}, {}, Inputs(np.zeros((2, 4, 4, 3), "u1")))
    mean, std = map(np.array, STATISTICS[kind])
    np.testing.assert_allclose(low, -mean / std, rtol=1e-6)
    np.testing.assert_allclose(high, (255 - mean) / std, rtol=1e-6)


def test_the_span_of_normalised_images_is_imagenet_s_and_blind_models_are_named():
    images = Inputs(np.zeros((1, 4, 4, 3), np.float32))
    low, high = canvas.span(predict("normalized"), {}, {}, images)
    np.testing.assert_allclose(low[0], -123.675 / 58.395, rtol=1e-6)
    np.testing.assert_allclose(high[2], (255 - 103.53) / 57.375, rtol=1e-6)
    blind = Inputs(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="does not normalise"):
        canvas.span(lambda params, state, inputs: inputs.images, {}, {}, blind)


def test_a_picture_as_bytes():
    found = canvas.as_bytes(np.array([-0.2, 0, 0.5, 1, 7]))
    assert found.tolist() == [0, 0, 128, 255, 255] and found.dtype == np.uint8


def test_jitter_is_a_roll_by_no_more_than_asked():
    picture = RNG.uniform(size=(9, 11, 3)).astype(np.float32)
    seen = set()
    for seed in range(20):
        found = smooth.moved(picture, jax.random.key(seed), 2, 0.0)
        by = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if np.array_equal(found, np.roll(picture, (dy, dx), (0, 1)))
        ]
        assert len(by) == 1
        seen.add(by[0])
    assert len(seen) > 8


def test_a_stretch_keeps_the_middle_and_what_is_even():
    ramp = np.arange(15, dtype=np.float32)[:, None, None] * np.ones((1, 11, 3), "f4")
    factors = []
    for seed in range(20):
        found = np.asarray(smooth.moved(ramp, jax.random.key(seed), 0, 0.5))
        assert np.ptp(found, axis=(1, 2)).max() < 1e-5
        middle = found[:, 0, 0]
        assert middle[7] == pytest.approx(7, abs=1e-4)
        slope = middle[8] - middle[7]
        # What is enlarged by a factor rises that much more slowly.
        np.testing.assert_allclose(
            middle, np.clip(7 + slope * (np.arange(15) - 7), 0, 14), atol=1e-3
        )
        factors.append(1 / slope)
    assert min(factors) >= 1 / 1.5 - 1e-3 and max(factors) <= 1.5 + 1e-3
    assert min(factors) < 0.85 and max(factors) > 1.15


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_a_blur_is_a_weighted_mean_of_what_is_inside(sigma):
    picture = RNG.uniform(size=(6, 5, 3))
    expected = np.zeros_like(picture)
    for y in range(6):
        for x in range(5):
            apart = (np.arange(6)[:, None] - y) ** 2 + (np.arange(5)[None] - x) ** 2
            weights = np.exp(-apart / (2 * sigma**2))
            expected[y, x] = (weights[..., None] * picture).sum((0, 1)) / weights.sum()
    np.testing.assert_allclose(smooth.blurred(picture, sigma), expected, atol=1e-5)
    np.testing.assert_allclose(smooth.blurred(picture, 0.0), picture, atol=1e-6)


def test_variation_and_norm_by_hand():
    picture = np.zeros((3, 2, 3), np.float32)
    picture[1] = 1
    # Down: 4 of 4 pairs differ by 1; across: none.
    assert smooth.variation(picture) == pytest.approx(1.0)
    assert smooth.variation(picture.transpose(1, 0, 2)) == pytest.approx(1.0)
    found = smooth.unit(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(found, np.array([3, 4]) / np.sqrt(12.5), rtol=1e-6)
    assert not smooth.unit(jnp.zeros(5)).any()


def test_goals_by_hand():
    x = jnp.float32(RNG.normal(size=(2, 3, 5, 4)))
    held, units = {"a": x, "b": x[:, 0, 0]}, jnp.array([3, 1])
    whole = goals.channel("a").amount(None, held, units)
    expected = [x[0, ..., 3].mean(), x[1, ..., 1].mean()]
    np.testing.assert_allclose(whole, expected, rtol=1e-5)
    centre = goals.channel("a", "centre").amount(None, held, units)
    np.testing.assert_allclose(centre, [x[0, 1, 2, 3], x[1, 1, 2, 1]])
    flat = goals.channel("b").amount(None, held, units)
    np.testing.assert_allclose(flat, [x[0, 0, 0, 3], x[1, 0, 0, 1]])
    both = goals.mixed([goals.energy("a"), goals.channel("b")], [2, -1])
    assert both.layers == ("a", "b")
    expected = (x**2).mean(axis=(1, 2, 3)) - flat
    np.testing.assert_allclose(both.amount(None, held, units), expected, rtol=1e-5)
    with pytest.raises(UserError, match="1 weights are given for 2 layers"):
        goals.mixed([goals.energy("a"), goals.energy("b")], [1])
