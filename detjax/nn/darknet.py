"""Darknet's convolution, norm and activations, as its weight files have them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.conv import convolve
from detjax.nn.norm import norm

kaiming = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_OUTSIDE = 1e-6  # is added to the deviation, not to the variance
_KEPT = 0.99  # of running statistics, a step


def mish(x: jax.Array) -> jax.Array:
    """Misra 2019."""
    return x * jnp.tanh(jax.nn.softplus(x))


# A call of this name is found by `explain.rectified`.
@jax.jit
def leaky_relu(x: jax.Array) -> jax.Array:
    """Darknet's, whose slope at 0 is the lower one; that of `jax.nn` is 1."""
    return jnp.where(x > 0, x, 0.1 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda x: x,
    "leaky": leaky_relu,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "logistic": jax.nn.sigmoid,
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "tanh": jnp.tanh,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "swish": jax.nn.silu,
    "mish": mish,
    "hard_mish": lambda x: x * jnp.clip(x + 2, 0, 2) / 2,
}


class Norm(linen.Module):
    """Batch norm as darknet has it: the deviation, and 1e-6 outside of the root.

    In training the variance is the unbiased one.
    """

    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False):
        shape = x.shape[-1:]
        scale = self.param("scale", linen.initializers.ones, shape)
        bias = self.param("bias", linen.initializers.zeros, shape)
        means = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variances = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, variance = means.value, variances.value
        values = x.astype(jnp.float32)
        if train and not self.is_initializing():
            inner = tuple(range(x.ndim - 1))
            count = values.size // values.shape[-1]
            mean = values.mean(inner)
            apart = jnp.square(values - mean).sum(inner)
            variance = apart / max(count - 1, 1)
            for kept, new in ((means, mean), (variances, variance)):
                kept.value = _KEPT * kept.value + (1 - _KEPT) * new
        # The root of 0 has no gradient.
        deviation = jnp.sqrt(jnp.maximum(variance, 1e-20)) + _OUTSIDE
        return ((values - mean) / deviation * scale + bias).astype(self.dtype)


class Convolution(linen.Module):
    """A convolution, norm or bias, and an activation."""

    filters: int
    size: int
    stride: int
    padding: int
    groups: int = 1
    normed: bool = False
    activation: str = "logistic"
    dtype: Any = jnp.float32
    norm: str = "batch"  # "batch" is darknet's own, "frozen" its running statistics

    @linen.compact
    def __call__(self, x, train: bool = False):
        kernel = self.param(
            "kernel",
            kaiming,
            (self.size, self.size, x.shape[-1] // self.groups, self.filters),
        )
        x = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            self.stride,
            (self.padding, self.padding),
            self.groups,
        )
        if self.normed and self.norm == "group":
            layer = norm("group", name="norm", channels=self.filters, train=train)
            x = layer(x).astype(self.dtype)
        elif self.normed:
            frozen = self.norm == "frozen"
            x = Norm(self.dtype, name="norm")(x, train and not frozen)
        else:
            bias = self.param("bias", linen.initializers.zeros, (self.filters,))
            x = x + bias.astype(self.dtype)
        return ACTIVATIONS[self.activation](x)
