"""Image classifiers: a backbone with its own last layer.

    b images, c classes
    logits   [b c]

Any network of `backbones` that has classes; each file there names its paper. Names of
parameters are the originals'.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax import backbones, losses
from detjax.errors import UserError
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.nn.start import initialiser
from detjax.settings import Count, Dtype, Fraction, NonNegative
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
    auxiliary: whether GoogLeNet and Inception v3 train classifiers on inner maps too.
    """

    name: backbones.Name = "resnet50"
    width: Count | None = None
    norm: Norm = "batch"
    dropout: Fraction | None = None
    remat: bool = False
    auxiliary: bool = False

    def module(self, num_classes: int, dtype: Any) -> linen.Module:
        """Normalised images [b h w 3] -> logits [b c].

        With auxiliary classifiers, in training, theirs too. Raises UserError where the
        backbone has none.
        """
        if self.auxiliary and not hasattr(backbones.make(self.name), "auxiliary_head"):
            raise UserError(
                f"model.backbone.auxiliary=True, and {self.name} has no auxiliary "
                "classifiers; leave it out, or take googlenet or inception_v3"
            )
        return backbones.make(
            self.name,
            width=self.width,
            dropout=self.dropout,
            norm=self.norm,
            remat=self.remat,
            auxiliary=self.auxiliary or None,
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
    competition: whether a softmax holds the other classes down; without it the loss is
        minus the right class's logit, as LeNet-5's distances were first trained (LeCun
        et al. 1998, eq. 8).
    rubbish: j of a class for what is none of the others, whose logit is -j (eq. 9).
    auxiliary: weight of the losses of auxiliary classifiers, where the backbone has
        some; the published one if None: 0.3, and Inception's 0.4.
    """

    several: bool = False
    smoothing: Fraction = 0.0
    competition: bool = True
    rubbish: float | None = None
    auxiliary: NonNegative | None = None

    def __call__(self, logits: Array, labels: Label) -> Array:
        """The loss [b] of each image."""
        count = logits.shape[-1]
        if self.several:
            weights = labels.weights * (1 - self.smoothing) + self.smoothing / 2
            return losses.sigmoid_cross_entropy(logits, weights).sum(axis=-1)
        total = jnp.maximum(labels.weights.sum(axis=-1, keepdims=True), 1e-6)
        weights = labels.weights / total
        weights = weights * (1 - self.smoothing) + self.smoothing / count
        if not self.competition:
            return -jnp.sum(weights * logits, axis=-1)
        if self.rubbish is not None:
            none = jnp.full_like(logits[:, :1], -self.rubbish)
            logits = jnp.concatenate([logits, none], axis=-1)
            weights = jnp.pad(weights, ((0, 0), (0, 1)))
        return -jnp.sum(weights * jax.nn.log_softmax(logits), axis=-1)

    def scores(self, logits: Array) -> Array:
        """Probabilities [b c]."""
        return (jax.nn.sigmoid if self.several else jax.nn.softmax)(logits)


class Net(linen.Module):
    """Images [b h w 3] -> logits [b c], float32.

    In training a tuple of these, where there are auxiliary classifiers.
    """

    backbone: linen.Module
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False):
        x = normalize(images, self.pixels, self.dtype)
        logits = self.backbone(x, train)
        return jax.tree.map(lambda x: x.astype(jnp.float32), logits)


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
    body = backbone.module(num_classes, kind)
    net = Net(body, pixels, kind)

    weight = loss.auxiliary
    if weight is None:
        weight = getattr(body, "auxiliary_weight", 0.0)

    def total(params, state, batch: Batch, key):
        found, updated = net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            mutable=[*state],
            rngs={"dropout": key},
        )
        logits, *inner = found if isinstance(found, tuple) else (found,)
        real = batch.inputs.view.valid
        importance = batch.target.importance

        def mean_of(logits):
            return losses.weighted_mean(loss(logits, batch.target), importance, real)

        mean = mean_of(logits)
        weights = batch.target.weights
        hit = jnp.take_along_axis(weights, logits.argmax(axis=-1)[:, None], axis=-1)
        correct = losses.masked_mean((hit[:, 0] > 0).astype(jnp.float32), real)
        metrics = {"class": mean, "correct": correct}
        if not inner:
            return mean, (updated, metrics)
        metrics["auxiliary"] = sum(map(mean_of, inner))
        return mean + weight * metrics["auxiliary"], (updated, metrics)

    def predict(params, state, inputs: Inputs) -> Scores:
        logits: Any = net.apply({"params": params, **state}, inputs.images)
        return Scores(loss.scores(logits), logits)

    head = body.head
    groups = {"backbone": rf"^backbone\.(?!{head})", "head": rf"^backbone\.({head})"}
    spec = Spec("classification", num_classes, groups=groups)
    return Model(spec, initialiser(net), total, predict, net)
