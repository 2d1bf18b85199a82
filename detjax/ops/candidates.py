"""The best boxes of a dense detector, before suppression.

Shape legend:

    p        priors or places of one image over all levels, level by level
    c        classes
    k        candidates
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops.ranking import top_k
from detjax.types import Array


class Candidates(NamedTuple):
    """Pairs of a prior and a class."""

    index: Int[Array, "k"]  # the prior
    scores: Float[Array, "k"]
    labels: Int[Array, "k"]
    valid: Bool[Array, "k"]


def by_level(
    logits: Float[Array, "p c"],
    counts: Sequence[int],
    most: int,
    threshold: ArrayLike,
    quality: Float[Array, "p"] | None = None,
) -> Candidates:
    """The `most` best pairs of each level that score more than `threshold`.

    counts: the priors of each level. quality: a logit of each prior, such as FCOS's
    centerness. A score is the sigmoid of the logit, with a quality the geometric mean
    of both sigmoids.

    The best class of a pair's prior is no worse than the pair, so the pairs are among
    those of the `most` priors whose best class is best: of these alone all classes are
    looked at. Of 11 million pairs at 800 x 1088 pixels and 90 classes that is 90,000.

    Lin et al. 2017 (RetinaNet), section 4.1; Tian et al. 2019 (FCOS), section 3.4.
    """
    best = logits.max(axis=-1)
    if quality is not None:
        best = jax.nn.log_sigmoid(best) + jax.nn.log_sigmoid(quality)
    found, start = [], 0
    for count in counts:
        index = start + top_k(best[start : start + count], min(most, count))[1]
        scores = jax.nn.sigmoid(logits[index])
        if quality is not None:
            scores = jnp.sqrt(scores * jax.nn.sigmoid(quality[index])[:, None])
        score, place = top_k(scores.ravel(), min(most, scores.size))
        row, label = jnp.divmod(place, logits.shape[1])
        found.append(Candidates(index[row], score, label, score > threshold))
        start += count
    return Candidates(*map(jnp.concatenate, zip(*found, strict=True)))


def by_class(
    scores: Float[Array, "p c"], most: int, threshold: ArrayLike
) -> Candidates:
    """The `most` best priors of each class that score more than `threshold`.

    Liu et al. 2016 (SSD), section 3.1, in the authors' numbers.
    """
    score, index = top_k(scores.T, min(most, scores.shape[0]))
    labels = jnp.broadcast_to(jnp.arange(len(index))[:, None], index.shape)
    pairs = index.ravel(), score.ravel(), labels.ravel()
    return Candidates(*pairs, pairs[1] > threshold)
