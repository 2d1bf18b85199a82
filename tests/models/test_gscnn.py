"""Gated-SCNN: its losses against slow oracles, and that padding is inert."""

import dense_cases
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax import models
from detjax.errors import UserError
from detjax.models.gscnn import Loss, losses
from detjax.models.gscnn.model import parts

TINY = families.TINY_PIXELS["gscnn"]


@pytest.fixture(scope="module")
def maps():
    """Logits, labels, valid, probabilities of edges and targets of small images."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
    labels = rng.integers(0, 2, (2, 6, 7)).astype(np.int32)
    valid = rng.uniform(size=(2, 6, 7)) > 0.2
    found = rng.uniform(0.1, 0.9, (2, 6, 7)).astype(np.float32)
    return logits, labels, valid, found, rng.uniform(size=(2, 6, 7)) > 0.8


def test_rare_classes_of_an_image_count_more(maps):
    logits, labels, valid, *_ = maps
    total = 0.0
    for x, y, some in zip(logits, labels, valid, strict=True):
        log = np.asarray(jax.nn.log_softmax(x))
        share = np.bincount(y[some], minlength=3) / some.sum()
        weights = np.where(share > 0, 1 + (1 - share), 1)[y][some]
        each = -np.take_along_axis(log, y[..., None], -1)[..., 0][some]
        total += (weights * each).sum() / weights.sum()
    found = losses.weighted(logits, labels, valid)
    np.testing.assert_allclose(found, total, rtol=1e-5)
    assert losses.weighted(logits, labels, np.zeros_like(valid)) == 0


@pytest.mark.parametrize("again", [True, False])
def test_edges_are_balanced(maps, again):
    *_, found, target = maps
    p = 1 / (1 + np.exp(-found)) if again else found
    share = target.mean()
    each = np.where(target, -(1 - share) * np.log(p), -share * np.log(1 - p))
    got = losses.edges(found, target, np.ones(target.shape, bool), again)
    np.testing.assert_allclose(got, each.mean(), rtol=1e-4)


@pytest.mark.parametrize("gradient", ["published", "spatial"])
def test_the_dual_loss_is_small_where_classes_agree(maps, gradient):
    _, labels, valid, *_ = maps
    labels = np.sort(labels, axis=2)
    right = 20 * jax.nn.one_hot(labels, 3)
    everywhere = np.ones(valid.shape, bool)
    kind = {"temperature": 0.5, "gradient": gradient}
    case = (everywhere, everywhere, np.zeros(right.shape, np.float32))
    good = losses.dual(right, labels, *case, **kind)
    moved = losses.dual(np.roll(right, 3, axis=2), labels, *case, **kind)
    assert good < 1e-3
    assert moved > 0.05


def test_the_spatial_gradient_is_that_of_a_ramp():
    ramp = np.tile(np.arange(30, dtype=np.float32)[:, None, None], (1, 1, 20, 1))
    found = np.asarray(losses.spatial(ramp))
    np.testing.assert_allclose(found[0, 8:-8], 1, rtol=1e-5)


@pytest.mark.slow
def test_padding_is_inert_and_all_is_finite():
    data = dense_cases.batch(size=(32, 40))
    model = models.make(**TINY)
    _, _, answer = dense_cases.check(model, data, rtol=1e-3)
    assert answer.logits.shape == (2, 16, 20, 3)
    assert answer.size == (32, 40)


def test_published_weights_of_all_parts_are_summed():
    data = dense_cases.batch(size=(32, 40))
    found = (
        np.random.default_rng(0).normal(size=(2, 16, 20, 3)).astype(np.float32),
        np.full((2, 32, 40), 0.9, np.float32),
    )
    noise = np.zeros((2, 32, 40, 3), np.float32)
    total, metrics = parts(found, data, noise, Loss())
    whole = {k: v for k, v in metrics.items() if k != "correct"}
    np.testing.assert_allclose(total, sum(whole.values()), rtol=1e-6)
    # All pixels are taken for edges.
    np.testing.assert_allclose(whole["attention"], whole["pixels"], rtol=1e-6)
    _, half = parts(found, data, noise, Loss(edge=10.0))
    np.testing.assert_allclose(half["edge"], whole["edge"] / 2, rtol=1e-6)


def test_cannys_edges_of_pixels_need_pixels():
    settings = {**TINY, "canny": "pixels", "pixels": "normalized"}
    model = models.make(**settings)
    with pytest.raises(UserError, match="canny"):
        jax.eval_shape(
            model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.float32)
        )
