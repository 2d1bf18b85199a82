"""How networks begin."""

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.start import initialiser


class Net(linen.Module):
    """A norm behind a layer."""

    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(True)(linen.Dense(3)(x))


def test_parameters_are_apart_from_other_variables():
    params, state = initialiser(Net())(jax.random.key(0), jnp.zeros((2, 4)))
    assert params["Dense_0"]["kernel"].shape == (4, 3)
    assert set(state) == {"batch_stats"}
    assert state["batch_stats"]["BatchNorm_0"]["mean"].shape == (3,)
    assert initialiser(linen.Dense(2))(jax.random.key(0), jnp.zeros((1, 4)))[1] == {}
