"""A convolution, its normalisation and its activation, as most networks have them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.nn.conv import Conv
from detjax.nn.norm import norm


def conv_norm(
    x: Any,
    train: bool,
    features: int,
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    *,
    names: tuple[str, str],
    relu: Callable[[Any], Any] | None = linen.relu,
    padding: int | tuple[int, int] | None = None,
    groups: int = 1,
    dilation: int = 1,
    kind: str = "batch",
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    dtype: Any = jnp.float32,
):
    """x [b h w i] -> [b h' w' features], to be called inside a compact module.

    `names` are those of the two layers; `relu` None is linear; the rest is as in `Conv`
    and `norm`.
    """
    convolution = Conv(
        features,
        kernel,
        stride=stride,
        padding=padding,
        groups=groups,
        dilation=dilation,
        dtype=dtype,
        name=names[0],
    )
    normalisation = norm(
        kind,
        name=names[1],
        channels=features,
        train=train,
        epsilon=epsilon,
        momentum=momentum,
        dtype=dtype,
    )
    x = normalisation(convolution(x))
    return x if relu is None else relu(x)


class ConvNorm(linen.Module):
    """[b h w i] -> [b h' w' features], rectified; holds `conv` and `bn`.

    Kernel, stride, padding and dilation are those of `Conv`.
    """

    features: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: int | tuple[int, int] | None = None
    dilation: int = 1
    norm: str = "batch"
    norm_eps: float = 1e-3
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool):
        return conv_norm(
            x,
            train,
            self.features,
            self.kernel,
            self.stride,
            names=("conv", "bn"),
            padding=self.padding,
            dilation=self.dilation,
            kind=self.norm,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
