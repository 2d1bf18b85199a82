"""What SSD's priors are to learn, and their losses (Liu et al. 2016, section 2.2)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.ops import assign, boxes, columns
from detjax.settings import Fraction, NonNegative
from detjax.types import Array, Objects

VARIANCES = (0.1, 0.2)  # of the deltas (dx, dy), (dw, dh)


class Targets(NamedTuple):
    """What is to be learnt of the priors of one image."""

    labels: Array  # [p] int32: the class, c for background
    deltas: Array  # [p 4]
    positive: Array  # [p] bool
    negative: Array  # [p] bool; neither of the two: not learnt


@dataclasses.dataclass(frozen=True)
class Match:
    """Which priors learn which object, and how many others learn the background.

    positive: a prior is positive from that IoU up. The best prior of each object is
        positive in any case.
    one_each: where objects have the same best prior, each gets one of its own, as in
        the authors' code; torchvision's gives it to the last and leaves out the others.
    crowd_threshold: priors of which a crowd covers more are not learnt.
    negative_ratio: hard negatives of an image for each positive.
    """

    positive: Fraction = 0.5
    one_each: bool = True
    crowd_threshold: Fraction = 0.7
    negative_ratio: NonNegative = 3

    def targets(self, objects: Objects, priors: Array, num_classes: int) -> Targets:
        """The `Targets` of the priors [p 4] of one image."""
        real = assign.learnable(objects)
        truth = jnp.where(real[:, None], objects.boxes, priors[:1])
        rows = columns.iou_rows(truth, priors)
        index, positive, negative = assign.match(
            rows,
            real,
            self.positive,
            self.positive,
            force=self.one_each,
            crowd_rows=columns.iou_crowd_rows(priors, objects.boxes),
            crowd_valid=objects.valid & objects.crowd,
            crowd_threshold=self.crowd_threshold,
        )
        if not self.one_each:
            best = assign.nearest(rows, real).prior
            owner = (
                jnp.full(len(priors), -1)
                .at[best]
                .max(jnp.where(real, jnp.arange(len(real)), -1))
            )
            index = jnp.where(owner >= 0, owner, index)
            positive |= owner >= 0
            negative &= ~positive
        return Targets(
            jnp.where(positive, objects.labels[index], num_classes),
            boxes.encode(truth[index], priors, VARIANCES),
            positive,
            negative,
        )

    def class_loss(self, logits: Array, target: Targets) -> Array:
        """Summed cross entropy [] of the positives and their hard negatives.

        Negatives of the highest loss: logits [p c+1], the background last.
        """
        loss = losses.softmax_cross_entropy(logits, target.labels)
        chosen = target.positive | assign.hard_negatives(
            jax.lax.stop_gradient(loss),
            target.positive,
            target.negative,
            self.negative_ratio,
        )
        return jnp.sum(jnp.where(chosen, loss, 0.0))


def box_loss(deltas: Array, target: Targets) -> Array:
    """Summed smooth L1 [] between the deltas [p 4] of the positives."""
    distance = losses.smooth_l1(deltas, target.deltas).sum(axis=-1)
    return jnp.sum(jnp.where(target.positive, distance, 0.0))
