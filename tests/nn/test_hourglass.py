"""The stacked hourglass's shapes, parameters and sums; goldens have its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.backbones.hourglass import Hourglass
from detjax.errors import UserError
from detjax.nn import hourglass


@pytest.mark.parametrize("block", ["residual", "fire"])
def test_odd_sides_keep_their_size(block):
    small = Hourglass(2, (8, 8, 16), (1, 1, 1), 4, block=block)
    net, images = small.body(jnp.float32), jnp.zeros((1, 44, 44, 3))
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    found = jax.eval_shape(net.apply, variables, images)
    assert [x.shape for x in found] == [(1, 11, 11, 4)] * 2


def test_an_hourglass_adds_what_it_saw_to_what_is_coarser():
    net = hourglass.Hourglass((4, 4), (1, 1), norm="frozen")
    x = jax.random.uniform(jax.random.key(0), (1, 6, 6, 4))
    variables = jax.jit(net.init, static_argnums=2)(jax.random.key(1), x, False)
    # Residual blocks whose second norm is 0 are what they saw, and nothing where a
    # convolution stands between.
    scaled = jax.tree_util.tree_map_with_path(
        lambda path, v: v * (str(path[-2].key) != "bn2"), variables["params"]
    )
    found = net.apply({**variables, "params": scaled}, x, False)
    skip = scaled["low1.0"]["skip.0"]["kernel"][0, 0]
    low = jax.nn.relu(x[:, ::2, ::2] @ skip / np.sqrt(1 + 1e-5))
    expected = x + low.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_sizes_and_modules_go_together():
    with pytest.raises(UserError, match="a number each for every size"):
        Hourglass(dims=(8, 8, 8), modules=(1, 1)).body(jnp.float32)
