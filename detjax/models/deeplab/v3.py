"""DeepLabV3 (Chen et al. 2017): atrous spatial pyramid pooling on a dilated backbone.

As torchvision has it, whose names the parameters have.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.models.deeplab.aspp import Pooling
from detjax.models.pixelwise import Auxiliary, Backbone, Loss, segmenter
from detjax.nn.conv_norm import conv_norm
from detjax.nn.dense_head import classes
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.settings import Count, Dtype
from detjax.types import Model


class Head(linen.Module):
    """[b h w i] -> logits [b h w c]: the pooling, a 3x3 and a 1x1 convolution."""

    num_classes: int
    aspp: Pooling
    output_stride: int
    norm: Norm
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        pool = self.aspp.module(self.output_stride, self.norm, self.dtype, "0")
        x = conv_norm(
            pool(x, train),
            train,
            self.aspp.features,
            3,
            names=("1", "2"),
            kind=self.norm,
            dtype=self.dtype,
        )
        return classes(x, self.num_classes, "4", self.dtype)


class Net(linen.Module):
    """Images [b h w 3] -> logits, and in training those of the auxiliary head."""

    backbone: linen.Module
    num_classes: int
    aspp: Pooling
    output_stride: int
    auxiliary: Auxiliary | None
    norm: Norm
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        features = self.backbone(normalize(images, self.pixels, self.dtype), train)
        head = Head(
            self.num_classes,
            self.aspp,
            self.output_stride,
            self.norm,
            self.dtype,
            name="classifier",
        )
        found = [head(features[-1], train)]
        if self.auxiliary and (train or self.is_initializing()):
            other = self.auxiliary.head(
                self.num_classes, self.norm, self.dtype, "aux_classifier"
            )
            found.append(other(self.auxiliary.read(features), train))
        return tuple(x.astype(jnp.float32) for x in found)


GROUPS = {
    "backbone": r"^backbone\.",
    "head": r"^classifier\.",
    "auxiliary": r"^aux_classifier\.",
}


def deeplabv3(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(),
    aspp: Pooling = Pooling(),
    auxiliary: Auxiliary | None = Auxiliary(),
    norm: Norm = "batch",
    loss: Loss = Loss(auxiliary=0.5),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """DeepLabV3.

    num_classes: the classes that are told apart; if not set those of the data set.
    auxiliary: a head on inner features in training; None is none, as in the paper.
    norm: of the heads' layers.
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
        auxiliary,
        norm,
        pixels,
        kind,
    )
    return segmenter(net, num_classes, loss, groups=GROUPS)
