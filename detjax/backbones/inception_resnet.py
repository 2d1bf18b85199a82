"""Inception-ResNet v2 (Szegedy et al., AAAI 2017), with timm's state-dict names.

    images   [b h w 3]
    c2..c5   [b h/4 w/4 192], [b h/8 w/8 320], [b h/16 w/16 1088], [b h/32 w/32 1536]

The classifier's strided convolutions and poolings have no padding, as published. Where
the net gives features they are padded, so that a map has a cell for every 4, 8, 16 and
32 rows, each where it belongs.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn import pool
from detjax.nn.conv import Conv
from detjax.nn.conv_norm import ConvNorm
from detjax.nn.images import check_size
from detjax.nn.remat import rematerialised

NAMES = ("inception_resnet_v2",)
# The smallest image whose unpadded maps all have a cell.
SMALLEST = 75

# Branches of (channels, kernel), where "3s" is strided. The pooling of the first block
# takes means, of the two that are strided maxima.
_5B = (((96, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)))
_6A = (((384, "3s"),), ((256, 1), (256, 3), (384, "3s")))
_7A = (
    ((256, 1), (384, "3s")),
    ((256, 1), (288, "3s")),
    ((256, 1), (288, 3), (320, "3s")),
)
# Branches inside residual blocks, with the names of their lists and their scale.
_35 = (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))
_17 = (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1))))
_8 = (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1))))
STAGES: tuple[Any, ...] = (
    ("mixed_5b", _5B, "repeat", _35, 0.17),
    ("mixed_6a", _6A, "repeat_1", _17, 0.10),
    ("mixed_7a", _7A, "repeat_2", _8, 0.20),
)


class Branches(linen.Module):
    """Branches of (channels, kernel) on the same map, side by side: `branch0` on.

    Kernels "3s" have the stride. After them comes what `pooled` leaves of the map: ""
    is nothing, "max" its maxima by the stride, "mean" a convolution of its means. With
    a `scale` the block is residual: a convolution brings all back to the map's
    channels, and `scale` times this is added to the map.
    """

    branches: tuple[Any, ...]
    pooled: str
    stride: int
    padded: bool
    dilation: int
    width: int
    norm: str
    norm_eps: float
    dtype: Any
    scale: float | None = None
    relu: bool = True  # after the sum

    @linen.compact
    def __call__(self, x, train: bool):
        found = []
        for i, branch in enumerate(self.branches):
            y = x
            for j, (channels, kernel) in enumerate(branch):
                # timm has a list where a branch has several.
                name = f"branch{i}" + (f".{j}" if len(branch) > 1 else "")
                y = self._unit(name, channels, kernel, y, train)
            found.append(y)
        if self.pooled == "max":
            found.append(pool.max3(x, self.stride, self.padded, self.dilation))
        elif self.pooled == "mean":
            y = linen.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
            found.append(self._unit(f"branch{len(found)}.1", 64, 1, y, train))
        y = jnp.concatenate(found, axis=-1)
        if self.scale is None:
            return y
        y = Conv(x.shape[-1], 1, bias=True, dtype=self.dtype, name="conv2d")(y)
        x = x + self.scale * y
        return linen.relu(x) if self.relu else x

    def _unit(self, name, channels, kernel, x, train):
        strided = kernel == "3s"
        layer = ConvNorm(
            max(channels * self.width // 32, 1),
            3 if strided else kernel,
            self.stride if strided else 1,
            None if self.padded or not strided else 0,
            self.dilation,
            self.norm,
            self.norm_eps,
            self.dtype,
            name=name,
        )
        return layer(x, train)


class InceptionResNetV2(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. `width` scales all layers; 32 is the
    original. Below an `output_stride` of 32 the last strides are 1, and what comes
    after is dilated. With `remat` the backward pass computes what is inside each block
    again instead of keeping it. timm's and the authors' weights expect pixels
    "inception".

    Raises UserError for a classifier's image of fewer than 75 rows or columns.
    """

    head = r"classif\."

    repeats: tuple[int, int, int] = (10, 20, 9)  # residual blocks at each stride
    width: int = 32
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-3
    num_classes: int | None = None
    dropout: float = 0.2  # before the last layer
    output_stride: int = 32
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        padded = self.num_classes is None
        if not padded:
            check_size(images, SMALLEST, "inception_resnet_v2")
        x = self._stem(images, train, padded)
        features, stride, dilation = [x], 8, 1
        stages = zip(STAGES, self.repeats, strict=True)
        for (first, branches, name, inner, scale), count in [*stages][
            : self.stages - 1
        ]:
            if first == "mixed_5b":
                x = pool.max3(x, 2, padded)
                self.sow("intermediates", "maxpool_5a", x)
                x = self._block(first, branches, "mean", 1, padded, 1)(x, train)
            else:
                by = 2 if stride < self.output_stride else 1
                x = self._block(first, branches, "max", by, padded, dilation)(x, train)
                stride, dilation = (stride * by, dilation * (3 - by))
            for i in range(count):
                block = self._block(
                    f"{name}.{i}", inner, dilation=dilation, scale=scale
                )
                x = block(x, train)
            self.sow("intermediates", name, x)
            features.append(x)
        if self.stages > 3:
            last: Any = {"dilation": dilation, "scale": 1.0, "relu": False}
            x = self._block("block8", _8, **last)(x, train)
            x = self._unit("conv2d_7b", 1536, 1, 1, None, x, train)
            features[-1] = x
        if padded:
            return tuple(features)
        x = x.mean(axis=(1, 2)).astype(jnp.float32)
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return linen.Dense(self.num_classes, name="classif")(x)

    def _stem(self, images, train, padded):
        """Up to the last map of stride 4."""
        x = images
        for name, channels, kernel, stride, around in (
            ("conv2d_1a", 32, 3, 2, 0),
            ("conv2d_2a", 32, 3, 1, 0),
            ("conv2d_2b", 64, 3, 1, 1),
            ("conv2d_3b", 80, 1, 1, 0),
            ("conv2d_4a", 192, 3, 1, 0),
        ):
            if name == "conv2d_3b":
                x = pool.max3(x, 2, padded)
            around = None if padded else around
            x = self._unit(name, channels, kernel, stride, around, x, train)
        return x

    def _unit(self, name, channels, kernel, stride, around, x, train):
        layer = ConvNorm(
            max(channels * self.width // 32, 1),
            kernel,
            stride,
            around,
            1,
            self.norm,
            self.norm_eps,
            self.dtype,
            name=name,
        )
        return layer(x, train)

    def _block(
        self,
        name,
        branches,
        pooled="",
        stride=1,
        padded=True,
        dilation=1,
        scale=None,
        relu=True,
    ):
        block = rematerialised(Branches, self.remat)
        return block(
            branches,
            pooled,
            stride,
            # At stride 1 a map keeps its size.
            padded or stride == 1,
            dilation,
            self.width,
            self.norm,
            self.norm_eps,
            self.dtype,
            scale,
            relu,
            name=name,
        )


def inception_resnet(name: str, /, **kwargs: Any) -> InceptionResNetV2:
    """The member called `name` of `NAMES`; keywords as in `InceptionResNetV2`.

    Raises UserError for an unknown name.
    """
    if name not in NAMES:
        raise UserError(
            f"no Inception-ResNet is called {name!r}; choose one of {[*NAMES]}"
        )
    return InceptionResNetV2(**kwargs)
