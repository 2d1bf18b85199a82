"""Measures of attributions, by hand and against scipy and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import drawn, first, predict, rectified
from scipy import stats

from detjax.errors import UserError
from detjax.explain import attribution
from detjax.explain.measures import comparison, curves, pointing, randomised
from detjax.explain.methods import METHODS, signed
from detjax.nn.images import NORMALIZED, normalize
from detjax.ops import masks
from detjax.types import Explained, Inputs, Scores, Subject


def total(params, state, inputs):
    """The sum of an image's first channel."""
    x = normalize(inputs.images, NORMALIZED)
    return Scores(x[..., 0].sum(axis=(1, 2))[:, None])


def score(answers):
    return answers.scores


def test_areas_are_those_of_trapezoids():
    np.testing.assert_allclose(curves.area(jnp.array([[0.0, 1.0], [1, 1]])), [0.5, 1])
    rng = np.random.default_rng(0).random(6)
    expected = np.trapezoid(rng, dx=0.2)
    np.testing.assert_allclose(curves.area(jnp.asarray(rng)), expected, rtol=1e-6)


def test_pixels_go_by_falling_value():
    maps = jnp.array([[[3.0, 1], [2, 3]]])
    np.testing.assert_allclose(curves.places(maps), [[[0, 0.75], [0.5, 0.25]]])


def test_curves_of_a_sum_by_hand():
    values = np.array([[4.0, 1, 3, 2]], np.float32)
    images = np.zeros((1, 1, 4, 3), np.float32)
    images[0, 0, :, 0] = values
    call = curves.curves(total, score, steps=4, sigma=1e-3, chunk=2)
    given = {}, {}, Inputs(jnp.asarray(images))
    found = jax.jit(call)(*given, jnp.asarray(values[None]))
    # A blur of no width leaves the image, so that nothing is inserted.
    np.testing.assert_allclose(found.insertion, [[10.0] * 5], rtol=1e-6)
    np.testing.assert_allclose(found.deletion, [[10.0, 6, 3, 1, 0]], atol=1e-5)
    worst = call(*given, -jnp.asarray(values[None]))
    np.testing.assert_allclose(worst.deletion, [[10.0, 9, 7, 4, 0]], atol=1e-5)
    np.testing.assert_allclose(worst.areas()[1], [(5 + 9 + 7 + 4) / 4], rtol=1e-5)


def test_insertion_goes_from_the_blurred_image_to_the_image():
    given = drawn()
    maps = jnp.asarray(np.random.default_rng(1).random((2, 5, 6)))
    found = curves.curves(predict, first, steps=3, sigma=1.0)(*given, maps)
    blurred = curves.blur(given[2].images, 1.0)
    ends = [first(predict(*given[:2], Inputs(x))) for x in (blurred, given[2].images)]
    np.testing.assert_allclose(found.insertion[:, [0, -1]], np.hstack(ends), rtol=1e-5)


def test_blur_is_a_gaussian_that_keeps_what_is_even():
    even = jnp.full((1, 7, 9, 2), 3.0)
    np.testing.assert_allclose(curves.blur(even, 2.0), even, rtol=1e-6)
    point = jnp.zeros((1, 31, 31, 1)).at[0, 15, 15].set(1.0)
    found = np.asarray(curves.blur(point, 2.0))[0, ..., 0]
    y, x = np.mgrid[-15:16, -15:16]
    expected = np.exp(-(x**2 + y**2) / 8)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=2e-4)


def test_points_hit_within_the_margin():
    maps = np.zeros((3, 20, 20), np.float32)
    maps[0, 5, 5] = maps[1, 5, 12] = maps[2, 5, 14] = 1
    truth = np.zeros((3, 20, 20), bool)
    truth[:, 3:8, 3:8] = True
    found = pointing.hits(jnp.asarray(maps), jnp.asarray(truth), margin=5)
    np.testing.assert_array_equal(found, [True, True, False])
    strict = pointing.hits(jnp.asarray(maps), jnp.asarray(truth), margin=0)
    np.testing.assert_array_equal(strict, [True, False, False])


def test_the_share_of_positive_values_inside():
    maps = jnp.array([[[1.0, 3], [-9, 0]], [[0, -1], [-1, 0]]])
    truth = jnp.array([[[True, False], [True, True]]] * 2)
    np.testing.assert_allclose(pointing.share_inside(maps, truth), [0.25, 0])


def test_boxes_cover_the_centres_of_pixels():
    boxes = np.array([[[1, 0, 3, 2], [0, 0, 9, 9]]], np.float32)
    valid = np.array([[True, False]])
    found = np.asarray(masks.of_boxes(boxes, valid, (3, 4)))
    expected = np.zeros((1, 3, 4), bool)
    expected[0, :2, 1:3] = True
    np.testing.assert_array_equal(found, expected)


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, (2, 3, 40)).astype("f")  # many equal values
    found = randomised.spearman(jnp.asarray(one), jnp.asarray(other))
    expected = [
        stats.spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert randomised.spearman(jnp.ones(9), jnp.arange(9.0)) == 0


def test_layers_are_randomised_one_by_one_and_together():
    params, state, inputs = drawn()
    fresh = drawn(seed=7)[0]
    names = ["two", "one"]
    both = fresh, state
    maps = signed(attribution.gradient(predict, first))

    def alike(mixed):
        a, b = (
            np.abs(maps(p, state, inputs)[0]).reshape(2, -1) for p in (params, mixed)
        )
        return [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]

    for cascade in (True, False):
        call = randomised.correlations(maps, names, cascade=cascade)
        found = jax.jit(call)(params, state, both, inputs)
        second = fresh if cascade else {**params, "one": fresh["one"]}
        expected = [alike({**params, "two": fresh["two"]}), alike(second)]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        # Those before it are drawn anew too where they are not tried.
        call = randomised.correlations(maps, names, [1], cascade)
        np.testing.assert_allclose(
            call(params, state, both, inputs), found[1:], atol=1e-5
        )
    same = randomised.correlations(maps, names)
    same = same(params, state, (params, state), inputs)
    np.testing.assert_allclose(same, 1, atol=1e-5)
    with pytest.raises(UserError, match="three have no weights"):
        randomised.correlations(maps, ["three"])(params, state, both, inputs)


def test_layers_with_weights_come_last_first():
    # "hidden" and the images have none.
    assert randomised.weighted_layers(predict, *drawn()) == ["two", "one"]


def test_methods_are_told_apart():
    params, state, inputs = drawn(b=6)
    fresh = drawn(seed=7)[0]
    labels = np.array([0, 1, 2, 0, 1, -1])
    truth = np.ones((6, 5, 6), bool)

    def logit(answers, labels):
        return jnp.take_along_axis(answers.logits, labels[:, None], axis=1)

    found = comparison.compared(
        predict,
        params,
        state,
        (fresh, state),
        [
            (
                jax.tree.map(lambda x, rows=rows: x[rows], inputs),
                Subject(labels[rows], labels[rows] >= 0, truth[rows]),
            )
            for rows in (slice(3), slice(3, 6))
        ],
        {name: METHODS[name] for name in ("gradient_x_input", "chance")},
        Explained(lambda *_: None, logit, logit),
        ["two", "one"],
        [0, 1],
        steps=6,
    )
    assert found.images == 5
    assert [*found.table] == ["gradient_x_input", "chance"]
    better, chance = found.table.values()
    assert better["deletion"] < chance["deletion"]
    assert better["insertion"] > chance["insertion"]
    assert chance["cascading"] == chance["independent"] == pytest.approx(1)
    assert abs(better["cascading"]) < 0.9
    assert better["pointing"] == chance["pointing"] == 1
    assert chance["inside"] == pytest.approx(1)
    assert found.curves["chance"].deletion.shape == (7,)
    with pytest.raises(UserError, match="no image with something"):
        comparison.compared(
            *(
                predict,
                params,
                state,
                (fresh, state),
                [(inputs, Subject(labels, labels > 9, None))],
            ),
            *({"chance": METHODS["chance"]}, None, []),
        )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_map_of_the_input(name):
    given = drawn()
    found = METHODS[name](rectified, first)(*given)
    assert found.shape == (1, 2, 5, 6)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0
