"""What RetinaNet's priors are to learn, and their losses."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.ops import assign, boxes, matching
from detjax.settings import Fraction, NonNegative
from detjax.types import Array, Objects


class Targets(NamedTuple):
    """What is to be learnt of the priors of one image."""

    labels: Array  # [p c] float32: 1 for the class of the object, else 0
    boxes: Array  # [p 4], of the positives
    positive: Array  # [p] bool
    negative: Array  # [p] bool; neither of the two: not learnt


@dataclasses.dataclass(frozen=True)
class Match:
    """Which priors learn which object.

    positive, negative: a prior is positive from that IoU up, negative below; those
        between are not learnt. The best priors of each object are positive in any case.
    crowd_threshold: priors of which a crowd covers more are not learnt.
    """

    positive: Fraction = 0.5
    negative: Fraction = 0.4
    crowd_threshold: Fraction = 0.7

    def targets(self, objects: Objects, priors: Array, num_classes: int) -> Targets:
        """The `Targets` of the priors [p 4] of one image."""
        found = matching.match(
            objects,
            assign.learnable(objects),
            priors,
            positive=self.positive,
            negative=self.negative,
            crowd_threshold=self.crowd_threshold,
            low_quality=True,
        )
        labels = jax.nn.one_hot(objects.labels[found.index], num_classes)
        return Targets(
            jnp.where(found.positive[:, None], labels, 0.0),
            jnp.where(found.positive[:, None], objects.boxes[found.index], priors),
            found.positive,
            found.negative,
        )


@dataclasses.dataclass(frozen=True)
class Loss:
    """The two losses, each over the number of an image's positives.

    alpha, gamma: of the focal loss; see `losses.focal`.
    box: of the deltas ("l1"), or of the boxes ("giou").
    box_weight: of the loss of boxes.
    """

    alpha: Fraction = 0.25
    gamma: NonNegative = 2.0
    box: Literal["l1", "giou"] = "l1"
    box_weight: NonNegative = 1.0

    def parts(
        self, logits: Array, deltas: Array, priors: Array, target: Targets
    ) -> tuple[dict[str, Array], Array]:
        """The losses [] of one image by name, and the number of its positives."""
        focal = losses.focal(logits, target.labels, self.alpha, self.gamma)
        learnt = target.positive | target.negative
        if self.box == "l1":
            aim = boxes.encode_rcnn(target.boxes, priors)
            apart = losses.smooth_l1(deltas, aim, beta=0).sum(axis=-1)
        else:
            apart = 1 - boxes.paired_giou(
                boxes.decode_rcnn(deltas, priors), target.boxes
            )
        count = jnp.sum(target.positive)
        parts = {
            "class": jnp.sum(jnp.where(learnt[:, None], focal, 0.0)),
            "box": self.box_weight * jnp.sum(jnp.where(target.positive, apart, 0.0)),
        }
        return {k: v / jnp.maximum(count, 1) for k, v in parts.items()}, count
