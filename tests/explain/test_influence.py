"""Influence of layers and units, against loops and by what must add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import drawn, first, logits, predict, rectified

from detjax.errors import UserError
from detjax.explain import attribution, influence, paths, units
from detjax.types import Inputs, View


def at(given, point, baseline=0.0):
    images = baseline + point * (np.asarray(given[2].images) - baseline)
    return (*given[:2], Inputs(jnp.asarray(images)))


def test_a_difference_is_of_two_quantities():
    given = drawn()
    found = influence.difference(lambda a: a.logits[:, :2])(predict(*given))
    assert found.shape == (2, 1)
    values = predict(*given).logits
    np.testing.assert_allclose(found[:, 0], values[:, 0] - values[:, 1])
    with pytest.raises(UserError, match="there are 3"):
        influence.difference(logits)(predict(*given))


def test_internal_influence_is_the_mean_slope_of_the_line():
    given = drawn()
    line = paths.quadrature("riemann_trapezoid", 4)
    call = influence.internal(rectified, logits, "one", "riemann_trapezoid", 4, chunk=3)
    slope = attribution.gradient(rectified, logits, "one")
    expected = sum(
        weight * np.asarray(slope(*at(given, point, 0.5)))
        for point, weight in zip(*line, strict=True)
    )
    np.testing.assert_allclose(call(*given, 0.5), expected, rtol=1e-5, atol=1e-6)


def test_conductance_is_slopes_times_changes():
    given = drawn()
    found = influence.conductance(predict, first, "one", "gausslegendre", 3)(*given)
    points = paths.quadrature("gausslegendre", 4).points
    kernel = given[0]["one"]["kernel"]
    values = [np.asarray(at(given, p)[2].images) @ kernel for p in points]
    slopes = [
        np.asarray(attribution.gradient(predict, first, "one")(*at(given, p))[0])
        for p in points
    ]
    expected = sum(slopes[k] * (values[k + 1] - values[k]) for k in range(3))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)


def test_what_goes_through_all_units_is_all_there_is():
    # The chain rule: pixels owe to a quantity what they owe to it through each unit.
    given = drawn()
    how = "riemann_trapezoid", 3
    whole = paths.integrated(rectified, logits, rule=how[0], steps=how[1])(*given, 0.5)

    def through(place):
        call = influence.through_unit(rectified, logits, "one", place, *how)
        return call(*given, 0.5)

    places = jnp.stack(
        [x.ravel() for x in jnp.meshgrid(*map(jnp.arange, (5, 6, 4)))], axis=1
    )
    parts = jax.jit(
        lambda: jax.lax.map(lambda p: through((p[0], p[1], p[2])), places)
    )()
    np.testing.assert_allclose(parts.sum(axis=0), whole, rtol=1e-3, atol=1e-5)


def test_the_gradient_of_one_unit():
    given = drawn()
    found = influence.of_unit(predict, "hidden", (2, 3, 1))(*given)
    images, kernel = np.asarray(given[2].images), given[0]["one"]["kernel"]
    expected = np.zeros_like(images)
    expected[:, 2, 3] = 2 * (images[:, 2, 3] @ kernel[:, 1:2]) * kernel[:, 1]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)


def batch(images, valid):
    count = len(images)
    view = View(np.zeros((count, 2, 3)), np.zeros((count, 2)), np.asarray(valid))
    return Inputs(jnp.asarray(images), view)


def test_a_class_is_the_mean_of_its_images_and_padding_counts_nothing():
    params, state, inputs = drawn(b=3)
    images = np.array(inputs.images)
    call = attribution.gradient(predict, logits, "one")
    whole = np.asarray(call(params, state, inputs)).mean(axis=1)
    junk = np.full_like(images[:1], np.nan)
    batches = [
        batch(images[:2], [True, True]),
        batch(np.concatenate([images[2:], junk]), [True, False]),
    ]
    found = influence.over(call, params, state, batches)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-7)
    with pytest.raises(UserError, match="no image"):
        influence.over(call, params, state, [batch(images[:1], [False])])


def test_units_look_where_they_answer_most():
    params, state, inputs = drawn()
    images = 0.1 * np.array(inputs.images)
    images[0, 3, 1] = params["one"]["kernel"][:, 2]
    images[1, 4, 5] = params["one"]["kernel"][:, 2]
    given = params, state, Inputs(jnp.asarray(images))
    channels = jnp.array([2, 0])
    found = jax.jit(units.looks(predict, "hidden"))(*given, channels)
    np.testing.assert_array_equal(found.places[0], [[3, 1], [4, 5]])
    hidden = (images @ params["one"]["kernel"]) ** 2
    np.testing.assert_allclose(
        found.values, hidden.max(axis=(1, 2))[:, [2, 0]].T, rtol=1e-4
    )
    slope = np.asarray(found.gradients[0])
    away = np.ones((2, 5, 6), bool)
    away[0, 3, 1] = away[1, 4, 5] = False
    assert not slope[away].any()
    assert np.abs(slope[0, 3, 1]).max() > 0


def test_channels_are_summed_over_places_and_ranked():
    found = units.by_channel(jnp.ones((2, 3, 5, 6, 4)))
    np.testing.assert_array_equal(found, np.full((2, 3, 4), 30.0))
    assert units.by_channel(jnp.ones((2, 3, 4))).shape == (2, 3, 4)
    order = units.ranked([0.5, 2.0, -1.0, 2.0])
    np.testing.assert_array_equal(order, [1, 3, 0, 2])
    np.testing.assert_array_equal(units.ranks(order), [2, 0, 3, 1])


def test_other_channels_are_zeroed():
    params, state, inputs = drawn()
    mask = jnp.array([1.0, 0.0, 1.0, 0.0])
    found = units.kept(predict, "hidden")(params, state, inputs, mask).logits
    params["two"]["kernel"] = params["two"]["kernel"] * np.array(mask)[:, None]
    np.testing.assert_allclose(found, predict(params, state, inputs).logits, rtol=1e-5)


def test_one_unit_suffices_where_it_decides():
    # Units are the three colours; class 0 is red, whatever the others are.
    params = {
        "one": {"kernel": np.eye(3, dtype="f")},
        "two": {"kernel": np.array([[1, 0], [0, 0], [0.001, 0]], "f")},
    }
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (8, 5, 6, 3)).astype("f")
    labels = np.array([0, 1, 0, 1, 1, 0, 1, -1])
    images[labels == 0, ..., 0] += 2
    images[labels == 1, ..., 2] += 3
    batches = [
        (Inputs(jnp.asarray(images[:5])), labels[:5]),
        (Inputs(jnp.asarray(images[5:])), labels[5:]),
    ]
    found = units.sufficient(
        predict,
        "hidden",
        params,
        {},
        batches,
        0,
        {"right": [0, 1, 2], "wrong": [2, 1, 0]},
        [0, 1, 2, 3],
        lambda answers: answers.logits[:, 0],
        chunk=3,
    )
    np.testing.assert_array_equal(found.accuracy["right"], [0.5, 1, 1, 1])
    np.testing.assert_array_equal(found.accuracy["wrong"], [0.5, 0.5, 0.5, 1])
    np.testing.assert_array_equal(found.pairs["right"], [0.5, 1, 1, 1])
    np.testing.assert_array_equal(found.pairs["wrong"], [0.5, 0, 0, 1])
    with pytest.raises(UserError, match="0 of others"):
        units.sufficient(
            *(predict, "hidden", params, {}, [(batches[0][0], np.zeros(5))], 0),
            *({"right": [0, 1, 2]}, [1], lambda answers: answers.logits[:, 0]),
        )


def test_a_detector_is_judged_as_by_brute_force():
    rng = np.random.default_rng(0)
    own, others = rng.integers(3, 9, 7), rng.integers(0, 7, 11)
    pairs = [(a > b) + 0.5 * (a == b) for a in own for b in others]
    assert units._ordered(own, others) == pytest.approx(np.mean(pairs))
    best = max(((own >= t).mean() + (others < t).mean()) / 2 for t in np.arange(-1, 11))
    assert units._divided(own, others) == pytest.approx(best)
