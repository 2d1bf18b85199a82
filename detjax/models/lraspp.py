"""Lite reduced atrous spatial pyramid pooling (Howard et al. 2019, section 6.4).

    b images, c classes, oh ow a map of stride 8
    logits   [b oh ow c]

MobileNetV3's head for phones: the coarsest map, scaled by what the mean of the whole
map says of each channel, and a skip from stride 8. As torchvision has it, whose names
the parameters have; any backbone serves.
"""

from typing import Annotated, Any

import jax.numpy as jnp
from flax import linen

from detjax.models.pixelwise import Backbone, Loss, enlarged, segmenter
from detjax.nn.conv import Conv
from detjax.nn.conv_norm import conv_norm
from detjax.nn.dense_head import classes
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.settings import Count, Dtype, Range
from detjax.types import Model


class Head(linen.Module):
    """The finer and the coarsest feature [b h w .] -> logits as fine as the former."""

    num_classes: int
    features: int
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, low, high, train: bool):
        x = conv_norm(
            high,
            train,
            self.features,
            names=("cbr.0", "cbr.1"),
            kind=self.norm,
            dtype=self.dtype,
        )
        mean = high.mean(axis=(1, 2), keepdims=True)
        layer = Conv(self.features, 1, dtype=self.dtype, name="scale.1")
        x = enlarged(x * linen.sigmoid(layer(mean)), low.shape[1:3])
        x = classes(
            x.astype(self.dtype), self.num_classes, "high_classifier", self.dtype
        )
        return x + classes(low, self.num_classes, "low_classifier", self.dtype)


class Net(linen.Module):
    """Images [b h w 3] -> logits."""

    backbone: linen.Module
    num_classes: int
    level: int
    features: int
    norm: Norm
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        found = self.backbone(normalize(images, self.pixels, self.dtype), train)
        head = Head(
            self.num_classes, self.features, self.norm, self.dtype, name="classifier"
        )
        return (head(found[self.level - 2], found[-1], train).astype(jnp.float32),)


GROUPS = {"backbone": r"^backbone\.", "head": r"^classifier\."}
MOBILE = Backbone("mobilenet_v3_large")


def lraspp(
    *,
    num_classes: Count,
    backbone: Backbone = MOBILE,
    level: Annotated[int, Range(2, 4)] = 3,
    features: Count = 128,
    norm: Norm = "batch",
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """Lite R-ASPP.

    num_classes: the classes that are told apart; if not set those of the data set.
    level: the number of the finer feature that is read; 3 is of stride 8.
    features: channels of the head.
    norm: of the head's layers.
    pixels: how images are normalised: by ImageNet's mean and deviation and so on, or
        not ("normalized"), because float images are already.
    dtype: of activations; parameters, logits and losses are float32.
    """
    kind = jnp.dtype(dtype)
    body = backbone.body(kind)
    net = Net(body, num_classes, level, features, norm, pixels, kind)
    return segmenter(net, num_classes, loss, groups=GROUPS)


# torchvision's model, for its weights of COCO with VOC's classes and a background.
ORIGINALS: dict[str, dict[str, Any]] = {
    "lraspp_mobilenet_v3_large": {
        "num_classes": 21,
        "backbone": Backbone("mobilenet_v3_large", first_at_stride=True),
    }
}
