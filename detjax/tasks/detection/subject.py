"""What of a detector's answers is explained: detections, also of changed pictures."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from detjax.ops import boxes, masks
from detjax.tasks.detection.quantities import QUANTITIES, again, alike
from detjax.types import (
    Array,
    Asked,
    Batch,
    Detections,
    Explained,
    Inputs,
    Objects,
    Question,
    Subject,
)

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


def ask(answers: Detections, inputs: Inputs, question: Question) -> Asked:
    """The best detections of a picture, of the classes that are asked for.

    `which` is their boxes [1 q 4] and labels [1 q], -1 of what is nothing: in another
    picture the same quantity is that of the detection most like each, 0 if none is.
    """
    some = answers.valid[0] & (answers.scores[0] >= question.min_score)
    if question.labels:
        some &= np.isin(answers.labels[0], question.labels)
    index = np.flatnonzero(some)[: question.most]
    labels, scores = answers.labels[0, index], answers.scores[0, index]
    found = answers.boxes[0, index].astype(np.float32)
    rest = question.most - len(index)
    which = (
        np.pad(found, ((0, rest), (0, 0)))[None],
        np.pad(labels, (0, rest), constant_values=-1)[None],
    )
    captions = [
        f"{question.classes[label]} {score:.2f}"
        for label, score in zip(labels, scores, strict=True)
    ]
    return Asked(captions, which, same(question.quantity, question.part), found)


@functools.lru_cache
def same(name: str, part: int | None) -> Callable[..., Array]:
    """(answers, (boxes [b q 4], labels [b q])) -> [b q]: a quantity of those alike."""

    def call(answers: Detections, which: tuple[Array, Array]) -> Array:
        if name == "score":
            return alike(answers, *which)
        place, overlap = again(answers, *which)
        own = (answers, place) if part is None else (answers, place, part)
        return jnp.where(overlap > 0, QUANTITIES[name](*own), 0.0)

    return call
