"""U-Net (Ronneberger et al., MICCAI 2015).

    b        images
    c        classes, or other outputs
    maps     [b h w c]

A path of convolutions and pooling down, and one up that joins to each enlarged map the
one of the same size from the way down.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen

from detjax.models.pixelwise import (
    Loss,
    ValueLoss,
    check_one,
    enlarged,
    regressor,
    segmenter,
)
from detjax.nn.conv import Conv
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm, norm
from detjax.nn.pool import max_pool
from detjax.nn.upsample import ConvTranspose
from detjax.settings import Count, Dtype, Fraction
from detjax.types import Model

Up = Literal["transposed", "bilinear"]
GROUPS = {"backbone": r"^down\.", "head": r"^(up|out)\."}


class Net(linen.Module):
    """Images [b h w 3] -> (maps [b h w outputs],), float32."""

    outputs: int
    width: int
    depth: int
    norm: str | None
    valid: bool
    up: Up
    dropout: float
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        x = normalize(images, self.pixels, self.dtype)
        h, w = images.shape[1:3]
        if self.valid:
            around = [margins(n, self.depth) for n in (h, w)]
            x = jnp.pad(x, [(0, 0), *around, (0, 0)], mode="symmetric")
        left = []
        for i in range(self.depth + 1):
            x = max_pool(x, 2, 2) if i else x
            x = self._twice(f"down.{i}", self.width * 2**i, x, train)
            if i >= self.depth - 1:
                x = linen.Dropout(self.dropout, deterministic=not train)(x)
            left.append(x)
        for i in reversed(range(self.depth)):
            x = self._enlarged(f"up.{i}.up", self.width * 2**i, x)
            x = joined(left[i], x)
            x = self._twice(f"up.{i}", self.width * 2**i, x, train)
        x = Conv(self.outputs, 1, bias=True, dtype=self.dtype, name="out")(x)
        return (x[:, :h, :w].astype(jnp.float32),)

    def _twice(self, name, channels, x, train):
        """Two 3x3 convolutions, each with its norm and a ReLU."""
        for j in (1, 2):
            x = Conv(
                channels,
                3,
                padding=0 if self.valid else 1,
                bias=self.norm is None,
                dtype=self.dtype,
                name=f"{name}.conv{j}",
            )(x)
            if self.norm is not None:
                kinds: Any = {"channels": channels, "dtype": self.dtype}
                name_of = f"{name}.norm{j}"
                x = norm(self.norm, name=name_of, train=train, **kinds)(x)
            x = linen.relu(x)
        return x

    def _enlarged(self, name, channels, x):
        """`x` at twice the size, with so many channels."""
        if self.up == "transposed":
            return ConvTranspose(channels, 2, 2, dtype=self.dtype, name=name)(x)
        h, w = x.shape[1:3]
        x = enlarged(x, (2 * h, 2 * w)).astype(self.dtype)
        return Conv(channels, 1, bias=True, dtype=self.dtype, name=name)(x)


def margins(side: int, depth: int) -> tuple[int, int]:
    """Pixels before and behind a `side` so that unpadded convolutions answer for it.

    Every map that is pooled has an even side. What is answered for begins with the
    side's first pixel and may go on behind its last.
    """
    # The least side of the coarsest map from which enough is left on the way up.
    bottom = 5
    while _up(bottom, depth) < side:
        bottom += 1
    whole = bottom
    for _ in range(depth):
        whole = 2 * whole + 4
    before = (whole - _up(bottom, depth)) // 2
    return before, whole - side - before


def _up(bottom: int, depth: int) -> int:
    """The side that is answered for, where the coarsest map begins with `bottom`."""
    side = bottom - 4
    for _ in range(depth):
        side = 2 * side - 4
    return side


def joined(left, x):
    """Maps of the way down and of the way up in one, of the size that both have.

    The larger one is cropped: by unpadded convolutions about its middle, by a map that
    was pooled with a last odd row behind its end.
    """
    h, w = (min(a, b) for a, b in zip(left.shape[1:3], x.shape[1:3], strict=True))
    top, before = (left.shape[1] - h) // 2, (left.shape[2] - w) // 2
    left = left[:, top : top + h, before : before + w]
    return jnp.concatenate([left, x[:, :h, :w]], axis=-1)


def unet(
    *,
    num_classes: Count,
    width: Count = 64,
    depth: Count = 4,
    norm: Norm | None = "batch",
    padded: bool = True,
    up: Up = "transposed",
    dropout: Fraction = 0.0,
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A U-Net.

    num_classes: the classes that are told apart; if not set those of the data set.
    width: channels of the finest maps; each coarser one has twice as many.
    depth: how often maps are halved.
    norm: after each 3x3 convolution; None, as in the paper, is none.
    padded: whether convolutions keep the size. Else, as in the paper, the picture is
        mirrored at its borders by what they take away, about 2^(depth + 3) pixels on
        each side.
    up: how maps are enlarged: by a "transposed" 2x2 convolution, or "bilinear" with a
        convolution of one cell.
    dropout: of the two coarsest maps, in training; the paper has 0.5.
    loss: of the logits.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    The groups of its parameters are "backbone", the way down, and "head". Any size of
    images is taken.
    """
    kind = jnp.dtype(dtype)
    net = Net(num_classes, width, depth, norm, not padded, up, dropout, pixels, kind)
    return segmenter(net, num_classes, loss, groups=GROUPS)


def dense_unet(
    *,
    num_classes: Count = 1,
    width: Count = 64,
    depth: Count = 4,
    norm: Norm | None = "batch",
    padded: bool = True,
    up: Up = "transposed",
    dropout: Fraction = 0.0,
    loss: ValueLoss = ValueLoss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A U-Net whose answer is a number for every pixel, such as its depth.

    num_classes: 1, the one quantity of its data sets.
    width: channels of the finest maps; each coarser one has twice as many.
    depth: how often maps are halved.
    norm: after each 3x3 convolution; None, as in the paper, is none.
    padded: whether convolutions keep the size. Else, as in the paper, the picture is
        mirrored at its borders by what they take away, about 2^(depth + 3) pixels on
        each side.
    up: how maps are enlarged: by a "transposed" 2x2 convolution, or "bilinear" with a
        convolution of one cell.
    dropout: of the two coarsest maps, in training; the paper has 0.5.
    loss: of the numbers.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    The groups of its parameters are those of `unet`.
    """
    check_one(num_classes, "dense_unet")
    kind = jnp.dtype(dtype)
    net = Net(1, width, depth, norm, not padded, up, dropout, pixels, kind)
    return regressor(net, loss, groups=GROUPS)
