"""Rematerialised blocks: the same numbers and names, and less that is kept."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax.nn.remat import rematerialised


class Block(linen.Module):
    """Two layers, the second in training alone."""

    @linen.compact
    def __call__(self, x, train):
        x = jnp.sin(linen.Dense(3, name="one")(x))
        return jnp.sin(linen.Dense(3, name="two")(x)) if train else x


def test_numbers_and_names_stay_and_less_is_kept():
    plain, again = (rematerialised(Block, remat)() for remat in (False, True))
    assert rematerialised(Block, False) is Block
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    variables = plain.init(jax.random.key(0), x, True)
    assert jax.tree.structure(again.init(jax.random.key(0), x, True)) == (
        jax.tree.structure(variables)
    )

    def gradient(block):
        return jax.grad(lambda v: block.apply(v, x, True).sum())

    for a, b in zip(
        jax.tree.leaves(gradient(plain)(variables)),
        jax.tree.leaves(gradient(again)(variables)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    programs = [str(jax.make_jaxpr(gradient(b))(variables)) for b in (plain, again)]
    assert [program.count(" sin ") for program in programs][1] > programs[0].count(
        " sin "
    )
