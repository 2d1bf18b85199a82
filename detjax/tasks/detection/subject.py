"""What of a detector's answers is explained, to compare methods on: a detection."""

import jax
import jax.numpy as jnp
import numpy as np

from detjax.ops import boxes, masks
from detjax.tasks.detection.quantities import alike
from detjax.types import Array, Batch, Detections, Explained, Objects, Subject

OVERLAP = 0.5  # the IoU from which a detection is of an object


def of(batch: Batch, answers: Detections, classes: list[str]) -> Subject:
    """The best detection of each image that is of an object of its class."""
    target: Objects = batch.target
    best, counts, true = (
        np.asarray(x) for x in jax.jit(jax.vmap(_matched))(answers, target)
    )
    rows = np.arange(len(best))
    chosen = np.asarray(target.boxes)[rows, true][:, None]
    size = batch.inputs.images.shape[1:3]
    where = masks.of_boxes(chosen, np.ones((len(rows), 1), bool), size)
    which = (answers.boxes[rows, best][:, None], answers.labels[rows, best][:, None])
    return Subject(which, counts, np.asarray(where))


def _matched(found: Detections, target: Objects) -> tuple[Array, Array, Array]:
    """The place of the best true detection, whether there is one, and its object's."""
    same = found.labels[:, None] == target.labels
    real = found.valid[:, None] & (target.valid & ~target.crowd)
    overlap = jnp.where(same & real, boxes.iou(found.boxes, target.boxes), 0.0)
    hit = overlap.max(axis=1) >= OVERLAP
    best = jnp.where(hit, found.scores, -1.0).argmax()
    return best, hit.any(), overlap[best].argmax()


def score(answers: Detections, which: tuple[Array, Array]) -> Array:
    """How well the answers have a detection like (boxes [b 1 4], labels [b 1])."""
    return alike(answers, *which)


EXPLAINED = Explained(of, score, score)
