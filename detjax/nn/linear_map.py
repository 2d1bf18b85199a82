"""The last layer of heads that answer in float32 whatever they compute in."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.conv import convolve


class LinearMap(linen.Module):
    """A 1x1 convolution [b h w i] -> [b h w features] float32.

    Its bias is added in float32: the gradient of a bias is a sum over all cells of a
    batch, which in bfloat16 may be wrong by a third.
    """

    features: int
    bias: float  # that it begins with
    start: Any  # what its kernel begins as
    dtype: Any

    @linen.compact
    def __call__(self, x):
        kernel = self.param(
            "kernel",
            self.start,
            (1, 1, x.shape[-1], self.features),
        )
        start = jax.nn.initializers.constant(self.bias)
        bias = self.param("bias", start, (self.features,))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype))
        return y.astype(jnp.float32) + bias
