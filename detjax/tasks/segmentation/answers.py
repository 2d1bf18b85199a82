"""Label maps: from the device to the pixels of the original picture."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.data import moved_maps
from detjax.ops import resize
from detjax.ops.label_argmax import label_argmax
from detjax.tasks.segmentation.storage import parts
from detjax.types import Array, LabelScores

LEAST = 1e-12  # of a probability, whose logarithm is taken


class Shrunk(NamedTuple):
    """The most probable classes of the pixels of a network's inputs."""

    labels: Array  # [b h w] uint8 or uint16
    scores: Array  # [b h w] uint8: their probability, of 255


class Found(NamedTuple):
    """The classes of the pixels of one image."""

    labels: np.ndarray  # [h w] uint8 or uint16
    valid: np.ndarray  # [h w] bool: the pixels that have a class, others are ignored
    scores: np.ndarray | None = None  # [h w] uint8: probability, of 255; none of truth


def shrink(answers: LabelScores) -> Shrunk:
    """The labels of a batch at the size of its inputs, with their probabilities."""
    labels, scores = jax.vmap(
        lambda logits: label_argmax(logits, answers.size, answers.corners)
    )(answers.logits)
    return Shrunk(labels, jnp.round(255 * scores).astype(jnp.uint8))


def mirror(
    answers: LabelScores, size: tuple[int, int], names: tuple[str, ...]
) -> LabelScores:
    """`answers` as in the mirror image."""
    return dataclasses.replace(answers, logits=answers.logits[:, :, ::-1])


def rescale(answers: LabelScores, scale: tuple[float, float]) -> LabelScores:
    """`answers` in a picture that is `scale` (y, x) times as large."""
    h, w = answers.size
    size = round(h * scale[0]), round(w * scale[1])
    return dataclasses.replace(answers, size=size)


def merge(answers: Sequence[LabelScores], iou: float) -> LabelScores:
    """The mean probabilities, on the finest of the grids; as logarithms."""
    grids = [answer.logits.shape[1:3] for answer in answers]
    grid = max(grids, key=lambda sides: sides[0] * sides[1])
    first = answers[0]
    total: Any = 0.0
    for answer in answers:
        scores = jax.nn.softmax(answer.logits)
        if answer.logits.shape[1:3] != grid:
            scores = jax.vmap(
                lambda one, corners=answer.corners: resize.bilinear(one, grid, corners)
            )(scores)
        total = total + scores
    mean = jnp.maximum(total / len(answers), LEAST)
    return LabelScores(jnp.log(mean), first.size, first.corners)


def restore(
    answer: Shrunk,
    affine: np.ndarray,
    size: tuple[int, int],
    network_size: tuple[int, int],
    min_score: float = 0.0,
) -> Found:
    """The classes of one image's own pixels, of `size` (h, w), by nearest neighbour.

    `affine` [2 3] maps original pixels to those of the network's input. Pixels whose
    probability is below `min_score` are ignored.
    """
    back = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))
    labels, scores = (
        moved_maps.nearest(np.asarray(held), back, size)[0]
        for held in (answer.labels, answer.scores)
    )
    return confident(Found(labels, np.ones(size, bool), scores), min_score)


def confident(found: Found, min_score: float) -> Found:
    """`found` as `restore` leaves it."""
    if min_score <= 0 or found.scores is None:
        return found
    return found._replace(valid=found.valid & (found.scores >= 255 * min_score))


def entries(
    found: Found, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """An entry for each class that is found, the largest first, as COCO's have them.

    Its mask as a run-length code, its share of the picture's pixels as "area_share",
    and the mean probability of its pixels as "score".
    """
    held = parts(found.labels, found.valid)
    pixels = max(found.labels.size, 1)
    means = mean_scores(found, max(held, default=0) + 1)
    h, w = found.labels.shape
    order = sorted(held, key=lambda label: -held[label].area)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "area_share": round(held[label].area / pixels, 6),
            "score": round(float(means[label]), 4),
            "segmentation": {"size": [h, w], "counts": held[label].rle.decode()},
        }
        for label in order
    ]


def mean_scores(found: Found, count: int) -> np.ndarray:
    """The mean probability of the pixels of the first `count` classes; 1 of truth."""
    if found.scores is None:
        return np.ones(count)
    sums = np.zeros((2, count))
    for labels, scores, valid in zip(
        found.labels, found.scores, found.valid, strict=True
    ):
        some = labels[valid]
        sums[0] += np.bincount(some, scores[valid], minlength=count)
        sums[1] += np.bincount(some, minlength=count)
    return sums[0] / np.maximum(sums[1], 1) / 255
