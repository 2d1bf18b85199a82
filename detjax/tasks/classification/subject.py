"""What of a classifier's answers is explained: a class, also of changed pictures."""

import functools
from collections.abc import Callable

import numpy as np
from jax import numpy as jnp

from detjax.tasks.classification import quantities
from detjax.types import (
    Array,
    Asked,
    Batch,
    Explained,
    Inputs,
    Label,
    Located,
    Quantity,
    Question,
    Scores,
    Subject,
)


def of(batch: Batch, answers: Scores, classes: list[str]) -> Subject:
    """The class that is said, of images that are of one class."""
    target: Label = batch.target
    weights = np.asarray(target.weights)
    counts = (weights.sum(axis=1) == 1) & (weights.max(axis=1) == 1)
    return Subject(np.asarray(answers.scores).argmax(axis=-1), counts, None)


def score(answers: Scores | Located, labels: Array) -> Array:
    """The logits of the classes [b]: [b 1]; the scores of answers without logits."""
    raw = answers.scores if answers.logits is None else answers.logits
    return jnp.take_along_axis(raw, labels[:, None], axis=1)


def probability(answers: Scores | Located, labels: Array) -> Array:
    """The scores of the classes [b]: [b 1]."""
    return jnp.take_along_axis(answers.scores, labels[:, None], axis=1)


EXPLAINED = Explained(of, score, probability)


def ask(
    answers: Scores | Located,
    inputs: Inputs,
    question: Question,
    known: Quantity = quantities.score,
) -> Asked:
    """The classes that are asked for, or the most probable one; `which` is [1 q]."""
    scores = np.asarray(answers.scores)[0]
    labels = np.array(question.labels or (int(scores.argmax()),))
    captions = [f"{question.classes[i]} {scores[i]:.2f}" for i in labels]
    return Asked(captions, labels[None], of_classes(known, question.part))


@functools.lru_cache
def of_classes(known: Quantity, part: int | None) -> Callable[..., Array]:
    """(answers, labels [b q]) -> [b q]: the quantity `known` of classes."""

    def call(answers: Scores | Located, labels: Array) -> Array:
        labels = jnp.broadcast_to(labels, (len(answers.scores), labels.shape[-1]))
        return known(answers, labels) if part is None else known(answers, labels, part)

    return call
