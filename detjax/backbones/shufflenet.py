"""ShuffleNet (Zhang et al., CVPR 2018), with the names of its authors' later code.

    images   [b h w 3]
    c2..c5   24 (the first convolution, pooled), then for 3 groups 240, 480 and 960

That code's shuffle sees channels as (c / groups, groups), the inverse of the paper's.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn import pool
from detjax.nn.conv_norm import conv_norm
from detjax.nn.remat import rematerialised
from detjax.nn.strides import dilated, rounded

# Groups, and channels of stage 2 (table 1), which the later stages double.
SPECS = {
    "shufflenet_v1_g1": (1, 144),
    "shufflenet_v1_g2": (2, 200),
    "shufflenet_v1_g3": (3, 240),
    "shufflenet_v1_g4": (4, 272),
    "shufflenet_v1_g8": (8, 384),
}
BLOCKS = (4, 8, 4)


class Unit(linen.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1.

    The input is added, or, pooled, put before it where the stage begins.
    """

    features: int
    groups: int
    first_groups: int
    begins: bool
    stride: int
    dilation: int
    layer: Any

    @linen.compact
    def __call__(self, x, train: bool):
        hidden = self.features // 4
        new = self.features - x.shape[-1] * self.begins
        names = "branch_main_1.0", "branch_main_1.1"
        y = self.layer(x, train, hidden, groups=self.first_groups, names=names)
        y = self.layer(
            y,
            train,
            hidden,
            3,
            self.stride,
            groups=hidden,
            dilation=self.dilation,
            relu=None,
            names=("branch_main_1.3", "branch_main_1.4"),
        )
        y = shuffled(y, hidden // self.groups)
        names = "branch_main_2.0", "branch_main_2.1"
        y = self.layer(y, train, new, groups=self.groups, relu=None, names=names)
        if not self.begins:
            return linen.relu(x + y)
        pooled = pool.mean3(x, self.stride, self.dilation)
        return jnp.concatenate([pooled, linen.relu(y)], axis=-1)


def shuffled(x, groups: int):
    """x [. c] with the n-th channels of all `groups` one after another."""
    apart = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.swapaxes(apart, -1, -2).reshape(x.shape)


class ShuffleNet(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `width` is the first convolution's channels; 24 is the original, and another scales
    all layers, to multiples of what the groups need. With an `output_stride` of 16 or 8
    the last strides become dilation. With `remat` the backward pass computes what is
    inside each unit again.
    """

    head = r"classifier\.0\."

    groups: int
    channels: int
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
        plan = dilated(strides, self.output_stride)[2:]
        unit = rematerialised(Unit, self.remat)
        width = rounded(self.width, self.groups)
        names = "first_conv.0", "first_conv.1"
        x = layer(images, train, width, 3, 2, names=names)
        x = linen.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        self.sow("intermediates", "maxpool", x)
        features, i = [x], 0
        for stage, count in enumerate(BLOCKS[: self.stages - 1]):
            channels = self.channels * 2**stage * self.width / 24
            channels = rounded(channels, 4 * self.groups)
            for begins in [True] + [False] * (count - 1):
                x = unit(
                    channels,
                    self.groups,
                    self.groups if i else 1,
                    begins,
                    *plan[i],
                    layer,
                    name=f"features.{i}",
                )(x, train)
                i += 1
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        return linen.Dense(self.num_classes, use_bias=False, name="classifier.0")(
            pooled
        )


def shufflenet(name: str, /, **kwargs: Any) -> ShuffleNet:
    """The member called `name` of `SPECS`; keywords as in `ShuffleNet`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no ShuffleNet is called {name!r}; choose one of {[*SPECS]}")
    groups, channels = SPECS[name]
    return ShuffleNet(groups, channels, **kwargs)
