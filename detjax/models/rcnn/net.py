"""The network of R-CNN: a classifier of crops, whose features are reused.

k        crops
c        classes; index c is the background
f, g     features that are classified, and that boxes are regressed from
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax import backbones
from detjax.nn.norm import Norm
from detjax.settings import Count
from detjax.types import Array


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The classifier whose features are classified.

    name: of the network.
    width: channels of its first stage; the published ones if None.
    norm: of all its layers.
    remat: trains in less memory and more time: the insides of blocks are computed again
        for the gradient.
    """

    name: backbones.Name = "alexnet"
    width: Count | None = None
    norm: Norm = "frozen"
    remat: bool = False

    def module(self, dtype: Any, name: str) -> linen.Module:
        return backbones.make(
            self.name,
            width=self.width,
            norm=self.norm,
            remat=self.remat,
            # Its fully connected layers are the paper's features.
            connected=True if self.name == "alexnet" else None,
            dtype=dtype,
            name=name,
        )


class Outputs(NamedTuple):
    """What the network computes of k crops."""

    logits: Array  # [k c+1], the background last
    pooled: Array  # [k f]: the last features' mean, fc7 of AlexNet
    spatial: Array  # [k g]: the last features of more than a pixel, pool5 of AlexNet


class Net(linen.Module):
    """Crops [k s s 3], normalised -> `Outputs`."""

    num_classes: int
    backbone: Backbone
    dtype: Any

    @linen.compact
    def __call__(self, crops, train: bool = False) -> Outputs:
        features = self.backbone.module(self.dtype, "backbone")(
            crops.astype(self.dtype), train
        )
        maps = [x.astype(jnp.float32) for x in features]
        pooled = maps[-1].mean(axis=(1, 2))
        wide = [x for x in maps if x.shape[1] * x.shape[2] > 1] or maps
        logits = linen.Dense(self.num_classes + 1, name="cls_score")(pooled)
        return Outputs(logits, pooled, wide[-1].reshape(len(crops), -1))
