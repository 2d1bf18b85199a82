"""What of a segmenter's answers is explained, to compare methods on: a region."""

import jax
import jax.numpy as jnp
import numpy as np

from detjax.tasks.segmentation import quantities
from detjax.types import Array, Batch, Explained, LabelMap, LabelScores, Subject

EMPTY = "background"  # the class that is never the subject


def of(batch: Batch, answers: LabelScores, classes: list[str]) -> Subject:
    """Where the class wins that wins most pixels and is not the background."""
    target: LabelMap = batch.target
    won = np.asarray(answers.logits).argmax(axis=-1)
    count = np.stack(
        [np.bincount(x.ravel(), minlength=answers.logits.shape[-1]) for x in won]
    )
    if EMPTY in classes:
        count[:, classes.index(EMPTY)] = 0
    labels = count.argmax(axis=1)
    truth = (np.asarray(target.labels) == labels[:, None, None]) & target.valid
    which = (labels[:, None], won == labels[:, None, None])
    return Subject(which, (count.max(axis=1) > 0) & truth.any(axis=(1, 2)), truth)


def score(answers: LabelScores, which: tuple[Array, Array]) -> Array:
    """The mean logits [b 1] of the classes [b 1] over regions [b h w]."""
    return quantities.score(answers, *which)


def probability(answers: LabelScores, which: tuple[Array, Array]) -> Array:
    """The mean probabilities [b 1] of the classes [b 1] over regions [b h w]."""
    odds = jax.nn.softmax(answers.logits.astype(jnp.float32))
    return score(answers.replace(logits=odds), which)  # type: ignore[attr-defined]


EXPLAINED = Explained(of, score, probability)
