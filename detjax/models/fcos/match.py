"""What FCOS's places are to learn, and their losses."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax import losses
from detjax.models.fcos.places import Places
from detjax.ops import assign, boxes, columns
from detjax.settings import Fraction, NonNegative, Positive
from detjax.types import Array, Objects


class Targets(NamedTuple):
    """What is to be learnt of the places of one image."""

    labels: Array  # [p c] float32: 1 for the class of the object, else 0
    boxes: Array  # [p 4], of the positives
    positive: Array  # [p] bool
    learnt: Array  # [p] bool: all but those on crowds


@dataclasses.dataclass(frozen=True)
class Match:
    """Which places learn which object.

    radius: a place is positive if it lies in the object's box, and no further from its
        centre, along each axis, than so many strides.
    span: the farthest side of a level's boxes is so many strides away, up to twice as
        many.
    crowd_threshold: of the square of a stride around a place; places of which a crowd
        covers more are not learnt.

    Of several objects a place learns the smallest.
    """

    radius: Positive = 1.5
    span: Positive = 4.0
    crowd_threshold: Fraction = 0.7

    def targets(self, objects: Objects, at: Places, num_classes: int) -> Targets:
        """The `Targets` of the places of one image."""
        real = jnp.asarray(assign.learnable(objects))
        truth = jnp.where(real[:, None], objects.boxes, 0.0)
        # One object after the other: [p n] of 20,000 places would be much.
        start = jnp.full(len(at.stride), jnp.inf), jnp.zeros(len(at.stride), jnp.int32)

        def look(i, best):
            area, index = best
            sides = at.sides(jnp.broadcast_to(truth[i], (len(at.stride), 4)))
            middle = (truth[i, :2] + truth[i, 2:]) / 2
            apart = jnp.abs(at.centre - middle).max(axis=-1)
            far = sides.max(axis=-1)
            own = real[i] & (sides.min(axis=-1) > 0) & (apart < self.radius * at.stride)
            own &= (far > at.span[:, 0]) & (far < at.span[:, 1])
            size = jnp.prod(truth[i, 2:] - truth[i, :2])
            own &= size < area
            return jnp.where(own, size, area), jnp.where(own, i, index)

        area, index = jax.lax.fori_loop(0, len(truth), look, start)
        positive = jnp.isfinite(area)
        labels = jax.nn.one_hot(objects.labels[index], num_classes)
        half = at.stride[:, None] / 2
        square = np.concatenate([at.centre - half, at.centre + half], axis=-1)
        covered = assign.largest(
            columns.iou_crowd_rows(square, objects.boxes),
            objects.valid & objects.crowd,
        )
        return Targets(
            jnp.where(positive[:, None], labels, 0.0),
            jnp.where(positive[:, None], truth[index], square),
            positive,
            positive | (covered <= self.crowd_threshold),
        )


def centerness(sides: Array) -> Array:
    """How central a place lies in its box, [p 4] -> [p]: 1 in the centre, 0 at a side.

    Tian et al. 2019, equation 3. `sides` are above 0.
    """
    x, y = sides[:, ::2], sides[:, 1::2]
    ratios = x.min(axis=-1) / x.max(axis=-1) * y.min(axis=-1) / y.max(axis=-1)
    return jnp.sqrt(ratios)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The three losses, each over the number of the batch's positives.

    alpha, gamma: of the focal loss; see `losses.focal`.
    box_weight, centerness_weight: of those losses.
    """

    alpha: Fraction = 0.25
    gamma: NonNegative = 2.0
    box_weight: NonNegative = 1.0
    centerness_weight: NonNegative = 1.0

    def sums(
        self, logits: Array, reach: Array, quality: Array, at: Places, target: Targets
    ) -> dict[str, Array]:
        """The losses [] of one image by name, summed."""
        positive = target.positive
        focal = losses.focal(logits, target.labels, self.alpha, self.gamma)
        apart = 1 - boxes.paired_giou(at.box(reach), target.boxes)
        # A box around the place stands for the others' too: their centerness is 1.
        central = centerness(at.sides(target.boxes))
        entropy = losses.sigmoid_cross_entropy(quality, central)
        return {
            "class": jnp.sum(jnp.where(target.learnt[:, None], focal, 0.0)),
            "box": self.box_weight * jnp.sum(jnp.where(positive, apart, 0.0)),
            "centerness": self.centerness_weight
            * jnp.sum(jnp.where(positive, entropy, 0.0)),
        }
