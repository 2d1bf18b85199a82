"""DeepDream: tiles that come back to their places, octaves, and what layers see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from detjax.errors import UserError
from detjax.explain import dream, goals, layers
from detjax.nn.images import normalize
from detjax.nn.observe import site
from detjax.types import Inputs

RNG = np.random.default_rng(0)
SIDE = 16
BLANK = Inputs(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def predict(params, state, inputs):
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    x = normalize(inputs.images)
    x = lax.conv_general_dilated(x, params, (2, 2), "SAME", **how)
    return site("edges", x).mean(axis=(1, 2))


@pytest.fixture(scope="module")
def kernel():
    return np.float32(RNG.normal(size=(3, 3, 3, 4)))


def energy_of(kernel, picture):
    """Of a picture [h w 3] uint8."""
    _, held = layers.seen(predict, ["edges"])(kernel, {}, Inputs(picture[None]))
    return float((held["edges"] ** 2).mean() / 2)


@pytest.mark.parametrize("size", [(16, 16), (40, 23), (9, 50), (33, 16)])
def test_tiles_come_back_to_their_places(size):
    """Under any shift, and in calls of one shape."""
    picture = np.float32(RNG.uniform(size=(*size, 3)))
    shapes = set()

    def climb(tiles):
        shapes.add(tiles.shape)
        return 2 * tiles

    for seed in range(8):
        rng = np.random.default_rng(seed)
        found = dream.tiled(climb, picture, SIDE, 3, rng, 5)
        np.testing.assert_array_equal(found, 2 * picture)
    assert shapes == {(3, SIDE, SIDE, 3)}


def test_borders_of_tiles_are_moved_from_step_to_step():
    """Each place is the first row of a tile in some step."""
    picture = np.zeros((64, 64, 3), np.float32)

    def first_rows(tiles):
        return np.broadcast_to(np.arange(SIDE)[:, None, None] == 0, tiles.shape) + 0.0

    rng, hit = np.random.default_rng(0), np.zeros((64, 64), bool)
    for _ in range(200):
        hit |= dream.tiled(first_rows, picture, SIDE, 4, rng, 0)[..., 0] > 0
    assert hit.all()


def test_a_gradient_is_that_of_each_tile_by_itself(kernel):
    goal = goals.mixed([goals.energy("edges"), goals.channel("edges")], [1, 0.5])
    tiles = np.float32(RNG.uniform(size=(3, SIDE, SIDE, 3)))
    found = np.asarray(dream.gradient(predict, goal)(kernel, {}, BLANK, tiles))
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    for tile, one in zip(tiles, found, strict=True):
        step = np.zeros_like(tile)
        place = (5, 7, 1)
        step[place] = 1e-2

        def amount(x):
            how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
            x = np.float32((255 * x - mean) / std)[None]
            x = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", **how)
            return float((x**2).mean() / 2 + 0.5 * x[..., 0].mean())

        slope = (amount(tile + step) - amount(tile - step)) / 2e-2
        # Gradients are divided by their norm: another place gives the factor.
        other = np.zeros_like(tile)
        other[8, 3, 0] = 1e-2
        norm = (amount(tile + other) - amount(tile - other)) / 2e-2 / one[8, 3, 0]
        assert slope == pytest.approx(one[place] * norm, rel=0.02)
        assert norm > 0
        assert np.mean(np.square(one)) == pytest.approx(1, rel=1e-4)


def test_layers_see_more_in_a_dream_and_its_size_stays(kernel):
    picture = np.uint8(RNG.integers(90, 160, (44, 37, 3)))
    call = jax.jit(dream.gradient(predict, goals.energy("edges")))
    climb = functools.partial(call, kernel, {}, BLANK)
    how = {"side": SIDE, "octaves": 3, "chunk": 2, "steps": 4, "jitter": 4}
    found = dream.dream(climb, picture, **how)
    assert found.shape == picture.shape and found.dtype == np.uint8
    assert energy_of(kernel, found) > 1.5 * energy_of(kernel, picture)
    again = dream.dream(climb, picture, **how)
    np.testing.assert_array_equal(found, again)
    assert (dream.dream(climb, picture, **how, seed=1) != found).any()
    assert call._cache_size() == 1
    with pytest.raises(UserError, match=r"scale=1\.0 does not enlarge"):
        dream.dream(climb, picture, side=SIDE, scale=1.0)


def test_without_a_gradient_a_picture_is_itself():
    """What an octave is too small to hold comes back."""
    picture = np.uint8(RNG.integers(0, 256, (80, 50, 3)))
    found = dream.dream(lambda tiles: 0 * tiles, picture, side=SIDE)
    np.testing.assert_array_equal(found, picture)


def test_octaves_by_hand():
    assert dream.sizes((140, 70), 3, 1.4) == [(71, 36), (100, 50), (140, 70)]
    assert dream.sizes((140, 70), 5, 2.0) == [(70, 35), (140, 70)]
    assert dream.sizes((20, 30), 4, 1.4) == [(20, 30)]


def test_guided_dreams_look_for_the_most_like_feature(kernel):
    x = RNG.normal(size=(2, 3, 4, 5))
    other = RNG.normal(size=(2, 2, 5))
    expected = [
        np.mean([max(p @ g for g in other.reshape(4, 5)) for p in image.reshape(12, 5)])
        for image in x
    ]
    goal = goals.guided("edges", other)
    found = goal.amount(None, {"edges": jnp.float32(x)}, jnp.zeros(2, int))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_walk_enlarges_what_it_has_dreamt():
    picture = np.zeros((41, 61, 3), np.uint8)
    picture[20 - 4 : 20 + 5, 30 - 4 : 30 + 5] = 255
    seen = []

    def dreamt(picture, number):
        seen.append(number)
        return picture

    frames = [*dream.zoom(dreamt, picture, 4, 1.5)]
    assert seen == [0, 1, 2, 3]
    np.testing.assert_array_equal(frames[0], picture)
    sides = [np.sqrt((frame[..., 0] > 127).sum()) for frame in frames]
    np.testing.assert_allclose(sides, 9 * 1.5 ** np.arange(4), rtol=0.1)
