"""The most probable classes of images: from the device to results.json."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.ops.ranking import top_k
from detjax.types import Array, Scores

TOP = 5  # labels of an image that are written down, with all that are probable
MOST = 100  # that leave the device, for images of several classes


class Found(NamedTuple):
    """The most probable classes of one image, by falling score."""

    labels: Array  # [k]
    scores: Array  # [k]


def shrink(answers: Scores) -> Found:
    """The most probable classes of a batch, [b k]."""
    scores, labels = top_k(answers.scores, min(MOST, answers.scores.shape[-1]))
    return Found(labels, scores)


def mirror(answers: Scores, size: tuple[int, int], names: tuple[str, ...]) -> Scores:
    """The same: classes have no place in a picture."""
    return answers


def rescale(answers: Scores, scale: tuple[float, float]) -> Scores:
    """The same: classes have no size."""
    return answers


def merge(answers: Sequence[Scores], iou: float) -> Scores:
    """The mean probabilities."""
    return Scores(sum(a.scores for a in answers) / len(answers))


def restore(
    answer: Found,
    affine: np.ndarray,
    size: tuple[int, int],
    network_size: tuple[int, int],
    min_score: float = 0.0,
) -> Found:
    """`answer` without the classes that score less than `min_score`.

    The most probable one stays: a class of the image there always is.
    """
    return confident(answer, min_score)


def confident(found: Found, min_score: float) -> Found:
    """`found` as `restore` leaves it."""
    labels, scores = np.asarray(found.labels), np.asarray(found.scores)
    some = ~(scores < min_score)
    some[:1] = True
    return Found(labels[some], scores[some])


def entries(
    found: Found, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """An entry for each class, as COCO's results have them, by falling score.

    Of the five most probable, and of others with a score of at least .5.
    """
    count = written(found)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "score": float(score),
        }
        for label, score in zip(found.labels[:count], found.scores[:count], strict=True)
    ]


def written(found: Found) -> int:
    """How many of the classes are worth writing down: five, or all that are probable.

    All of a truth, which has no scores.
    """
    return max(TOP, int((~(np.asarray(found.scores) < 0.5)).sum()))
