"""What can be explained of an image's classes."""

import jax.numpy as jnp

from detjax.types import Array, Located, Scores


def score(answers: Scores | Located, labels: Array | None = None) -> Array:
    """The logits [b q] of `labels` [b q]; of the most probable class if None.

    Probabilities where the answers have no logits.
    """
    of = answers.scores if answers.logits is None else answers.logits
    if labels is None:
        labels = answers.scores.argmax(axis=-1)[..., None]
    return jnp.take_along_axis(of, jnp.asarray(labels), axis=-1).astype(jnp.float32)
