"""DeepLabV3+ (Chen et al. 2018): DeepLabV3 with a decoder that sees fine features.

As jfzhang95/pytorch-deeplab-xception has it, whose decoder's names the parameters have;
corners are aligned wherever a map is resized.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.models.deeplab.aspp import Pooling
from detjax.models.pixelwise import Backbone, Loss, enlarged, segmenter
from detjax.nn.conv_norm import conv_norm
from detjax.nn.dense_head import classes
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.settings import Count, Dtype, Fraction
from detjax.types import Model


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What joins the coarse map with the finest features (section 3.1).

    fine: channels that the finest features are reduced to.
    features: channels of its two 3x3 convolutions.
    dropout: after each of them.
    """

    fine: Count = 48
    features: Count = 256
    dropout: tuple[Fraction, Fraction] = (0.5, 0.1)


class Decoding(linen.Module):
    """The coarse map and the finest features -> logits as fine as these."""

    num_classes: int
    settings: Decoder
    norm: Norm
    dtype: Any

    @linen.compact
    def __call__(self, x, fine, train: bool):
        def layer(x, features, kernel, names):
            kinds: Any = {"kind": self.norm, "dtype": self.dtype}
            return conv_norm(x, train, features, kernel, names=names, **kinds)

        fine = layer(fine, self.settings.fine, 1, ("conv1", "bn1"))
        x = enlarged(x, fine.shape[1:3], corners=True).astype(self.dtype)
        x = jnp.concatenate([x, fine], axis=-1)
        # The original counts ReLUs and dropouts too.
        for i, rate in zip((0, 4), self.settings.dropout, strict=True):
            names = f"last_conv.{i}", f"last_conv.{i + 1}"
            x = layer(x, self.settings.features, 3, names)
            x = linen.Dropout(rate, deterministic=not train)(x)
        return classes(x, self.num_classes, "last_conv.8", self.dtype)


class Net(linen.Module):
    """Images [b h w 3] -> logits of a stride of 4."""

    backbone: linen.Module
    num_classes: int
    pooling: Pooling
    output_stride: int
    decoding: Decoder
    norm: Norm
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        fine, *_, x = self.backbone(normalize(images, self.pixels, self.dtype), train)
        aspp = self.pooling.module(self.output_stride, self.norm, self.dtype, "aspp")
        decoder = Decoding(
            self.num_classes, self.decoding, self.norm, self.dtype, name="decoder"
        )
        return (decoder(aspp(x, train), fine, train).astype(jnp.float32),)


GROUPS = {"backbone": r"^backbone\.", "head": r"^(aspp|decoder)\."}


def deeplabv3plus(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone("resnet101"),
    aspp: Pooling = Pooling(),
    decoder: Decoder = Decoder(),
    norm: Norm = "batch",
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """DeepLabV3+.

    num_classes: the classes that are told apart; if not set those of the data set.
    norm: of the layers outside of the backbone.
    pixels: how images are normalised: by ImageNet's mean and deviation and so on, or
        not ("normalized"), because float images are already.
    dtype: of activations; parameters, logits and losses are float32.
    """
    kind = jnp.dtype(dtype)
    net = Net(
        backbone.body(kind),
        num_classes,
        aspp,
        backbone.output_stride,
        decoder,
        norm,
        pixels,
        kind,
    )
    return segmenter(net, num_classes, loss, corners=True, groups=GROUPS)
