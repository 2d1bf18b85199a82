"""Deformable convolution as a layer, with the names of the authors' extension."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.ops import deform

lecun = jax.nn.initializers.lecun_normal()


class DeformableConv(linen.Module):
    """[b h w c] -> [b oh ow features]; offsets and weights come from a convolution.

    That one starts at zero, so that training begins with every tap in its place and
    half its weight. Zhu et al., CVPR 2019.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        taps, padding = self.kernel**2, self.kernel // 2
        raw = linen.Conv(
            3 * taps,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=padding,
            kernel_init=jax.nn.initializers.zeros,
            dtype=self.dtype,
            name="conv_offset_mask",
        )(x).astype(jnp.float32)
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", lecun, shape)
        bias = self.param("bias", jax.nn.initializers.zeros, (self.features,))
        # Two thirds are (dy, dx) tap by tap, the last one the taps' weights.
        offsets = raw[..., : 2 * taps].reshape(*raw.shape[:-1], taps, 2)
        weights = jax.nn.sigmoid(raw[..., 2 * taps :]).astype(self.dtype)

        def one(x, offsets, weights):
            return deform.conv(
                x,
                offsets,
                weights,
                kernel.astype(self.dtype),
                stride=self.stride,
                padding=padding,
            )

        return jax.vmap(one)(x, offsets, weights) + bias.astype(self.dtype)
