"""Pictures that units answer to most: where the ascent ends, and what lots change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import key
from jax import lax

from detjax.errors import UserError
from detjax.explain import goals, layers
from detjax.explain.maximise import maximise
from detjax.nn.images import normalize
from detjax.nn.observe import site
from detjax.types import Inputs

SIZE = 12, 10
BLANK = Inputs(np.zeros((1, *SIZE, 3), np.uint8))
STILL = {"jitter": 0, "scale": 0.0}


def linear(params, state, inputs):
    """Inner products [b u] with templates [u h w 3], and a map of them by place."""
    x = normalize(inputs.images)
    found = jnp.einsum("bhwc,uhwc->bhwu", x, params)
    return site("products", found).sum(axis=(1, 2))


def class_score(answers, labels):
    return jnp.take_along_axis(answers, labels, axis=1)


def templates(count):
    return np.sign(np.random.default_rng(0).normal(size=(count, *SIZE, 3))) + 0.0


@pytest.mark.parametrize(
    "goal", [goals.score(class_score), goals.channel("products")], ids=["score", "unit"]
)
def test_of_a_linear_network_the_picture_is_its_template(goal):
    """Black where the weight is below 0, white where it is above: nothing is more."""
    params, units = templates(3), jnp.array([2, 0])
    climb = jax.jit(maximise(linear, goal, canvas="pixels", steps=60, **STILL))
    found, amounts = climb(params, {}, BLANK, units, key())
    np.testing.assert_allclose(found, params[np.asarray(units)] > 0, atol=1e-6)
    shown = Inputs(np.uint8(255 * np.asarray(found)))
    products = linear(params, {}, shown)[jnp.arange(2), units]
    if goal.layers:
        products /= SIZE[0] * SIZE[1]  # a unit's amount is the mean over places
    np.testing.assert_allclose(amounts, products, rtol=1e-5)


def small(params, state, inputs):
    """Two convolutions."""
    x = normalize(inputs.images)
    for name, kernel, stride in zip("ab", params, (2, 1), strict=True):
        how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        x = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", **how)
        x = jax.nn.relu(site(name, x))
    return x.mean(axis=(1, 2))


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    params = [np.float32(rng.normal(size=(3, 3, *n)) / 5) for n in ((3, 8), (8, 8))]
    return small, params, {}, Inputs(np.zeros((1, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("canvas", ["spectrum", "pixels"])
def test_a_unit_s_picture_does_not_depend_on_those_beside_it(net, canvas):
    predict, *given = net
    goal = goals.channel("b", "centre")
    how = {"canvas": canvas, "steps": 6, "jitter": 3, "scale": 0.2}
    together = jax.jit(maximise(predict, goal, chunk=3, **how))
    alone = jax.jit(maximise(predict, goal, chunk=1, **how))
    units = jnp.array([5, 1, 7, 2])  # in lots of two, or of one
    found, amounts = together(*given, units, key())
    others, same = alone(*given, units[::-1], key())
    assert found.shape == (4, 16, 16, 3)
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found, others[::-1], atol=2e-3)
    np.testing.assert_allclose(amounts, same[::-1], rtol=2e-2, atol=1e-3)
    drawn, _ = together(*given, units, jax.random.key(1))
    assert np.abs(drawn - found).max() > 0.05


@pytest.mark.parametrize("canvas", ["spectrum", "pixels"])
def test_units_answer_more_than_to_noise(net, canvas):
    predict, params, state, inputs = net
    goal, units = goals.channel("b"), jnp.arange(4)
    climb = maximise(predict, goal, canvas=canvas, steps=40, jitter=2, chunk=4)
    _, amounts = jax.jit(climb)(params, state, inputs, units, key())
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    see = layers.seen(predict, goal.layers)
    answers, held = jax.jit(see)(params, state, Inputs(noise))
    for unit in range(4):
        drawn = goal.amount(answers, held, jnp.full(8, unit))
        assert amounts[unit] > drawn.max(), unit


def test_decay_variation_and_blur_calm_a_picture():
    climbed = functools.partial(
        maximise, linear, goals.score(class_score), canvas="pixels", steps=20, **STILL
    )
    params = templates(1)

    def rough(**how):
        found, _ = jax.jit(climbed(**how))(params, {}, BLANK, jnp.array([0]), key())
        return float(jnp.abs(jnp.diff(found[0], axis=0)).mean())

    plain = rough()
    # The products are thousands, variation is below one.
    assert rough(variation=1e7) < 0.2 * plain
    assert rough(blur=1.0) < 0.6 * plain
    assert rough(decay=1.0) < 1e-3 * plain


def test_memory_does_not_grow_with_the_number_of_units(net):
    predict, *given = net
    goal = goals.channel("b")
    climb = jax.jit(maximise(predict, goal, steps=2, chunk=2))

    def held(count):
        units = jax.ShapeDtypeStruct((count,), jnp.int32)
        found = climb.lower(*given, units, key()).compile().memory_analysis()
        return found.temp_size_in_bytes

    outputs = 12 * 16 * 16 * 3 * 4
    assert held(16) < held(4) + 2 * outputs


def test_what_cannot_be_climbed_is_said(net):
    predict, *given = net
    for layer, units, said in (
        ("B", [0], "no layer called 'B'; the nearest are"),
        ("b", [3, 8], "has the units 0 to 7; 8 is none"),
        ("b", [-1, 3], "has the units 0 to 7; -1 is none"),
    ):
        with pytest.raises(UserError, match=said):
            goals.check(predict, *given, goals.channel(layer), units)
