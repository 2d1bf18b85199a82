"""Convolutions with explicit padding, grouped and depthwise ones included.

On a CPU those in groups are not what XLA has for them: depthwise ones are sums of
shifted products, others one convolution each for a few groups together. How much that
is: `python scripts/bench.py convolutions`. Nor are those so far dilated that much of
the kernel lies in the padding: they are sums of shifted products with what does not.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

kaiming = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# As torch begins by itself: uniform, of the variance 1 / (3 inputs).
torchs = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Inputs of a convolution on a CPU below which it pays to compute zeros: groups of fewer
# are joined. Of 16 to 64 the runs of ResNeXt-50 are alike, and 64 compiles the fastest.
FEW = 64
# The part of a dilated convolution's arithmetic, outside of padding, up to which a
# matrix product for each place of its kernel is the faster: on two cores a quarter to a
# half of the time for DeepLab's rates, and twice the time where nothing is padding.
INSIDE = 0.8


class Conv(linen.Module):
    """A convolution [b h w i] -> [b h' w' features], with linen.Conv's parameters.

    `kernel` is its side or (h, w); `padding` on each side (h, w), None for the one that
    keeps the size at stride 1. The parameter "kernel" is [h w i/groups features],
    "bias" [features].
    """

    features: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: int | tuple[int, int] | None = None
    groups: int = 1
    dilation: int = 1
    bias: bool = False
    kernel_init: Any = kaiming
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        sides = self.kernel
        if isinstance(sides, int):
            sides = sides, sides
        padding = self.padding
        if padding is None:
            padding = same(sides, self.dilation)
        elif isinstance(padding, int):
            padding = padding, padding
        shape = (*sides, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            self.stride,
            padding,
            self.groups,
            self.dilation,
        )
        if not self.bias:
            return y
        bias = self.param("bias", linen.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype)


def same(sides: tuple[int, int], dilation: int) -> tuple[int, int]:
    """The padding by which odd kernels of `sides` keep a map's size."""
    h, w = sides
    return dilation * (h - 1) // 2, dilation * (w - 1) // 2


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    dilation: int = 1,
) -> jax.Array:
    """x [b h w i] by `kernel` [kh kw i/groups o] -> [b h' w' o].

    In the way that is fast on the platform that jax computes on by default. A program
    placed on another one is right and, in groups, slow there: to choose where it is
    compiled would compile both.
    """
    if jax.default_backend() != "cpu":
        return plain(x, kernel, stride, padding, groups, dilation)
    if groups == 1:
        kh, kw, *_ = kernel.shape
        kept = stride == 1 and padding == same((kh, kw), dilation)
        if kept and inside(x.shape[1:3], (kh, kw), dilation) <= INSIDE:
            return shifted(x, kernel, dilation)
        return plain(x, kernel, stride, padding, groups, dilation)
    if groups == x.shape[-1]:
        return depthwise(x, kernel, stride, padding, dilation)
    return grouped(x, kernel, stride, padding, groups, dilation)


def plain(x, kernel, stride, padding, groups, dilation):
    """The convolution as XLA has it."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(n, n) for n in padding],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def inside(size: tuple[int, ...], sides: tuple[int, int], dilation: int) -> float:
    """The part of a kernel's places, over a map of `size`, that lie inside of it.

    1 without dilation, where it would pay for tiny maps alone.
    """
    if dilation == 1:
        return 1.0
    part = 1.0
    for n, side in zip(size, sides, strict=True):
        places = (abs(i - side // 2) * dilation for i in range(side))
        part *= sum(max(n - by, 0) for by in places) / (n * side)
    return part


def shifted(x, kernel, dilation):
    """The convolution that keeps the size, as a matrix product for each place."""
    h, w = x.shape[1:3]
    kh, kw = kernel.shape[:2]
    total = None
    for i in range(kh):
        for j in range(kw):
            down, right = (i - kh // 2) * dilation, (j - kw // 2) * dilation
            if abs(down) >= h or abs(right) >= w:
                continue
            top, bottom = max(-down, 0), max(down, 0)
            left, far = max(-right, 0), max(right, 0)
            part = x[:, bottom : h - top, far : w - left] @ kernel[i, j]
            around = ((0, 0), (top, bottom), (left, far), (0, 0))
            part = jnp.pad(part, around)
            total = part if total is None else total + part
    return total


def depthwise(x, kernel, stride, padding, dilation):
    """A group for each channel of `x`: a product for each place of the kernel.

    Sums are float32 where the inputs are of fewer bits, in the gradient too.
    """
    dtype = x.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    x, kernel = x.astype(wide), kernel.astype(wide)
    channels, (kh, kw, _, out) = x.shape[-1], kernel.shape
    x = jnp.pad(x, ((0, 0), *((n, n) for n in padding), (0, 0)))
    if out != channels:
        x = jnp.repeat(x, out // channels, axis=-1)
    rows, columns = (
        (side - dilation * (size - 1) - 1) // stride + 1
        for side, size in zip(x.shape[1:3], (kh, kw), strict=True)
    )
    total = None
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation, j * dilation
            seen = x[
                :,
                top : top + (rows - 1) * stride + 1 : stride,
                left : left + (columns - 1) * stride + 1 : stride,
            ]
            part = seen * kernel[i, j, 0]
            total = part if total is None else total + part
    return total.astype(dtype)


def grouped(x, kernel, stride, padding, groups, dilation):
    """Several groups at a time as one convolution, whose kernel has zeros between."""
    together = joined(groups, x.shape[-1] // groups)
    parts = groups // together
    kernel = spread(kernel, parts, together)
    return jnp.concatenate(
        [
            plain(part, kernel[n], stride, padding, 1, dilation)
            for n, part in enumerate(jnp.split(x, parts, axis=-1))
        ],
        axis=-1,
    )


def joined(groups: int, inputs: int) -> int:
    """How many of `groups`, each of so many inputs, make one convolution."""
    enough = (n for n in range(1, groups + 1) if groups % n == 0 and n * inputs >= FEW)
    return next(enough, groups)


def spread(kernel, parts: int, together: int):
    """[kh kw i o] of all groups -> [parts kh kw (together i) (o / parts)]."""
    kh, kw, inputs, out = kernel.shape
    each = out // (parts * together)
    apart = kernel.reshape(kh, kw, inputs, parts, together, each)
    own = jnp.eye(together, dtype=kernel.dtype)
    full = jnp.einsum("hwipto,ts->phwsito", apart, own)
    return full.reshape(parts, kh, kw, together * inputs, together * each)
