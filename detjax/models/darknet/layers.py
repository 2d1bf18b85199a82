"""The layers of darknet's networks, on maps [b h w c].

Where darknet's order in memory shows (flattening, `reorg`), it is channels first, as it
is in its weight files.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from detjax.nn.darknet import ACTIVATIONS, Norm, kaiming


class Connected(linen.Module):
    """A product of the flattened input [b .] with a matrix: [b output]."""

    output: int
    normed: bool = False
    activation: str = "logistic"
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False):
        x = flat(x).astype(self.dtype)
        kernel = self.param("kernel", kaiming, (x.shape[-1], self.output))
        x = x @ kernel.astype(self.dtype)
        if self.normed:
            x = Norm(self.dtype, name="norm")(x, train)
        else:
            bias = self.param("bias", linen.initializers.zeros, (self.output,))
            x = x + bias.astype(self.dtype)
        return ACTIVATIONS[self.activation](x)


class Local(linen.Module):
    """A convolution that has kernels of its own at every place."""

    filters: int
    size: int
    stride: int
    padding: int
    activation: str = "logistic"
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False):
        channels = x.shape[-1]
        patches = lax.conv_general_dilated_patches(
            x.astype(self.dtype),
            (self.size, self.size),
            (self.stride, self.stride),
            ((self.padding, self.padding),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        h, w, taps = patches.shape[1:]
        # Patches list a channel's taps one after the other, as darknet's kernels do.
        kernel = self.param(
            "kernel",
            jax.nn.initializers.normal((2 / taps) ** 0.5),
            (h * w, self.filters, channels, self.size, self.size),
        )
        bias = self.param("bias", linen.initializers.zeros, (self.filters * h * w,))
        weights = kernel.reshape(h, w, self.filters, taps).astype(self.dtype)
        x = jnp.einsum("bhwt,hwft->bhwf", patches, weights)
        x = x + jnp.moveaxis(bias.reshape(-1, h, w), 0, -1).astype(self.dtype)
        return ACTIVATIONS[self.activation](x)


def flat(x: jax.Array) -> jax.Array:
    """Maps [b h w c] as rows [b c*h*w], channels first; rows as they are."""
    if x.ndim == 2:
        return x
    return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)


def maxpool(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """The maxima of windows, of which the first begins at -(padding // 2).

    `padding` is that of both sides together; cells outside are ignored.
    """
    low = padding // 2
    pads = []
    for side in x.shape[1:3]:
        count = (side + padding - size) // stride + 1
        pads.append((low, max((count - 1) * stride + size - low - side, 0)))
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, size, size, 1),
        (1, stride, stride, 1),
        ((0, 0), *pads, (0, 0)),
    )


def reorg(x: jax.Array, stride: int) -> jax.Array:
    """Maps [b h w c] -> [b h/s w/s c*s*s], in darknet's order.

    That is no space-to-depth: its memory, channels first, is read as if it were of
    c/(s*s) maps that are s times as high and wide, whose cells are then divided.
    """
    b, h, w, c = x.shape
    s, some = stride, c // stride**2
    memory = flat(x).reshape(b, some, h, s, w, s)
    moved = memory.transpose(0, 3, 5, 1, 2, 4)  # s s some h w
    return jnp.moveaxis(moved.reshape(b, c * s * s, h // s, w // s), 1, -1)


def upsample(x: jax.Array, stride: int, scale: float) -> jax.Array:
    """Each cell repeated `stride` times in both directions, times `scale`."""
    for axis in (1, 2):
        x = jnp.repeat(x, stride, axis=axis)
    return x * scale


def shortcut(x: jax.Array, other: jax.Array) -> jax.Array:
    """`x` plus `other`, of which the channels that both have are added.

    A larger `other` is read at every n-th cell, a smaller one added at every n-th.
    """
    both = min(x.shape[-1], other.shape[-1])
    other = other[..., :both]
    less = max(other.shape[2] // x.shape[2], 1)
    other = other[:, ::less, ::less][:, : x.shape[1], : x.shape[2]]
    more = max(x.shape[2] // other.shape[2], 1)
    return x.at[:, ::more, ::more, :both].add(other)


def softmax(x: jax.Array, groups: int, temperature: float) -> jax.Array:
    """Rows [b n], a softmax in each of `groups` equal parts."""
    parts = flat(x).reshape(x.shape[0], groups, -1).astype(jnp.float32)
    return jax.nn.softmax(parts / temperature).reshape(x.shape[0], -1)


def crop(x: jax.Array, size: tuple[int, int], adjust: bool) -> jax.Array:
    """The middle (h, w) of maps; with `adjust` of [0, 1] made [-1, 1]."""
    top, left = (
        (full - part) // 2 for full, part in zip(x.shape[1:3], size, strict=True)
    )
    x = x[:, top : top + size[0], left : left + size[1]]
    return 2 * x - 1 if adjust else x
