"""The head that classifies regions and moves their boxes: modules and losses.

    k        regions of one image
    c        classes; index c is the background, in logits and in boxes

Girshick 2015 (Fast R-CNN), section 2.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.backbones import resnet
from detjax.backbones.pyramid import Backbone
from detjax.models.two_stage.heads import Convs, dense, flat
from detjax.models.two_stage.roi import Regions
from detjax.nn.norm import Norm
from detjax.settings import Count, Fraction, NonNegative
from detjax.types import Array


@dataclasses.dataclass(frozen=True)
class Box:
    """Settings of the second stage's head on boxes.

    head: "mlp", two fully connected layers (VGG's); "convs", four convolutions and one
        layer (torchvision's v2); or "last_stage" of the backbone, a ResNet (C4).
    bins: along a region's side.
    hidden: units of the fully connected layers.
    dropout: after each layer of an "mlp".
    norm: of the convolutions of "convs"; None is none.
    beta: where smooth L1 of the deltas turns straight; 1 in Fast R-CNN.
    """

    head: Literal["mlp", "convs", "last_stage"] = "mlp"
    bins: Count = 7
    hidden: Count = 1024
    dropout: Fraction = 0.0
    norm: Norm | None = None
    beta: NonNegative = 1 / 9

    def modules(
        self, num_classes: int, backbone: Backbone, dtype: Any
    ) -> dict[str, linen.Module]:
        """The head and the predictor, by their names in the network."""
        head: linen.Module
        if self.head == "convs":
            kinds = {"norm_eps": backbone.others_eps, "dtype": dtype}
            head = Convs(None, hidden=self.hidden, norm=self.norm, **kinds)
        elif self.head == "last_stage":
            spec, width = resnet.SPECS[backbone.name], backbone.width or 64
            stage = resnet.Stage(
                spec,
                width,
                backbone.norm,
                norm_eps=backbone.others_eps,
                remat=backbone.remat,
                dtype=dtype,
            )
            head = LastStage(stage)
        else:
            head = TwoMLP(self.hidden, self.dropout, dtype)
        return {"box_head": head, "box_predictor": Predictor(num_classes, dtype)}

    def losses(
        self, logits: Array, deltas: Array, regions: Regions
    ) -> tuple[Array, Array, Array]:
        """Cross entropy [] and smooth L1 [] of one image, summed, and their count.

        A region's box is that of its own class, of deltas [k c+1 4].
        """
        entropy = losses.softmax_cross_entropy(logits, regions.labels)
        own = jnp.take_along_axis(deltas, regions.labels[:, None, None], axis=1)[:, 0]
        distance = losses.smooth_l1(own, regions.deltas, self.beta).sum(axis=-1)
        return (
            jnp.sum(jnp.where(regions.chosen, entropy, 0.0)),
            jnp.sum(jnp.where(regions.positive, distance, 0.0)),
            jnp.sum(regions.chosen),
        )


class TwoMLP(linen.Module):
    """Two fully connected layers, [n s s c] -> [n hidden]; `dropout` after each.

    FPN's head has 1024 units, VGG's 4096 and dropout.
    """

    hidden: int = 1024
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False, real=None):
        x = flat(x)
        for name in ("fc6", "fc7"):
            x = linen.Dense(
                self.hidden, kernel_init=dense, dtype=self.dtype, name=name
            )(x)
            x = linen.relu(x)
            if self.dropout:
                x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return x


class LastStage(linen.Module):
    """A ResNet's last stage and the mean over its cells, [n s s c] -> [n d]."""

    stage: linen.Module

    @linen.compact
    def __call__(self, x, train: bool = False, real=None):
        return self.stage(x, train).mean(axis=(1, 2))


class Predictor(linen.Module):
    """[n d] -> class logits [n c+1] and a box for each class, deltas [n c+1 4]."""

    num_classes: int
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        def layer(width, scale, name):
            kernel = jax.nn.initializers.normal(scale)
            return linen.Dense(width, kernel_init=kernel, dtype=self.dtype, name=name)

        count = self.num_classes + 1
        logits = layer(count, 0.01, "cls_score")(x)
        deltas = layer(4 * count, 0.001, "bbox_pred")(x)
        return (
            logits.astype(jnp.float32),
            deltas.astype(jnp.float32).reshape(-1, count, 4),
        )
