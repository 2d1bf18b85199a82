"""Batch norms that stay as they are in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from detjax.models.darknet.layers import Norm
from detjax.nn.frozen_statistics import frozen_statistics
from detjax.nn.norm import MaskedBatchNorm


class Two(linen.Module):
    """Two norms, called a and b."""

    make: object

    @linen.compact
    def __call__(self, x, train):
        return self.make("b")(self.make("a")(x, train), train)


class Masked(linen.Module):
    """`MaskedBatchNorm`, of rows that are all real."""

    @linen.compact
    def __call__(self, x, train):
        return MaskedBatchNorm(name="a")(x, jnp.ones(len(x), bool), train)


class Linens(linen.Module):
    """linen's, with its choice made when it is built."""

    @linen.compact
    def __call__(self, x, train):
        return linen.BatchNorm(use_running_average=not train, name="a")(x)


def of_darknet(name):
    return Norm(name=name)


@pytest.mark.parametrize("net", [Masked(), Linens(), Two(of_darknet)])
def test_what_is_still_answers_as_in_prediction(net):
    x = np.random.default_rng(0).normal(2, 3, (6, 4)).astype("f")
    held = net.init(jax.random.key(0), x, False)
    with frozen_statistics({"a", "b"}):
        found, after = net.apply(held, x, True, mutable=["batch_stats"])
    expected = net.apply(held, x, False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    same = jax.tree.map(np.array_equal, after["batch_stats"], held["batch_stats"])
    assert all(jax.tree.leaves(same))
    # Outside, and where it is not named, it learns.
    with frozen_statistics({"c"}):
        found, after = net.apply(held, x, True, mutable=["batch_stats"])
    assert np.abs(found - expected).max() > 0.1
    same = jax.tree.map(np.array_equal, after["batch_stats"], held["batch_stats"])
    assert not all(jax.tree.leaves(same))


def test_others_beside_them_learn():
    net, x = Two(of_darknet), np.arange(12.0, dtype="f").reshape(6, 2)
    held = net.init(jax.random.key(0), x, False)
    with frozen_statistics({"a"}):
        _, after = net.apply(held, x, True, mutable=["batch_stats"])
    before, now = held["batch_stats"], after["batch_stats"]
    assert np.array_equal(before["a"]["mean"], now["a"]["mean"])
    assert not np.array_equal(before["b"]["mean"], now["b"]["mean"])
