"""MobileNetV3 (Howard et al., ICCV 2019), with torchvision's state-dict names.

images   [b h w 3]
c2..c5   large: 24, 40, 112 and, after the last 1x1 convolution, 960 channels
         small: 16, 24, 48 and 576
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv import Conv
from detjax.nn.conv_norm import conv_norm
from detjax.nn.remat import rematerialised
from detjax.nn.strides import dilated, firsts, lasts, rounded


class Row(NamedTuple):
    """A line of the paper's tables 1 and 2."""

    kernel: int
    hidden: int
    features: int
    excited: bool  # squeeze-and-excitation
    hard: bool  # hard swish, else ReLU
    stride: int


SPECS = {
    "mobilenet_v3_large": (
        Row(3, 16, 16, False, False, 1),
        Row(3, 64, 24, False, False, 2),
        Row(3, 72, 24, False, False, 1),
        Row(5, 72, 40, True, False, 2),
        Row(5, 120, 40, True, False, 1),
        Row(5, 120, 40, True, False, 1),
        Row(3, 240, 80, False, True, 2),
        Row(3, 200, 80, False, True, 1),
        Row(3, 184, 80, False, True, 1),
        Row(3, 184, 80, False, True, 1),
        Row(3, 480, 112, True, True, 1),
        Row(3, 672, 112, True, True, 1),
        Row(5, 672, 160, True, True, 2),
        Row(5, 960, 160, True, True, 1),
        Row(5, 960, 160, True, True, 1),
    ),
    "mobilenet_v3_small": (
        Row(3, 16, 16, True, False, 2),
        Row(3, 72, 24, False, False, 2),
        Row(3, 88, 24, False, False, 1),
        Row(5, 96, 40, True, True, 2),
        Row(5, 240, 40, True, True, 1),
        Row(5, 240, 40, True, True, 1),
        Row(5, 120, 48, True, True, 1),
        Row(5, 144, 48, True, True, 1),
        Row(5, 288, 96, True, True, 2),
        Row(5, 576, 96, True, True, 1),
        Row(5, 576, 96, True, True, 1),
    ),
}
HIDDEN = {"mobilenet_v3_large": 1280, "mobilenet_v3_small": 1024}


class Bneck(linen.Module):
    """1x1 to more channels, depthwise, squeeze-and-excitation, 1x1 without ReLU.

    As `residual` the input is added.
    """

    row: Row
    dilation: int
    residual: bool
    layer: Any

    @linen.compact
    def __call__(self, x, train: bool):
        row = self.row
        relu = linen.hard_swish if row.hard else linen.relu
        y, i = x, 0
        if row.hidden != x.shape[-1]:
            names = "block.0.0", "block.0.1"
            y = self.layer(y, train, row.hidden, names=names, relu=relu)
            i = 1
        y = self.layer(
            y,
            train,
            row.hidden,
            row.kernel,
            row.stride,
            groups=row.hidden,
            dilation=self.dilation,
            names=(f"block.{i}.0", f"block.{i}.1"),
            relu=relu,
        )
        if row.excited:
            i += 1
            pooled = y.mean(axis=(1, 2), keepdims=True)
            pooled = Conv(
                rounded(row.hidden // 4),
                1,
                bias=True,
                dtype=y.dtype,
                name=f"block.{i}.fc1",
            )(pooled)
            gate = Conv(row.hidden, 1, bias=True, dtype=y.dtype, name=f"block.{i}.fc2")(
                linen.relu(pooled)
            )
            y = y * linen.hard_sigmoid(gate)
        names = f"block.{i + 1}.0", f"block.{i + 1}.1"
        y = self.layer(y, train, row.features, names=names, relu=None)
        return x + y if self.residual else y


class MobileNetV3(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `width` is the first convolution's channels before they are rounded; 16 is the
    original, and another scales all layers. With an `output_stride` of 16 or 8 the last
    strides become dilation, from the strided block on as in torchvision. With
    `first_at_stride` c2 to c4 are what the first block at each stride leaves and not
    the last, as torchvision's networks for pixels read them. With `remat` the backward
    pass computes what is inside each block again.
    """

    head = r"classifier\.3\."

    rows: tuple[Row, ...]
    hidden: int = 1280  # of the classifier
    width: int = 16
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-3
    num_classes: int | None = None
    dropout: float = 0.2
    output_stride: int = 32
    first_at_stride: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        layer = functools.partial(
            conv_norm,
            relu=linen.hard_swish,
            kind=self.norm,
            epsilon=self.norm_eps,
            momentum=0.99,
            dtype=self.dtype,
        )
        strides = [2, *(row.stride for row in self.rows), 1]
        plan = dilated(strides, self.output_stride, at_once=True)
        last = read = lasts(strides, self.stages)
        if self.first_at_stride:
            read = firsts(strides, min(self.stages, 3))
        block = rematerialised(Bneck, self.remat)

        def scaled(channels):
            return rounded(channels * self.width / 16)

        names = "features.0.0", "features.0.1"
        x = layer(images, train, rounded(self.width), 3, 2, names=names)
        features = []
        for i, row in enumerate(self.rows[: last[-1]], start=1):
            stride, dilation = plan[i]
            here = row._replace(
                hidden=scaled(row.hidden),
                features=scaled(row.features),
                stride=stride,
            )
            residual = row.stride == 1 and here.features == x.shape[-1]
            x = block(here, dilation, residual, layer, name=f"features.{i}")(x, train)
            if i in read:
                features.append(x)
        if self.stages == 4:
            i = len(self.rows) + 1
            names = f"features.{i}.0", f"features.{i}.1"
            x = layer(x, train, 6 * x.shape[-1], names=names)
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        hidden = linen.Dense(scaled(self.hidden), name="classifier.0")(pooled)
        hidden = linen.hard_swish(hidden)
        hidden = linen.Dropout(self.dropout, deterministic=not train)(hidden)
        return linen.Dense(self.num_classes, name="classifier.3")(hidden)


def mobilenet_v3(name: str, /, **kwargs: Any) -> MobileNetV3:
    """The member called `name` of `SPECS`; keywords as in `MobileNetV3`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no MobileNetV3 is called {name!r}; choose of {[*SPECS]}")
    return MobileNetV3(rows=SPECS[name], hidden=HIDDEN[name], **kwargs)
