"""What layers return as pictures, and the patches that units answer to most."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from detjax.errors import UserError
from detjax.explain import activations, patches
from detjax.nn.images import normalize
from detjax.nn.observe import site
from detjax.types import Inputs

RNG = np.random.default_rng(0)


def test_channels_are_scaled_alike():
    x = np.zeros((2, 2, 3), np.float32)
    x[0, 0] = [1, 4, 2]
    dark, bright = activations.channels(x, np.array([0, 1]))
    assert dark[0, 0].tolist() == [64] * 3 and bright[0, 0].tolist() == [255] * 3
    assert not dark[1].any()
    x[1, 1, 2] = -8
    signed, _ = activations.channels(x, np.array([2, 0]))
    assert signed[0, 0].tolist() == [64, 0, 0]
    assert signed[1, 1].tolist() == [0, 0, 255]
    assert not activations.channels(0 * x, np.array([1]))[0].any()
    # One value in a thousand does not darken the others.
    many = np.ones((10, 100, 1), np.float32)
    many[3, 4] = 1e4
    assert (activations.channels(many, np.array([0]))[0] == 255).all()


def test_the_busiest_channels_come_first():
    x = np.float32(RNG.normal(size=(4, 5, 6))) * np.array([3, 1, 5, 2, 6, 4])
    which, busy = activations.busiest(jnp.float32(x), 4)
    expected = np.argsort(-np.abs(x).mean(axis=(0, 1)))[:4]
    assert which.tolist() == expected.tolist()
    np.testing.assert_allclose(busy, np.abs(x).mean(axis=(0, 1))[expected], rtol=1e-5)
    assert len(activations.busiest(jnp.float32(x), 99)[0]) == 6


def test_vectors_are_maps_of_one_place_and_others_are_refused():
    assert activations.maps_of(np.zeros(7), "a").shape == (1, 1, 7)
    assert activations.maps_of(np.zeros((2, 3, 7)), "a").shape == (2, 3, 7)
    with pytest.raises(UserError, match=r"'a' returns \(2, 7\)"):
        activations.maps_of(np.zeros((2, 7)), "a")


def test_filters_are_grey_where_they_are_nothing():
    kernel = np.zeros((3, 3, 3, 2))
    kernel[0, 1, :, 1] = [0.5, -0.5, 0.25]
    nothing, found = activations.filters(kernel)
    assert (nothing == 128).all()
    assert found[0, 1].tolist() == [255, 0, 191] and found[2, 2].tolist() == [128] * 3
    with pytest.raises(UserError, match="layers that see colours"):
        activations.filters(np.zeros((3, 3, 4, 2)))


def predict(params, state, inputs):
    """Two convolutions of 3 x 3, the first of stride 2: a place sees 7 x 7 pixels."""
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    x = normalize(inputs.images)
    x = lax.conv_general_dilated(x, params[0], (2, 2), ((1, 1), (1, 1)), **how)
    x = lax.conv_general_dilated(jax.nn.relu(x), params[1], (1, 1), "SAME", **how)
    return site("pooled", site("maps", x).mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def params():
    return [np.float32(RNG.normal(size=(3, 3, *n)) / 3) for n in ((3, 6), (6, 5))]


@pytest.mark.parametrize("layer", ["maps", "pooled"])
def test_patches_are_the_best_of_all_images_one_of_each(params, layer):
    images = RNG.integers(0, 256, (11, 12, 14, 3), np.uint8)
    units, count = jnp.array([4, 0]), 3
    held = patches.nothing(2, count)
    step = jax.jit(patches.strongest(predict, layer))
    for start in range(0, 12, 4):
        numbers = np.arange(start, start + 4)
        # The last row of the last batch is none, though it would be the best of all.
        rows = np.concatenate([images, 255 * (images[:1] > 127)])[numbers]
        numbers = np.where(numbers < 11, numbers, -1)
        held = step(params, {}, Inputs(np.uint8(rows)), units, numbers, held)
    found = []
    with patches.layers.watching(lambda name, x: found.append((name, x)) or x):
        predict(params, {}, Inputs(images))
    x = np.asarray(dict(found)[layer]).reshape(11, -1, 5)
    width = 7 if layer == "maps" else 1
    for row, unit in enumerate([4, 0]):
        best = x[..., unit].max(axis=1)
        order = np.argsort(-best)[:count]
        assert held.images[row].tolist() == order.tolist()
        np.testing.assert_allclose(held.answers[row], best[order], rtol=1e-5)
        at = x[order, :, unit].argmax(axis=1)
        expected = np.stack([at // width, at % width], axis=1)
        assert held.places[row].tolist() == expected.tolist()


def test_of_few_images_the_rest_is_nothing(params):
    step = jax.jit(patches.strongest(predict, "maps"))
    inputs = Inputs(RNG.integers(0, 256, (2, 12, 12, 3), np.uint8))
    held = patches.nothing(1, 4)
    found = step(params, {}, inputs, jnp.array([1]), jnp.array([0, -1]), held)
    assert found.images.tolist() == [[0, -1, -1, -1]]
    assert np.isfinite(found.answers[0]).tolist() == [True, False, False, False]


def test_a_receptive_field_by_arithmetic(params):
    """Of stride 2 and padding 1: place p sees pixels 2 p - 3 to 2 p + 3."""
    inputs = Inputs(RNG.integers(0, 256, (1, 20, 24, 3), np.uint8))
    call = jax.jit(patches.receptive(predict, "maps", (10, 12)))
    for y, x in ((5, 6), (4, 3), (0, 11)):
        found = call(params, {}, inputs, jnp.array([y, x]))
        expected = [2 * x - 3, 2 * y - 3, 2 * x + 4, 2 * y + 4]
        limits = [24, 20, 24, 20]
        assert found.tolist() == np.clip(expected, 0, limits).tolist()
