"""A fully convolutional network on a dilated ResNet, as torchvision has it.

    b images, c classes, oh ow the backbone's coarsest map
    logits   [b oh ow c], of a stride of 8 by default

Long et al. 2015 replaced a classifier's last layers by convolutions; on networks that
are dilated (Yu and Koltun 2017) no skips and no learnt upsampling are needed. Any
backbone serves; names of parameters are torchvision's.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.models.pixelwise import Auxiliary, Backbone, Loss, segmenter
from detjax.nn.dense_head import FCNHead
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.settings import Count, Dtype, Fraction
from detjax.types import Model


class Net(linen.Module):
    """Images [b h w 3] -> logits, and in training those of the auxiliary head."""

    backbone: linen.Module
    num_classes: int
    auxiliary: Auxiliary | None
    dropout: float
    norm: Norm
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        features = self.backbone(normalize(images, self.pixels, self.dtype), train)
        head = FCNHead(
            self.num_classes,
            dropout=self.dropout,
            norm=self.norm,
            dtype=self.dtype,
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


def fcn_resnet(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(output_stride=8),
    auxiliary: Auxiliary | None = Auxiliary(),
    dropout: Fraction = 0.1,
    norm: Norm = "batch",
    loss: Loss = Loss(auxiliary=0.5),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A fully convolutional network without skips, on a dilated backbone.

    num_classes: the classes that are told apart; if not set those of the data set.
    auxiliary: a head on inner features in training; None is none.
    dropout: before the last layer.
    norm: of the heads' layers.
    pixels: how images are normalised: by ImageNet's mean and deviation and so on, or
        not ("normalized"), because float images are already.
    dtype: of activations; parameters, logits and losses are float32.
    """
    kind = jnp.dtype(dtype)
    body = backbone.body(kind)
    net = Net(body, num_classes, auxiliary, dropout, norm, pixels, kind)
    return segmenter(net, num_classes, loss, groups=GROUPS)


# torchvision's models, for its weights: those of COCO with VOC's 20 classes and a
# background, which is the first.
ORIGINALS: dict[str, dict[str, Any]] = {
    f"fcn_{name}": {"num_classes": 21, "backbone": Backbone(name, output_stride=8)}
    for name in ("resnet50", "resnet101")
}
