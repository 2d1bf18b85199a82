"""MobileNet (Howard et al. 2017) and MobileNetV2 (Sandler et al., CVPR 2018).

The first has timm's parameter names, the second torchvision's.

    images   [b h w 3]
    c2..c5   v1: [b h/4 w/4 128] .. [b h/32 w/32 1024]
             v2: 24, 32, 96 and, after the last 1x1 convolution, 1280 channels
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv_norm import conv_norm
from detjax.nn.remat import rematerialised
from detjax.nn.strides import dilated, lasts, rounded

# Channels, blocks, stride of the first block (table 1 of the first paper).
V1 = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
# The same after the expansion (table 2 of the second).
V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Published multipliers that 32 channels times which are not whole.
BETWEEN = (0.35, 1.3, 1.4)


class Separable(linen.Module):
    """MobileNet's block: a depthwise 3x3, then a 1x1 convolution, each with ReLU6."""

    features: int
    stride: int
    dilation: int
    layer: Any

    @linen.compact
    def __call__(self, x, train: bool):
        x = self.layer(
            x,
            train,
            x.shape[-1],
            3,
            self.stride,
            groups=x.shape[-1],
            dilation=self.dilation,
            names=("conv_dw", "bn1"),
        )
        return self.layer(x, train, self.features, names=("conv_pw", "bn2"))


class MobileNetV1(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `width` is the first convolution's channels; 32 is the original, and another scales
    all layers. With an `output_stride` of 16 or 8 the last strides become dilation.
    With `remat` the backward pass computes what is inside each block again.
    """

    head = r"classifier\."

    width: int = 32
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    output_stride: int = 32
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        layer = functools.partial(
            conv_norm,
            relu=linen.relu6,
            kind=self.norm,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
        layers = [
            (f"blocks.{stage}.{i}", channels, stride if i == 0 else 1)
            for stage, (channels, count, stride) in enumerate(V1)
            for i in range(count)
        ]
        strides = [2, *(stride for *_, stride in layers)]
        plan = dilated(strides, self.output_stride)
        last = lasts(strides, self.stages)
        block = rematerialised(Separable, self.remat)
        width = rounded(self.width)
        x = layer(images, train, width, 3, 2, names=("conv_stem", "bn1"))
        self.sow("intermediates", "bn1.", x)
        features = []
        for i, (name, channels, _) in enumerate(layers[: last[-1]], start=1):
            channels = rounded(channels * self.width / 32)
            x = block(channels, *plan[i], layer, name=name)(x, train)
            # Last of its stage; the next one overwrites what an earlier block left.
            self.sow("intermediates", name.rpartition(".")[0], x, reduce_fn=_last)
            if i in last:
                features.append(x)
        if self.num_classes is None:
            return tuple(features)
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        return linen.Dense(self.num_classes, name="classifier")(pooled)


def _last(before, now):
    return (now,)


class Inverted(linen.Module):
    """MobileNetV2's block: 1x1 to more channels, depthwise 3x3, 1x1 without ReLU.

    As `residual` the input is added.
    """

    features: int
    expansion: int
    stride: int
    dilation: int
    residual: bool
    layer: Any

    @linen.compact
    def __call__(self, x, train: bool):
        y, hidden = x, x.shape[-1] * self.expansion
        first = 0
        if self.expansion != 1:
            names = "conv.0.0", "conv.0.1"
            y = self.layer(y, train, hidden, names=names)
            first = 1
        y = self.layer(
            y,
            train,
            hidden,
            3,
            self.stride,
            groups=hidden,
            dilation=self.dilation,
            names=(f"conv.{first}.0", f"conv.{first}.1"),
        )
        names = f"conv.{first + 1}", f"conv.{first + 2}"
        y = self.layer(y, train, self.features, names=names, relu=None)
        return x + y if self.residual else y


def multiplier(width: int) -> float:
    """Of MobileNetV2's channels for `width` of 32: a published one where it is such."""
    return next((m for m in BETWEEN if round(32 * m) == width), width / 32)


class MobileNetV2(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `width` is the first convolution's channels before they are rounded to eights; 32 is
    the original, and another scales all layers but the last, which has 1280 channels or
    more: 24 is the paper's multiplier 0.75, 11 its 0.35, and 45 its 1.4. With an
    `output_stride` of 16 or 8 the last strides become dilation. With `remat` the
    backward pass computes what is inside each block again.
    """

    head = r"classifier\."

    width: int = 32
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    dropout: float = 0.2
    output_stride: int = 32
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        layer = functools.partial(
            conv_norm,
            relu=linen.relu6,
            kind=self.norm,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
        layers = [
            (expansion, channels, stride if i == 0 else 1)
            for expansion, channels, count, stride in V2
            for i in range(count)
        ]
        strides = [2, *(stride for *_, stride in layers), 1]
        plan = dilated(strides, self.output_stride)
        last = lasts(strides, self.stages)
        block = rematerialised(Inverted, self.remat)
        scale = multiplier(self.width)
        names = "features.0.0", "features.0.1"
        x = layer(images, train, rounded(32 * scale), 3, 2, names=names)
        features = []
        for i, (expansion, channels, stride) in enumerate(layers[: last[-1]], start=1):
            channels = rounded(channels * scale)
            residual = stride == 1 and channels == x.shape[-1]
            x = block(
                channels, expansion, *plan[i], residual, layer, name=f"features.{i}"
            )(x, train)
            if i in last:
                features.append(x)
        if self.stages == 4:
            channels = rounded(1280 * max(1.0, scale))
            names = "features.18.0", "features.18.1"
            x = layer(x, train, channels, names=names)
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        pooled = linen.Dropout(self.dropout, deterministic=not train)(pooled)
        return linen.Dense(self.num_classes, name="classifier.1")(pooled)


MODULES = {"mobilenet_v1": MobileNetV1, "mobilenet_v2": MobileNetV2}


def mobilenet(name: str, /, **kwargs: Any) -> linen.Module:
    """The member called `name` of `MODULES`, whose keywords these are.

    Raises UserError for an unknown name.
    """
    if name not in MODULES:
        raise UserError(f"no MobileNet is called {name!r}; choose one of {[*MODULES]}")
    return MODULES[name](**kwargs)
