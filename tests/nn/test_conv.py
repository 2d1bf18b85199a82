"""Convolutions in groups: what XLA's own compute, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from detjax.nn import conv

CASES = {
    # inputs, outputs, groups, kernel, stride, dilation
    "depthwise": (6, 6, 6, (3, 3), 1, 1),
    "strided": (6, 6, 6, (5, 5), 2, 1),
    "dilated": (4, 4, 4, (3, 3), 1, 2),
    "oblong": (4, 4, 4, (1, 5), 2, 1),
    "multiplied": (4, 8, 4, (3, 3), 1, 1),
    "in groups": (8, 12, 4, (3, 3), 2, 1),
    "in many groups": (64, 64, 32, (3, 3), 1, 1),
    "in wide groups": (48, 24, 3, (1, 1), 1, 1),
    "in dilated groups": (8, 8, 2, (3, 3), 1, 2),
    # Of a kernel that lies in padding for the most part, or all but its centre.
    "dilated by far": (6, 4, 1, (3, 3), 1, 5),
    "dilated beyond": (6, 4, 1, (3, 3), 1, 12),
    "oblong, dilated": (6, 4, 1, (5, 1), 1, 4),
}


def values(name):
    inputs, outputs, groups, kernel, *_ = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 12, inputs)).astype(np.float32)
    k = rng.standard_normal((*kernel, inputs // groups, outputs)).astype(np.float32)
    return x, k


@pytest.mark.parametrize("name", CASES)
def test_groups_are_xlas(name):
    _, _, groups, sides, stride, dilation = CASES[name]
    around = conv.same(sides, dilation)

    def out(function):
        def loss(x, k):
            y = function(x, k, stride, around, groups, dilation)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*values(name))

    assert jax.default_backend() == "cpu"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-5),
        out(conv.convolve),
        out(conv.plain),
    )


@pytest.mark.parametrize("name", CASES)
def test_cpus_have_no_convolution_in_groups(name):
    _, _, groups, sides, stride, dilation = CASES[name]
    around = conv.same(sides, dilation)
    jaxpr = jax.make_jaxpr(
        lambda x, k: conv.convolve(x, k, stride, around, groups, dilation)
    )(*values(name))
    assert "feature_group_count=1" in str(jaxpr) or "conv_general" not in str(jaxpr)


def test_other_devices_have_xlas(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jaxpr = jax.make_jaxpr(lambda x, k: conv.convolve(x, k, 1, (1, 1), 6))(
        *values("depthwise")
    )
    assert "feature_group_count=6" in str(jaxpr)


def test_what_of_a_dilated_kernel_lies_inside():
    assert conv.inside((65, 65), (3, 3), 1) == 1
    # Both outer rows of a kernel miss 12 of 65.
    assert conv.inside((65, 65), (3, 1), 12) == pytest.approx((65 + 2 * 53) / 195)
    assert conv.inside((9, 9), (3, 3), 9) == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("groups", "inputs", "most"), [(32, 4, 16), (32, 16, 4), (8, 64, 1)]
)
def test_groups_of_few_inputs_are_joined(groups, inputs, most):
    assert conv.joined(groups, inputs) == most


def test_sums_of_few_bits_are_rounded_once():
    x, k = (jnp.bfloat16(each) for each in values("depthwise"))

    def found(function, x, k):
        return function(x, k, 1, (1, 1), 6, 1).astype(jnp.float32)

    exact = found(conv.plain, jnp.float32(x), jnp.float32(k))
    np.testing.assert_allclose(found(conv.convolve, x, k), exact, rtol=2**-8)


def test_groups_are_joined_evenly():
    # Four groups of twenty would be enough; six are two times three.
    assert conv.joined(6, 20) == 6
    assert conv.joined(6, 30) == 3
    assert conv.joined(2, 1) == 2


def test_parameters_are_linens():
    x = jnp.ones((1, 8, 8, 6))
    ours = conv.Conv(12, 3, 2, groups=3, bias=True)
    theirs = linen.Conv(12, (3, 3), 2, padding=1, feature_group_count=3)
    variables = theirs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables
    )
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5
    )


def test_activations_have_the_dtype():
    x = jnp.ones((1, 8, 8, 6))
    for groups in (1, 2, 6):
        net = conv.Conv(6, 3, groups=groups, bias=True, dtype=jnp.bfloat16)
        y, variables = net.init_with_output(jax.random.key(0), x)
        assert y.dtype == jnp.bfloat16
        assert variables["params"]["kernel"].dtype == jnp.float32
