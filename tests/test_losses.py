"""Losses against their definitions in float64, their gradients, and their masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax import losses

rng = np.random.default_rng(0)


def test_masked_mean_ignores_what_is_masked():
    values, mask = np.float32([1, 2, np.inf, 5]), np.array([True, True, False, False])
    assert losses.masked_mean(values, mask) == 1.5
    gradient = jax.grad(losses.masked_mean)(values, mask)
    np.testing.assert_array_equal(gradient, [0.5, 0.5, 0, 0])


def test_masked_mean_of_nothing_is_zero():
    mask = np.zeros(3, bool)
    assert losses.masked_mean(np.ones(3, np.float32), mask) == 0
    gradient = jax.grad(losses.masked_mean)(np.ones(3, np.float32), mask)
    np.testing.assert_array_equal(gradient, 0)


def test_softmax_cross_entropy_is_its_definition():
    logits = rng.normal(0, 4, (5, 7))
    labels = rng.integers(0, 7, 5)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(probs[np.arange(5), labels])
    got = losses.softmax_cross_entropy(logits.astype("f"), labels)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_sigmoid_cross_entropy_is_its_definition_and_does_not_overflow():
    x, t = rng.normal(0, 4, 50), rng.random(50)
    s = 1 / (1 + np.exp(-x))
    expected = -t * np.log(s) - (1 - t) * np.log(1 - s)
    got = losses.sigmoid_cross_entropy(x.astype("f"), t.astype("f"))
    np.testing.assert_allclose(got, expected, rtol=2e-5)
    far = np.float32([-1e4, 1e4])
    np.testing.assert_array_equal(
        losses.sigmoid_cross_entropy(far, np.float32([1, 0])), [1e4, 1e4]
    )
    slope = jax.grad(lambda x: losses.sigmoid_cross_entropy(x, far * 0).sum())(far)
    np.testing.assert_allclose(slope, [0, 1], atol=1e-6)


@pytest.mark.parametrize("beta", [1.0, 0.11, 0.0])
def test_smooth_l1_is_its_definition(beta):
    a, b = rng.normal(0, 1, 40), rng.normal(0, 1, 40)
    d = abs(a - b)
    expected = np.where(d < beta, 0.5 * d**2 / (beta or 1), d - 0.5 * beta)
    got = losses.smooth_l1(a.astype("f"), b.astype("f"), beta)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_losses_are_float32_whatever_the_logits_are():
    logits = jnp.ones((3, 4), jnp.bfloat16)
    got = losses.softmax_cross_entropy(logits, jnp.zeros(3, jnp.int32))
    assert got.dtype == jnp.float32


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.9, 0.5)])
def test_focal_is_its_definition(alpha, gamma):
    x, t = rng.normal(0, 4, 60), rng.integers(0, 2, 60).astype(float)
    p = 1 / (1 + np.exp(-x))
    positive = -alpha * (1 - p) ** gamma * np.log(p)
    negative = -(1 - alpha) * p**gamma * np.log(1 - p)
    got = losses.focal(x.astype("f"), t.astype("f"), alpha, gamma)
    np.testing.assert_allclose(got, np.where(t, positive, negative), rtol=1e-4)


def test_focal_without_focus_is_half_the_cross_entropy():
    x, t = rng.normal(0, 4, 20).astype("f"), rng.integers(0, 2, 20).astype("f")
    got = losses.focal(x, t, alpha=0.5, gamma=0.0)
    np.testing.assert_allclose(got, losses.sigmoid_cross_entropy(x, t) / 2, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_finite_far_from_its_target_and_near_it(gamma):
    x, t = np.float32([-1e4, 1e4, -1e4, 1e4]), np.float32([1, 0, 0, 1])
    got = losses.focal(x, t, 0.25, gamma)
    np.testing.assert_allclose(got, [2500, 7500, 0, 0])
    slope = jax.grad(lambda x: losses.focal(x, t, 0.25, gamma).sum())(x)
    np.testing.assert_allclose(slope, [-0.25, 0.75, 0, 0], atol=1e-6)


def test_a_weighted_mean_is_torchs_of_weighted_classes():
    """torch.nn.functional.cross_entropy of these, weight=(1, 3, 0.5), is 0.8719557."""
    logits = np.float32([[1, 2, 0], [0, 0.5, -1], [2, 0, 1], [9, 9, 9]])
    labels, classes = np.array([0, 1, 2, 0]), np.float32([1, 3, 0.5])
    values = losses.softmax_cross_entropy(logits, labels)
    real = np.array([True, True, True, False])
    got = losses.weighted_mean(values, classes[labels][:, None], real)
    assert float(got) == pytest.approx(0.8719557)
    plain = float(losses.weighted_mean(values, None, real))
    assert plain == pytest.approx(float(values[:3].mean()))


def test_gaussian_focal_is_cornernets():
    """Equation 1, element by element; beyond the clipped ends nothing is learnt."""
    x = np.array([-20.0, -2.0, -0.5, 0.3, 1.5, 20.0, 0.7, -3.0])
    t = np.array([0.0, 0.0, 0.4, 0.9, 1.0, 1.0, 1.0, 0.999])
    p = np.clip(1 / (1 + np.exp(-x)), 1e-4, 1 - 1e-4)
    hit, miss = (1 - p) ** 2 * np.log(p), (1 - t) ** 4 * p**2 * np.log(1 - p)
    expected = -np.where(t == 1, hit, miss)
    found = losses.gaussian_focal(x, t)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-12)
    slopes = jax.grad(lambda x: losses.gaussian_focal(x, t).sum())(x.astype(np.float32))
    assert slopes[0] == 0
    assert slopes[5] == 0
    step = 1e-6
    for i in (1, 2, 3, 4, 6):
        q = 1 / (1 + np.exp(-(x[i] + np.array([-step, step]))))
        values = -np.where(
            t[i] == 1,
            (1 - q) ** 2 * np.log(q),
            (1 - t[i]) ** 4 * q**2 * np.log(1 - q),
        )
        assert float(slopes[i]) == pytest.approx(np.diff(values)[0] / (2 * step), 1e-3)
