"""Gated-SCNN's network: a stream of shapes beside the backbone, gated by it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.models.gscnn.wide_resnet import WideResNet
from detjax.models.pixelwise import enlarged
from detjax.nn.aspp import branches
from detjax.nn.batch import each_image
from detjax.nn.conv import Conv
from detjax.nn.conv_norm import conv_norm
from detjax.nn.dense_head import small
from detjax.nn.images import normalize
from detjax.nn.norm import norm
from detjax.ops import edges as ops

RATES = (12, 24, 36)


class Basic(linen.Module):
    """A residual block of two 3x3 convolutions, as wide as its input."""

    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        y = x
        for i, relu in ((1, linen.relu), (2, None)):
            names = f"conv{i}", f"bn{i}"
            kinds: Any = {"kind": self.norm, "dtype": self.dtype, "relu": relu}
            y = conv_norm(y, train, x.shape[-1], 3, names=names, **kinds)
        return linen.relu(x + y)


class Gate(linen.Module):
    """x [b h w i] scaled by 1 to 2 in every cell, as it and `other` [b h w 1] say.

    Takikawa et al. 2019, eq. 1 and 2; then a 1x1 convolution.
    """

    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, x, other, train: bool):
        def normed(x, name):
            kinds: Any = {"channels": x.shape[-1], "train": train, "dtype": self.dtype}
            return norm(self.norm, name=name, **kinds)(x)

        def conv(x, features, name):
            return Conv(features, 1, bias=True, dtype=self.dtype, name=name)(x)

        both = jnp.concatenate([x, other.astype(x.dtype)], axis=-1)
        y = normed(both, "_gate_conv.0")
        y = linen.relu(conv(y, both.shape[-1], "_gate_conv.1"))
        y = normed(conv(y, 1, "_gate_conv.3"), "_gate_conv.4")
        x = x * (linen.sigmoid(y) + 1)
        shape = (1, 1, x.shape[-1], x.shape[-1])
        kernel = self.param("kernel", linen.initializers.lecun_normal(), shape)
        return x @ kernel[0, 0].astype(self.dtype)


class Pooling(linen.Module):
    """Atrous spatial pyramid pooling that sees the edges [b h w 1] too."""

    features: int
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, x, edges, train: bool):
        layer = functools.partial(
            conv_norm, train=train, kind=self.norm, dtype=self.dtype
        )
        *found, mean = branches(x, layer, self.features, RATES)
        edges = enlarged(edges, x.shape[1:3], corners=True).astype(self.dtype)
        names = "edge_conv.0", "edge_conv.1"
        edges = layer(edges, features=self.features, names=names)
        return jnp.concatenate([mean, edges, *found], axis=-1)


class Net(linen.Module):
    """Images [b h w 3] -> logits [b oh ow c] of stride 2, edges [b h w] in 0..1.

    `canny` says of what the picture's edges are taken that join those of the stream:
    its "pixels", or the network's "input" cast to bytes, as the authors' code does.
    Given `edges` [b h w], 0 or 255, take their place. `features` of the pooling's
    branches and the decoder; 256 is the original.
    """

    backbone: WideResNet
    num_classes: int
    features: int
    canny: str
    norm: str
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False, edges: Any = None):
        x = normalize(images, self.pixels, self.dtype)
        edges = self._canny(images, x) if edges is None else edges
        found = self.backbone(x, train)
        size = images.shape[1:3]
        stream = self._stream(found, size, train)
        whole = functools.partial(enlarged, size=size, corners=True)
        shape = linen.sigmoid(whole(self._conv(stream, 1, "fuse")))
        given = edges[..., None].astype(jnp.float32)
        both = jnp.concatenate([shape, given], axis=-1).astype(self.dtype)
        acts = linen.sigmoid(self._conv(both, 1, "cw"))
        pool = Pooling(self.features, self.norm, self.dtype, name="aspp")
        logits = self._decoded(pool(found[6], acts, train), found[1], train)
        return logits.astype(jnp.float32), shape[..., 0]

    def _canny(self, images, x):
        """Edges [b h w] of the pictures, 0 or 255."""
        seen = images
        if self.canny == "input":
            # Numbers below 0 wrap, as a cast on a CPU does.
            seen = (x.astype(jnp.int32) & 255).astype(jnp.uint8)
        elif images.dtype != jnp.uint8:
            raise UserError(
                'model.canny="pixels" needs uint8 images, and these are '
                f'{images.dtype}; set model.canny="input"'
            )
        return jnp.where(each_image(ops.canny)(jax.lax.stop_gradient(seen)), 255, 0)

    def _stream(self, found, size, train):
        """The shapes' stream [b h w .], which three gates let through."""
        whole = functools.partial(enlarged, size=size, corners=True)

        def side(i):
            name = f"dsn{i}"
            return whole(self._conv(found[i - 1], 1, name, bias=True))

        # Held by the authors' weights; nothing reads it.
        self._conv(found[0], 1, "dsn1", bias=True)
        x = whole(found[0]).astype(self.dtype)
        channels = x.shape[-1]
        for i, level in ((1, 3), (2, 4), (3, 7)):
            x = Basic(self.norm, self.dtype, name=f"res{i}")(x, train)
            x = self._conv(x, max(channels >> i, 1), f"d{i}", bias=True)
            x = Gate(self.norm, self.dtype, name=f"gate{i}")(x, side(level), train)
        return x

    def _decoded(self, x, fine, train):
        x = self._conv(x, self.features, "bot_aspp")
        fine = self._conv(fine, max(self.features * 3 // 16, 1), "bot_fine")
        x = enlarged(x, fine.shape[1:3], corners=True).astype(self.dtype)
        x = jnp.concatenate([fine, x], axis=-1)
        for i in (0, 3):
            names = f"final_seg.{i}", f"final_seg.{i + 1}"
            kinds: Any = {"kind": self.norm, "dtype": self.dtype}
            x = conv_norm(x, train, self.features, 3, names=names, **kinds)
        return self._conv(x, self.num_classes, "final_seg.6", kernel_init=small)

    def _conv(self, x, features, name, **kwargs):
        kwargs = {"dtype": self.dtype, **kwargs}
        return Conv(features, 1, name=name, **kwargs)(x)
