"""Targets of YOLACT's priors, and their losses."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.ops import assign, boxes, columns
from detjax.settings import Fraction, NonNegative
from detjax.types import Array, Objects


class Targets(NamedTuple):
    """The targets of the priors of one image."""

    object: Array  # [p] int32: the object of each prior
    labels: Array  # [p] int32: its class, c for background
    deltas: Array  # [p 4]
    positive: Array  # [p] bool
    negative: Array  # [p] bool; neither of the two: neutral


@dataclasses.dataclass(frozen=True)
class Match:
    """SSD's matching of priors to objects, and of hard negatives to positives.

    positive, negative: a prior is positive from that IoU up, negative below; those
        between are not learnt. The best prior of each object is positive in any case.
    crowd_threshold: priors of which a crowd covers more are not learnt.
    negative_ratio: hard negatives for each positive.
    """

    positive: Fraction = 0.5
    negative: Fraction = 0.4
    crowd_threshold: Fraction = 0.7
    negative_ratio: NonNegative = 3

    def targets(self, objects: Objects, priors: Array, num_classes: int) -> Targets:
        """The `Targets` of the priors [p 4] of one image."""
        real = assign.learnable(objects)
        truth = jnp.where(real[:, None], objects.boxes, priors[:1])
        match = assign.match(
            columns.iou_rows(truth, priors),
            real,
            self.positive,
            self.negative,
            crowd_rows=columns.iou_crowd_rows(priors, objects.boxes),
            crowd_valid=objects.valid & objects.crowd,
            crowd_threshold=self.crowd_threshold,
        )
        labels = jnp.where(match.positive, objects.labels[match.index], num_classes)
        deltas = boxes.encode(truth[match.index], priors)
        return Targets(match.index, labels, deltas, match.positive, match.negative)

    def class_loss(self, logits: Array, target: Targets) -> Array:
        """Summed cross entropy [] of the positives and their hard negatives.

        A negative is as hard as its probability of background is small.
        """
        hardness = jax.nn.logsumexp(logits, axis=-1) - logits[:, -1]
        chosen = target.positive | assign.hard_negatives(
            jax.lax.stop_gradient(hardness),
            target.positive,
            target.negative,
            self.negative_ratio,
        )
        loss = losses.softmax_cross_entropy(logits, target.labels)
        return jnp.sum(jnp.where(chosen, loss, 0.0))


def box_loss(deltas: Array, target: Targets) -> Array:
    """Summed smooth L1 [] between the deltas [p 4] of the positives."""
    distance = losses.smooth_l1(deltas, target.deltas).sum(axis=-1)
    return jnp.sum(jnp.where(target.positive, distance, 0.0))
