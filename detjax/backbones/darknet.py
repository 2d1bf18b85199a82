"""Darknet-53 (Redmon and Farhadi, YOLOv3, 2018).

    images   [b h w 3]
    c2..c5   [b h/4 w/4 128] .. [b h/32 w/32 1024]

Names: `stem`, then a stage is `layer1.0` (the strided convolution) and `layer1.1` and
on (residual blocks of `conv1` and `conv2`); each convolution holds `conv` and `bn`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.norm import norm
from detjax.nn.remat import rematerialised

kaiming = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNorm(linen.Module):
    """Convolution, normalisation, leaky ReLU of slope 0.1."""

    features: int
    kernel: int
    stride: int
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=self.kernel // 2,
            use_bias=False,
            kernel_init=kaiming,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = norm(
            self.norm,
            name="bn",
            channels=self.features,
            train=train,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )(x)
        return linen.leaky_relu(x, 0.1)


class Block(linen.Module):
    """A residual block: 1x1 to half the channels, 3x3 back."""

    features: int
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        half = self.features // 2
        kinds: Any = (self.norm, self.norm_eps, self.dtype)
        y = ConvNorm(half, 1, 1, *kinds, name="conv1")(x, train)
        y = ConvNorm(self.features, 3, 1, *kinds, name="conv2")(y, train)
        return x + y


class DarkNet(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features.
    With `remat` the backward pass computes what is inside each block again instead of
    keeping it.
    """

    head = r"fc\."

    blocks: tuple[int, ...] = (1, 2, 8, 8, 4)
    width: int = 32
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        kinds: Any = (self.norm, self.norm_eps, self.dtype)
        block = rematerialised(Block, self.remat)
        convolved = rematerialised(ConvNorm, self.remat)
        x = convolved(self.width, 3, 1, *kinds, name="stem")(images, train)
        features = []
        for stage, count in enumerate(self.blocks[: self.stages + 1], start=1):
            channels = self.width * 2**stage
            x = convolved(channels, 3, 2, *kinds, name=f"layer{stage}.0")(x, train)
            for i in range(count):
                x = block(channels, *kinds, name=f"layer{stage}.{i + 1}")(x, train)
            features.append(x)
        # The first stage is stride 2, which no pyramid uses.
        if self.num_classes is None:
            return tuple(features[1:])
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        return linen.Dense(self.num_classes, name="fc")(pooled)


def darknet(name: str, /, **kwargs: Any) -> DarkNet:
    """Darknet-53; keywords as in `DarkNet`."""
    return DarkNet(**kwargs)
