"""Learnt upsampling of maps [b h w c]."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.ops import upsample


class ConvTranspose(linen.Module):
    """A transposed convolution [b h w i] -> [b oh ow features], with torch's meaning.

    `kernel` is its side; see `ops.upsample.transposed_convolution` for `padding` and
    `size`. The parameter "kernel" is [side side features i], torch's (i, features,
    side, side) moved as that of a convolution is; "bias" is [features]. Without a
    `kernel_init` a linear layer's outputs begin as large as its inputs.
    """

    features: int
    kernel: int
    stride: int
    padding: int = 0
    bias: bool = True
    kernel_init: Any = None
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, size: tuple[int, int] | None = None):
        # An output is the sum of a part of the kernel's cells, one of stride^2.
        scaled = jax.nn.initializers.variance_scaling(
            self.stride**2, "fan_out", "normal"
        )
        shape = (self.kernel, self.kernel, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init or scaled, shape)
        kernel = kernel.astype(self.dtype)

        def one(x):
            return upsample.transposed_convolution(
                x, kernel, self.stride, self.padding, size
            )

        y = jax.vmap(one)(x.astype(self.dtype))
        if not self.bias:
            return y
        bias = self.param("bias", linen.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype)


class ChannelsUp(linen.Module):
    """A transposed convolution of each channel by itself, [b h w c] -> [b fh fw c].

    Of stride f = `factor`, an even number, and kernels of 2f cells; the parameter
    "kernel" is [2f 2f 1 c] and begins as bilinear interpolation (torch's
    `conv_transpose2d` with c groups and a padding of f / 2).
    """

    factor: int
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        f, (b, h, w, c) = self.factor, x.shape
        taps = jnp.asarray(upsample.bilinear_kernel(2 * f))[..., None, None]
        shape = (2 * f, 2 * f, 1, c)
        kernel = self.param("kernel", lambda key: jnp.broadcast_to(taps, shape) + 0.0)
        kernel = kernel.astype(self.dtype).reshape(2, f, 2, f, c)
        # A cell reaches over its own f x f outputs and those after: of every output
        # two cells along each axis know, and a cell of padding begins and ends.
        x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = sum(
            x[:, 1 - i : h + 2 - i, None, 1 - j : w + 2 - j, None]
            * kernel[i, :, None, j]
            for i in (0, 1)
            for j in (0, 1)
        )
        whole = total.reshape(b, (h + 1) * f, (w + 1) * f, c)
        cut = f // 2
        return whole[:, cut : cut + h * f, cut : cut + w * f]


def bilinear(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """An initialiser: bilinear interpolation of each channel by itself, [k k o i].

    Output j sees input j, and no other; see `ops.upsample.bilinear_kernel`.
    """
    side, _, o, i = shape
    taps = jnp.asarray(upsample.bilinear_kernel(side), dtype)
    return taps[..., None, None] * jnp.eye(o, i, dtype=dtype)


class Switches:
    """Where maxima of 2x2 cells were, from pooling to unpooling (Noh et al. 2015).

    What is pooled last is unpooled first, to the size that it had. A map's last row and
    column are pooled too where it has an odd number of them.
    """

    def __init__(self) -> None:
        self._left: list[tuple[jax.Array, tuple[int, int]]] = []

    def __len__(self) -> int:
        """How many maps were pooled and not unpooled yet."""
        return len(self._left)

    def pool(self, x):
        """[b h w c] -> maxima [b h/2 w/2 c], sides rounded up."""
        pooled = jax.vmap(lambda one: upsample.max_pool(one, 2, 2))(x)
        self._left.append((pooled.places, x.shape[1:3]))
        return pooled.values

    def unpool(self, x):
        """[b h/2 w/2 c] -> [b h w c]: each value where the maximum was, and zeros."""
        places, size = self._left.pop()

        def one(values, places):
            return upsample.max_unpool(values, places, size, 2)

        return jax.vmap(one)(x, places)
