"""Pyramid scene parsing network (Zhao et al., CVPR 2017).

    b images, c classes, oh ow the backbone's coarsest map
    logits   [b oh ow c], of a stride of 8 by default

The coarsest map beside its means over 1, 4, 9 and 36 regions. As the authors' PyTorch
code has it (hszhao/semseg): a stem of three convolutions, dilation in every block of
the last stages, corners aligned wherever a map is resized. That code takes sides of 8k
+ 1 pixels, at which cells and corners agree; here any size works.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.models.pixelwise import Auxiliary, Backbone, Loss, enlarged, segmenter
from detjax.nn import pool
from detjax.nn.conv_norm import conv_norm
from detjax.nn.dense_head import FCNHead
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.settings import Count, Dtype, Fraction
from detjax.types import Model


class PyramidPooling(linen.Module):
    """[b h w i] -> [b h w .]: the map, and its means over n x n bins for each n.

    Means have `features` channels each, or all together as many as the map if None.
    """

    bins: tuple[int, ...]
    features: int | None
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        found = [x]
        channels = self.features or max(x.shape[-1] // len(self.bins), 1)
        for i, side in enumerate(self.bins):
            means = conv_norm(
                pool.binned(x, side),
                train,
                channels,
                names=(f"features.{i}.1", f"features.{i}.2"),
                kind=self.norm,
                dtype=self.dtype,
            )
            found.append(enlarged(means, x.shape[1:3], corners=True).astype(x.dtype))
        return jnp.concatenate(found, axis=-1)


class Net(linen.Module):
    """Images [b h w 3] -> logits, and in training those of the auxiliary head."""

    backbone: linen.Module
    num_classes: int
    bins: tuple[int, ...]
    features: int | None
    hidden: int
    dropout: float
    auxiliary: Auxiliary | None
    norm: Norm
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        features = self.backbone(normalize(images, self.pixels, self.dtype), train)
        ppm = PyramidPooling(
            self.bins, self.features, self.norm, self.dtype, name="ppm"
        )
        head = FCNHead(
            self.num_classes,
            self.hidden,
            self.dropout,
            whole_maps=True,
            norm=self.norm,
            dtype=self.dtype,
            name="cls",
        )
        found = [head(ppm(features[-1], train), train)]
        if self.auxiliary and (train or self.is_initializing()):
            other = self.auxiliary.head(self.num_classes, self.norm, self.dtype, "aux")
            found.append(other(self.auxiliary.read(features), train))
        return tuple(x.astype(jnp.float32) for x in found)


GROUPS = {
    "backbone": r"^backbone\.",
    "head": r"^(ppm|cls)\.",
    "auxiliary": r"^aux\.",
}


def pspnet(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(output_stride=8),
    bins: tuple[Count, ...] = (1, 2, 3, 6),
    features: Count | None = None,
    hidden: Count = 512,
    dropout: Fraction = 0.1,
    auxiliary: Auxiliary | None = Auxiliary(features=256, whole_maps=True),
    norm: Norm = "batch",
    loss: Loss = Loss(auxiliary=0.4),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """PSPNet.

    num_classes: the classes that are told apart; if not set those of the data set.
    backbone: a plain one by default, for classifiers' weights; the authors' is that of
        pspnet50 and pspnet101.
    bins: rows and columns of each level of the pyramid.
    features: channels of each level; if None all together as many as the backbone's.
    hidden: channels before the last layer.
    dropout: of whole channels, before the last layer.
    auxiliary: a head on inner features in training; None is none.
    norm: of the layers outside of the backbone.
    pixels: how images are normalised: by ImageNet's mean and deviation and so on, or
        not ("normalized"), because float images are already.
    dtype: of activations; parameters, logits and losses are float32.
    """
    kind = jnp.dtype(dtype)
    net = Net(
        backbone.body(kind),
        num_classes,
        bins,
        features,
        hidden,
        dropout,
        auxiliary,
        norm,
        pixels,
        kind,
    )
    return segmenter(net, num_classes, loss, corners=True, groups=GROUPS)


def _deep(name: str) -> Backbone:
    """The authors' ResNet called `name`."""
    return Backbone(name, output_stride=8, deep_stem=True, dilate_at_once=True)


# The authors' models. Their weights are of ADE20K's 150, VOC's 21 or Cityscapes' 19
# classes: `num_classes` says which.
ORIGINALS: dict[str, dict[str, Any]] = {
    "pspnet50": {"backbone": _deep("resnet50")},
    "pspnet101": {"backbone": _deep("resnet101")},
}
