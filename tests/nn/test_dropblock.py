"""DropBlock: the rule by a loop, its statistics, and what it leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.nn.dropblock import DropBlock, block_of, drop_block

drop = jax.jit(drop_block, static_argnums=3)


@pytest.mark.parametrize("block", [1, 2, 3, 6, 50])
def test_squares_of_the_corners_that_are_drawn(block):
    key, (h, w) = jax.random.key(block), (6, 9)
    x = np.random.default_rng(0).normal(size=(3, h, w, 4)).astype("f")
    got = np.asarray(drop(key, x, 0.3, block))
    side = min(block, h, w)
    rows, columns = h - side + 1, w - side + 1
    rate = 0.3 / side**2 * h * w / (rows * columns)
    draws = np.asarray(jax.random.uniform(key, (3, rows, columns, 4)))
    for i in range(3):
        kept = np.ones((h, w, 4))
        for y, x1, channel in np.argwhere(draws[i] < rate):
            kept[y : y + side, x1 : x1 + side, channel] = 0
        expected = x[i] * kept * (kept.size / max(kept.sum(), 1))
        np.testing.assert_allclose(got[i], expected, rtol=1e-5)


@pytest.mark.parametrize(("block", "probability"), [(1, 0.2), (5, 0.1), (7, 0.05)])
def test_so_many_cells_are_dropped(block, probability):
    x = jnp.ones((16, 26, 26, 32))
    got = np.asarray(drop(jax.random.key(0), x, probability, block))
    share = (got == 0).mean()
    # Squares overlap: rather fewer than asked for.
    assert 0.85 * probability < share < 1.03 * probability
    np.testing.assert_allclose(got.mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    # Each channel has its own squares, and so does each image.
    zeros = got == 0
    assert not (zeros[..., 0] == zeros[..., 1]).all()
    assert not (zeros[0] == zeros[1]).all()


def test_an_image_does_not_depend_on_those_beside_it():
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("f")
    other = x.copy()
    other[1] *= 100
    key = jax.random.key(2)
    np.testing.assert_array_equal(drop(key, x, 0.2, 3)[0], drop(key, other, 0.2, 3)[0])


def test_nothing_and_everything():
    x = jnp.ones((2, 8, 8, 3), jnp.bfloat16)
    np.testing.assert_array_equal(drop(jax.random.key(0), x, 0.0, 3), x)
    gone = drop(jax.random.key(0), x, 1e9, 3)
    assert gone.dtype == jnp.bfloat16 and not np.any(np.float32(gone))

    def total(x):
        return jnp.sum(drop(jax.random.key(0), x, 1e9, 3))

    assert np.isfinite(np.float32(jax.grad(total)(x))).all()


def test_of_a_net_only_training_drops():
    layer = DropBlock(0.4, cells=3)
    x = jnp.ones((2, 12, 12, 8))
    call = jax.jit(functools.partial(layer.apply, {}), static_argnames="train")
    np.testing.assert_array_equal(call(x), x)
    rngs = {"dropout": jax.random.key(0)}
    first = call(x, train=True, rngs=rngs)
    np.testing.assert_array_equal(first, call(x, train=True, rngs=rngs))
    assert (np.asarray(first) == 0).any()
    half = call(x, train=True, rngs=rngs, scale=0.25)
    assert (np.asarray(half) == 0).sum() < (np.asarray(first) == 0).sum()
    assert not layer.init(jax.random.key(0), x)
    # A rate of 0 needs no random numbers.
    np.testing.assert_array_equal(DropBlock(0.0, cells=3).apply({}, x, train=True), x)


def test_blocks_by_cells_and_by_share():
    assert block_of((13, 13), cells=7) == 7
    assert block_of((5, 13), cells=7) == 5
    assert block_of((13, 26), share=0.1) == 2
    assert block_of((13, 13), share=0.01) == 1
    for wrong in ({}, {"cells": 3, "share": 0.1}):
        with pytest.raises(ValueError, match="one is to be set"):
            block_of((4, 4), **wrong)
