"""Sampling of candidates for fine-tuning, with their labels.

    q        candidates of one image: its proposals, then its objects
    n        objects
    c        classes; label c is the background

Girshick et al. 2014 (R-CNN), section 2.3.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from detjax.ops import assign, boxes
from detjax.ops.ranking import top_k
from detjax.settings import Fraction, Whole
from detjax.types import Array, Objects, Proposals


class Overlaps(NamedTuple):
    """Overlaps of candidates with objects, [q] of an image or [b q] of a batch."""

    valid: Array  # [q] bool
    overlap: Array  # [q c] with the nearest object of each class, crowds included
    truth: Array  # [q] the class of candidates that are objects, else -1
    labels: Array  # [q] the class of the object that is overlapped most
    iou: Array  # [q] with that object, which is no crowd
    deltas: Array  # [q 4] to it


@dataclasses.dataclass(frozen=True)
class Sample:
    """Settings of the fine-tuning samples.

    positive, negative: candidates are objects from that IoU up, background below.
    num_positives, num_background: candidates of either kind in a batch.
    """

    positive: Fraction = 0.5
    negative: Fraction = 0.5
    num_positives: Whole = 32
    num_background: Whole = 96

    def label(
        self, found: Proposals, objects: Objects, *, num_classes: int
    ) -> tuple[Array, Array]:
        """Labels [q] of one image's candidates; and which [q] may be learnt.

        A candidate has the class of the object that it overlaps most, from the IoU
        `positive` on. Below `negative` it is background; those between, and background
        that lies in a crowd for the most part, are not learnt.
        """
        overlap = jnp.where(
            assign.learnable(objects), boxes.iou(found.boxes, objects.boxes), 0.0
        )
        best = overlap.max(axis=1)
        hit = best >= self.positive
        labels = jnp.where(hit, objects.labels[overlap.argmax(axis=1)], num_classes)
        crowds = objects.valid & objects.crowd
        inside = jnp.where(crowds, boxes.iou_crowd(found.boxes, objects.boxes), 0.0)
        missed = (best < self.negative) & (inside.max(axis=1) < 0.5)
        return labels, found.valid & (hit | missed)

    def draw(
        self, key: Array, labels: Array, usable: Array, *, background: int
    ) -> tuple[Array, Array]:
        """Places of random positives, then background, and which of them are real.

        labels and usable are of any shape; the places are of their flattened forms.
        Where there are too few, a real one is repeated: batch statistics see nothing
        else.
        """
        chance = jax.random.uniform(key, (labels.size,))
        places, real = [], []
        for of_kind, count in (
            (labels != background, self.num_positives),
            (labels == background, self.num_background),
        ):
            score = jnp.where((usable & of_kind).ravel(), chance, -1.0)
            drawn, place = top_k(score, min(count, labels.size))
            places.append(place)
            real.append(drawn >= 0)
        place, is_real = jnp.concatenate(places), jnp.concatenate(real)
        return jnp.where(is_real, place, place[jnp.argmax(is_real)]), is_real


def candidates(proposals: Proposals, objects: Objects) -> Proposals:
    """The proposals and the objects that are learnt, [q]."""
    return Proposals(
        jnp.concatenate([proposals.boxes, objects.boxes]),
        jnp.concatenate([proposals.valid, assign.learnable(objects)]),
    )


def overlaps(found: Proposals, objects: Objects, *, num_classes: int) -> Overlaps:
    """The candidates of one image beside its objects."""
    iou = boxes.iou(found.boxes, objects.boxes)
    crowd = boxes.iou_crowd(found.boxes, objects.boxes)
    blurred = jnp.where(objects.crowd, jnp.maximum(iou, crowd), iou)
    classes = jnp.arange(num_classes)
    member = (objects.labels[:, None] == classes) & objects.valid[:, None]
    own = jnp.where(assign.learnable(objects), iou, 0.0)
    nearest = own.argmax(axis=1)
    proposed = jnp.full(len(found.valid) - len(objects.labels), -1)
    return Overlaps(
        valid=found.valid,
        overlap=jnp.where(member, blurred[..., None], 0.0).max(axis=1),
        truth=jnp.concatenate([proposed, objects.labels]),
        labels=objects.labels[nearest],
        iou=own.max(axis=1),
        deltas=boxes.encode_rcnn(objects.boxes[nearest], found.boxes),
    )
