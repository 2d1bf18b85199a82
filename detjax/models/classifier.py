"""Image classifiers: a backbone with its own last layer.

    b images, c classes
    logits   [b c]

Krizhevsky et al. 2012 (AlexNet); Simonyan and Zisserman 2015 (VGG); He et al. 2016
(ResNet). Names of parameters are torchvision's.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax import backbones, losses
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.settings import Count, Dtype, Fraction
from detjax.types import Array, Batch, Inputs, Label, Model, Scores, Spec


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The classifier called `name`.

    name: of the network.
    width: channels of its first stage; the published ones if None.
    norm: of all its layers.
    dropout: of AlexNet's and VGG's hidden layers; the published one if None.
    remat: trains in less memory and more time: the insides of blocks are computed again
        for the gradient.
    """

    name: backbones.Name = "resnet50"
    width: Count | None = None
    norm: Norm = "batch"
    dropout: Fraction | None = None
    remat: bool = False

    def module(self, num_classes: int, dtype: Any) -> linen.Module:
        """Normalised images [b h w 3] -> logits [b c]."""
        return backbones.make(
            self.name,
            width=self.width,
            dropout=self.dropout,
            norm=self.norm,
            remat=self.remat,
            num_classes=num_classes,
            dtype=dtype,
        )


@dataclasses.dataclass(frozen=True)
class Loss:
    """How logits are compared with the labels.

    several: classes do not exclude each other, and each is a question of its own
        (sigmoids); else they share a softmax.
    smoothing: the part of the weights that is spread over all classes (Szegedy et al.
        2016, section 7).
    """

    several: bool = False
    smoothing: Fraction = 0.0

    def __call__(self, logits: Array, labels: Label) -> Array:
        """The loss [b] of each image."""
        count = logits.shape[-1]
        if self.several:
            weights = labels.weights * (1 - self.smoothing) + self.smoothing / 2
            return losses.sigmoid_cross_entropy(logits, weights).sum(axis=-1)
        total = jnp.maximum(labels.weights.sum(axis=-1, keepdims=True), 1e-6)
        weights = labels.weights / total
        weights = weights * (1 - self.smoothing) + self.smoothing / count
        return -jnp.sum(weights * jax.nn.log_softmax(logits), axis=-1)

    def scores(self, logits: Array) -> Array:
        """Probabilities [b c]."""
        return (jax.nn.sigmoid if self.several else jax.nn.softmax)(logits)


class Net(linen.Module):
    """Images [b h w 3] -> logits [b c], float32."""

    backbone: linen.Module
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False):
        x = normalize(images, self.pixels, self.dtype)
        return self.backbone(x, train).astype(jnp.float32)


def classifier(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(),
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """An image classifier.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised: by ImageNet's mean and deviation, in the way of
        YOLACT's weights, to 0..1 ("unit"), or not, because float images are already.
    dtype: of activations; parameters and losses are float32.

    Its answers are `Scores`. In training "correct" among the metrics is the share of
    images whose most probable class is one of theirs.
    """
    kind = jnp.dtype(dtype)
    net = Net(backbone.module(num_classes, kind), pixels, kind)

    def init(key, images):
        variables: Any = net.init(key, images)
        params = variables.pop("params")
        return params, variables

    def total(params, state, batch: Batch, key):
        logits, updated = net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            mutable=[*state],
            rngs={"dropout": key},
        )
        real = batch.inputs.view.valid
        mean = losses.masked_mean(loss(logits, batch.target), real)
        weights = batch.target.weights
        hit = jnp.take_along_axis(weights, logits.argmax(axis=-1)[:, None], axis=-1)
        correct = losses.masked_mean((hit[:, 0] > 0).astype(jnp.float32), real)
        return mean, (updated, {"class": mean, "correct": correct})

    def predict(params, state, inputs: Inputs) -> Scores:
        logits: Any = net.apply({"params": params, **state}, inputs.images)
        return Scores(loss.scores(logits))

    spec = Spec(
        "classification",
        num_classes,
        groups={
            "backbone": r"^backbone\.(?!(fc|classifier\.6)\.)",
            "head": r"^backbone\.(fc|classifier\.6)\.",
        },
    )
    return Model(spec, init, total, predict, net)
