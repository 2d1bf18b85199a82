"""Wide ResNet-38 (Wu et al. 2019), dilated, as Gated-SCNN's authors have it.

    images     [b h w 3]
    mod1..mod7 strides 1, 2, 4, 8, 8, 8, 8; 64 to 4096 channels

Norm and ReLU come before convolutions. Names are the authors'.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.nn.conv import Conv
from detjax.nn.norm import norm
from detjax.nn.pool import max3
from detjax.nn.remat import rematerialised

# For each of mod2 to mod7: blocks, channels in 1/64 of the first stage's 64, stride of
# the first block, dilation, dropout.
STAGES = (
    (3, (2, 2), 1, 1, 0.0),
    (3, (4, 4), 1, 1, 0.0),
    (6, (8, 8), 2, 1, 0.0),
    (3, (8, 16), 1, 2, 0.0),
    (1, (8, 16, 32), 1, 4, 0.3),
    (1, (16, 32, 64), 1, 4, 0.5),
)


class Block(linen.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 for three `channels`, and a skip."""

    channels: tuple[int, ...]
    stride: int
    dilation: int
    dropout: float
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        def normed(x, name):
            layer = norm(
                self.norm,
                name=f"{name}.0",
                channels=x.shape[-1],
                train=train,
                dtype=self.dtype,
            )
            return linen.relu(layer(x))

        y = normed(x, "bn1")
        if self.stride != 1 or x.shape[-1] != self.channels[-1]:
            kinds: Any = {"dtype": self.dtype, "name": "proj_conv"}
            x = Conv(self.channels[-1], 1, self.stride, **kinds)(y)
        bottleneck = len(self.channels) == 3
        for i, channels in enumerate(self.channels, start=1):
            if i > 1:
                y = normed(y, f"convs.bn{i}")
            if i == len(self.channels):
                y = linen.Dropout(self.dropout, (1, 2), deterministic=not train)(y)
            kernel = 1 if bottleneck and i != 2 else 3
            y = Conv(
                channels,
                kernel,
                self.stride if i == 1 else 1,
                dilation=1 if kernel == 1 else self.dilation,
                dtype=self.dtype,
                name=f"convs.conv{i}",
            )(y)
        return x + y


class WideResNet(linen.Module):
    """Normalised images -> what each of its seven parts leaves, finest first.

    `width` is the first part's channels. Fewer `blocks` than the published ones are for
    tests. With `remat` the backward pass computes what is inside blocks again.
    """

    width: int = 64
    blocks: tuple[int, ...] = tuple(stage[0] for stage in STAGES)
    dropout: bool = True
    norm: str = "batch"
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        x = Conv(self.width, 3, dtype=self.dtype, name="mod1.conv1")(images)
        found = [x]
        rows = zip(self.blocks, STAGES, strict=True)
        for i, (count, (_, channels, stride, dilation, rate)) in enumerate(rows, 2):
            if i < 4:
                x = max3(x, 2)
            for j in range(count):
                x = rematerialised(Block, self.remat)(
                    tuple(c * self.width for c in channels),
                    stride if j == 0 else 1,
                    dilation,
                    rate if self.dropout else 0.0,
                    self.norm,
                    self.dtype,
                    name=f"mod{i}.block{j + 1}",
                )(x, train)
            found.append(x)
        return tuple(found)
