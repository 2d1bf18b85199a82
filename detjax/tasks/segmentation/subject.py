"""What of a segmenter's answers is explained: a region, also of changed pictures."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from detjax.nn.images import shown
from detjax.tasks.segmentation import quantities
from detjax.types import (
    Array,
    Asked,
    Batch,
    Explained,
    Inputs,
    LabelMap,
    LabelScores,
    Question,
    Subject,
)

EMPTY = "background"  # the class that is never the subject


def of(batch: Batch, answers: LabelScores, classes: list[str]) -> Subject:
    """Where the class wins that wins most pixels and is not the background."""
    target: LabelMap = batch.target
    won, count = _won(answers, batch.inputs, classes)
    labels = count.argmax(axis=1)
    truth = (np.asarray(target.labels) == labels[:, None, None]) & target.valid
    which = (labels[:, None], won == labels[:, None, None])
    return Subject(which, (count.max(axis=1) > 0) & truth.any(axis=(1, 2)), truth)


def _won(
    answers: LabelScores, inputs: Inputs, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The class [b h w] that wins each place, -1 beside the picture; places [b c].

    Of the background none are counted.
    """
    logits = np.asarray(answers.logits)
    inside = np.asarray(shown(inputs, logits.shape[1:3]))
    won = np.where(inside, logits.argmax(axis=-1), -1)
    count = np.stack([np.bincount(x[x >= 0], minlength=logits.shape[-1]) for x in won])
    if EMPTY in classes:
        count[:, classes.index(EMPTY)] = 0
    return won, count


def score(answers: LabelScores, which: tuple[Array, Array]) -> Array:
    """The mean logits [b q] of the classes [b q] over regions [b h w]."""
    return quantities.score(answers, *which)


def probability(answers: LabelScores, which: tuple[Array, Array]) -> Array:
    """The mean probabilities [b 1] of the classes [b 1] over regions [b h w]."""
    odds = jax.nn.softmax(answers.logits.astype(jnp.float32))
    return score(answers.replace(logits=odds), which)  # type: ignore[attr-defined]


EXPLAINED = Explained(of, score, probability)


def ask(answers: LabelScores, inputs: Inputs, question: Question) -> Asked:
    """The classes that are asked for, or the one that wins most; where the first wins.

    `which` is the classes [1 q] and the places [1 h w]: all of the picture if it wins
    none of them. Without a class it is not the background that wins.
    """
    won, count = _won(answers, inputs, question.classes)
    labels = np.array(question.labels or (int(count[0].argmax()),))
    where = won == labels[0]
    if not where.any():
        where = won >= 0
    captions = [question.classes[i] for i in labels]
    return Asked(captions, (labels[None], where), score)
