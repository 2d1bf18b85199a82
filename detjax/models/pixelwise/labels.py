"""A class for every pixel: losses of label maps, and a network as a model."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.models.pixelwise.maps import enlarged, without_padding
from detjax.nn.start import initialiser
from detjax.settings import Fraction, NonNegative
from detjax.types import Array, Batch, Inputs, LabelMap, LabelScores, Model, Spec


@dataclasses.dataclass(frozen=True)
class Loss:
    """How the logits of pixels are compared with their classes.

    pixels: the loss of each pixel: "cross_entropy", "focal" (Lin et al. 2017), or
        "ohem", the cross entropy of the hardest pixels (Wu et al. 2016); None is none.
    gamma: of "focal".
    threshold: of "ohem": pixels are hard whose class has a lower probability.
    least: of "ohem": the share of pixels that count at least, the hardest ones.
    mean_over: what the sum over pixels is divided by: the "weights" of the pixels
        (their number, unless classes are weighted), their number ("pixels"), the number
        of "images", or both of the latter ("pixels_and_images").
    dice: weight of the soft Dice loss beside it (Milletari et al. 2016).
    lovasz: weight of the Lovász-softmax loss (Berman et al. 2018).
    auxiliary: weight of the same loss of auxiliary heads.
    """

    pixels: Literal["cross_entropy", "focal", "ohem"] | None = "cross_entropy"
    gamma: NonNegative = 2.0
    threshold: Fraction = 0.7
    least: Fraction = 1 / 16
    mean_over: Literal["weights", "pixels", "images", "pixels_and_images"] = "weights"
    dice: NonNegative = 0.0
    lovasz: NonNegative = 0.0
    auxiliary: NonNegative = 0.4

    def __call__(self, logits: Array, target: LabelMap, images: Array) -> Array:
        """The loss of a batch: logits [b h w c], `images` its real ones, a number."""
        valid = target.valid
        # Ignored pixels may hold what is no class.
        labels = jnp.where(valid, target.labels.astype(jnp.int32), 0)
        total = jnp.float32(0)
        if self.pixels is not None:
            each, counted = self._each(logits, labels, valid)
            weights = counted.astype(jnp.float32)
            if target.weights is not None:
                weights *= of_labels(target.weights, labels)
            total += self._mean(each, counted, weights, images)
        if self.dice:
            total += self.dice * losses.dice(logits, labels, valid)
        if self.lovasz:
            total += self.lovasz * losses.lovasz_softmax(logits, labels, valid)
        return total

    def _each(self, logits, labels, valid) -> tuple[Array, Array]:
        """The loss of each pixel, and which count, [b h w]."""
        if self.pixels == "focal":
            return losses.softmax_focal(logits, labels, self.gamma), valid
        each = losses.softmax_cross_entropy(logits, labels)
        if self.pixels == "ohem":
            hard = -math.log(max(self.threshold, 1e-9))
            valid = losses.hardest(each, valid, hard, self.least)
        return each, valid

    def _mean(self, each, valid, weights, images) -> Array:
        """The mean of losses [b h w] where they are `valid`, by their weights."""
        pixels, images = jnp.maximum(valid.sum(), 1), jnp.maximum(images, 1)
        by = {
            "weights": jnp.maximum(weights.sum(), 1e-6),
            "pixels": pixels,
            "images": images,
            "pixels_and_images": pixels * images,
        }
        return jnp.sum(jnp.where(valid, each, 0) * weights) / by[self.mean_over]


def of_labels(weights: Array, labels: Array) -> Array:
    """The weights [b c] of the classes that the pixels [b h w] of each image have."""
    flat = labels.reshape(len(labels), -1)
    return jnp.take_along_axis(weights, flat, axis=1).reshape(labels.shape)


def segmenter(
    net: linen.Module,
    num_classes: int,
    loss: Loss,
    *,
    corners: bool = False,
    groups: Mapping[str, str],
) -> Model:
    """A network as a model of the task "segmentation".

    net: (images [b h w 3], train=False) -> a tuple of logits [b oh ow c] of the
        classes; first those that count, then, in training, those of auxiliary heads.
    corners: how logits are enlarged to the input's size; see `ops.resize.bilinear`.
    groups: see `Spec.groups`.

    In training "pixels" among the metrics is the loss of the head that counts,
    "auxiliary" the sum of the others', and "correct" the share of pixels whose most
    probable class is right. Its answers are `LabelScores`.
    """

    def total(params, state, batch: Batch, key):
        found, updated = net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            mutable=[*state],
            rngs={"dropout": key},
        )
        mean, metrics = compared(found, batch, batch.target, loss, corners)
        return mean, (updated, metrics)

    def predict(params, state, inputs: Inputs) -> LabelScores:
        logits, *_ = net.apply({"params": params, **state}, inputs.images)
        size = inputs.images.shape[1:3]
        return LabelScores(logits.astype(jnp.float32), size, corners)

    spec = Spec("segmentation", num_classes, groups=groups)
    return Model(spec, initialiser(net), total, predict, net)


def compared(
    maps: tuple[Array, ...],
    batch: Batch,
    target: LabelMap,
    loss: Loss,
    corners: bool = False,
) -> tuple[Array, dict[str, Array]]:
    """The loss of `maps`, as a network in `segmenter` makes them, and its metrics."""
    target = dataclasses.replace(target, valid=without_padding(target.valid, batch))
    real = batch.inputs.view.valid.sum()
    maps = tuple(enlarged(x, target.labels.shape[1:3], corners) for x in maps)
    first, *others = (loss(logits, target, real) for logits in maps)
    right = maps[0].argmax(axis=-1) == target.labels
    correct = losses.masked_mean(right.astype(jnp.float32), target.valid)
    metrics: dict[str, Any] = {"pixels": first, "correct": correct}
    if not others:
        return first, metrics
    metrics["auxiliary"] = sum(others)
    return first + loss.auxiliary * metrics["auxiliary"], metrics
