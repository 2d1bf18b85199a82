"""What of a classifier's answers is explained, to compare methods on: a class."""

import numpy as np
from jax import numpy as jnp

from detjax.types import Array, Batch, Explained, Label, Located, Scores, Subject


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
