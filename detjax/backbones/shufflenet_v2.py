"""ShuffleNet V2 (Ma et al., ECCV 2018), with torchvision's state-dict names.

images   [b h w 3]
c2..c5   24 (the first convolution, pooled), then for x1_0 116, 232 and, after the
         last 1x1 convolution, 1024 channels
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv_norm import conv_norm
from detjax.nn.remat import rematerialised
from detjax.nn.strides import dilated, rounded

# Channels of stage 2, which the later stages double, and of the last convolution
# (table 5).
SPECS = {
    "shufflenet_v2_x0_5": (48, 1024),
    "shufflenet_v2_x1_0": (116, 1024),
    "shufflenet_v2_x1_5": (176, 1024),
    "shufflenet_v2_x2_0": (244, 2048),
}
BLOCKS = (4, 8, 4)


class Unit(linen.Module):
    """1x1, depthwise 3x3, 1x1 on one half of the channels, and a shuffle of both.

    Where the stage begins, both see all the input, and the other half has a depthwise
    3x3 and a 1x1 convolution of its own.
    """

    features: int
    begins: bool
    stride: int
    dilation: int
    layer: Any

    @linen.compact
    def __call__(self, x, train: bool):
        half = self.features // 2

        def depthwise(x, names):
            return self.layer(
                x,
                train,
                x.shape[-1],
                3,
                self.stride,
                groups=x.shape[-1],
                dilation=self.dilation,
                relu=None,
                names=names,
            )

        if self.begins:
            one = depthwise(x, ("branch1.0", "branch1.1"))
            one = self.layer(one, train, half, names=("branch1.2", "branch1.3"))
            other = x
        else:
            one, other = x[..., :half], x[..., half:]
        other = self.layer(other, train, half, names=("branch2.0", "branch2.1"))
        other = depthwise(other, ("branch2.3", "branch2.4"))
        other = self.layer(other, train, half, names=("branch2.5", "branch2.6"))
        # By turns one of each half.
        return jnp.stack([one, other], axis=-1).reshape(*one.shape[:-1], 2 * half)


class ShuffleNetV2(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `width` is the first convolution's channels; 24 is the original, and another scales
    all layers. With an `output_stride` of 16 or 8 the last strides become dilation.
    With `remat` the backward pass computes what is inside each unit again.
    """

    head = r"fc\."

    channels: int
    last: int
    width: int = 24
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
            conv_norm, kind=self.norm, epsilon=self.norm_eps, dtype=self.dtype
        )
        strides = [2, 2, *(2 * (i == 0) or 1 for n in BLOCKS for i in range(n))]
        plan = iter(dilated(strides, self.output_stride)[2:])
        unit = rematerialised(Unit, self.remat)

        def scaled(channels):
            return rounded(channels * self.width / 24, 2)

        x = layer(images, train, self.width, 3, 2, names=("conv1.0", "conv1.1"))
        x = linen.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        features = [x]
        for stage, count in enumerate(BLOCKS[: self.stages - 1]):
            channels = scaled(self.channels * 2**stage)
            for i in range(count):
                name = f"stage{stage + 2}.{i}"
                x = unit(channels, i == 0, *next(plan), layer, name=name)(x, train)
            features.append(x)
        if self.stages == 4:
            x = layer(x, train, scaled(self.last), names=("conv5.0", "conv5.1"))
            features[-1] = x
        if self.num_classes is None:
            return tuple(features)
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        return linen.Dense(self.num_classes, name="fc")(pooled)


def shufflenet_v2(name: str, /, **kwargs: Any) -> ShuffleNetV2:
    """The member called `name` of `SPECS`; keywords as in `ShuffleNetV2`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no ShuffleNetV2 is called {name!r}; choose of {[*SPECS]}")
    channels, last = SPECS[name]
    return ShuffleNetV2(channels, last, **kwargs)
