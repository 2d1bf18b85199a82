"""The confusion matrix of detections: found, mistaken, missed, made up.

m truths, n detections, p pairs of the two in one image, c classes
"""

from collections.abc import Sequence

import numpy as np

from detjax.eval import overlaps
from detjax.eval.columns import Results, Truths, take
from detjax.eval.matching import THRESHOLDS, excused, pairs

MIN_IOU = float(THRESHOLDS[0])


def detections(
    truths: Truths,
    results: Results,
    *,
    image_ids: Sequence[int] | np.ndarray,
    num_classes: int,
    min_score: float,
) -> np.ndarray:
    """The matrix [c+1 c+1]: true class (row), class found (column), by boxes.

    The last row are detections of nothing (background), the last column are objects
    that were missed. Detections of `min_score` or more and objects that share an IoU of
    `MIN_IOU` are paired off whatever their classes: those of one class first, then by
    falling IoU, each of either once. Detections of what does not count, such as crowds,
    are left out.
    """
    images = np.unique(np.asarray(image_ids, np.int64))
    truths, truth_image = _by_image(truths, images, np.ones(len(truths.labels), bool))
    sure = np.asarray(results.scores) >= min_score
    results, image = _by_image(results, images, sure)
    similarity = overlaps.similarity(truths, results, "bbox")
    i, j, overlap = pairs(truth_image, image, similarity)
    void = excused(truths, "bbox")
    counts = ~void[j]
    other = truths.labels[j] != results.labels[i]
    order = np.lexsort((-overlap, other))
    order = order[counts[order]]
    first, second = _paired(i[order], j[order])

    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(matrix, (truths.labels[second], results.labels[first]), 1)
    missed = ~void
    missed[second] = False
    np.add.at(matrix[:, -1], truths.labels[missed], 1)
    alone = np.ones(len(results.labels), bool)
    alone[first] = False
    alone[i[~counts]] = False
    np.add.at(matrix[-1], results.labels[alone], 1)
    return matrix


def _by_image(records, images: np.ndarray, some: np.ndarray):
    """The records `some` of `images`, by image, and the rank of each one's image."""
    ids = np.asarray(records.image_ids, np.int64)
    order = np.argsort(ids, kind="stable")
    order = order[(some & np.isin(ids, images))[order]]
    return take(records, order), np.searchsorted(images, ids[order])


def _paired(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs [.] of those [p] in falling rank that are left when each ends others.

    A round takes all pairs that come first for both of their members, which no pair
    before them can end.
    """
    first: list[np.ndarray] = [np.zeros(0, np.int64)]
    second: list[np.ndarray] = [np.zeros(0, np.int64)]
    while len(i):
        both = np.zeros((2, len(i)), bool)
        both[0, np.unique(i, return_index=True)[1]] = True
        both[1, np.unique(j, return_index=True)[1]] = True
        won = both.all(axis=0)
        first.append(i[won])
        second.append(j[won])
        left = ~np.isin(i, i[won]) & ~np.isin(j, j[won])
        i, j = i[left], j[left]
    return np.concatenate(first), np.concatenate(second)
