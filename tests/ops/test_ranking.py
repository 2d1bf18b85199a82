"""The best of many, against a stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import ranking

TYPES = ("float32", "bfloat16", "float16", "int8", "uint16", "int32")


@pytest.mark.parametrize("dtype", TYPES)
def test_top_k_is_the_head_of_a_stable_sort(dtype):
    """Of numbers with ties, in their own type."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 50, (3, 200)), dtype)
    best, index = jax.jit(ranking.top_k, static_argnums=1)(x, 20)
    expected = np.argsort(-np.asarray(x, np.float64), axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(best, np.take_along_axis(x, expected, axis=1))
    assert best.dtype == dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_half_types_reach_the_fast_kernel(dtype):
    """The CPU's kernel takes float32 only; other types are sorted whole."""
    x = jax.ShapeDtypeStruct((4, 3000), dtype)
    compiled = jax.jit(ranking.top_k, static_argnums=1).lower(x, 100).compile()
    text = compiled.as_text()
    assert " sort(" not in text
    assert "TopK" in text


def test_gradient_goes_to_the_best():
    x = jnp.asarray([3.0, 1.0, 2.0], jnp.bfloat16)
    gradient = jax.grad(lambda x: ranking.top_k(x, 2)[0].sum().astype(jnp.float32))(x)
    assert gradient.tolist() == [1, 0, 1]
