"""The percentage of correct keypoints, PCK and PCKh.

m      truths with keypoints
n      detections
k      keypoints of each
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detjax.eval import matching, overlaps
from detjax.eval.columns import Results, Truths, arranged


class Scale(NamedTuple):
    """By what distances are measured.

    reach: a keypoint is found if it is no further away than this part of a length.
    pair: the two keypoints of the object whose distance is the length; if None it is
        the longer side of the object's box.
    """

    reach: float
    pair: tuple[int, int] | None = None


def evaluate(
    truths: Truths,
    results: Results,
    *,
    image_ids: np.ndarray,
    num_classes: int,
    by: Scale,
) -> tuple[np.ndarray, np.ndarray]:
    """Which keypoints are found, and which count: [m k] bool each.

    Those count that are labelled, of truths that are neither crowds nor ignored and
    whose length is known. An object's pose is that of the detection of its image and
    class whose box overlaps its own most, the better of equal ones.

    Yang and Ramanan 2013 (PCK); Andriluka et al. 2014 (PCKh: half of the head).
    """
    images = np.unique(image_ids)
    truths, truth_group = arranged(truths, images, num_classes)
    results, group = arranged(results, images, num_classes)
    assert truths.keypoints is not None
    likeness = overlaps.similarity(truths, results, "bbox")
    some = float(np.nextafter(0, 1))
    i, j, overlap = matching.pairs(truth_group, group, likeness, some)
    order = np.lexsort((i, -overlap, j))
    whose, first = np.unique(j[order], return_index=True)
    points = np.full((*truths.keypoints.shape[:2], 2), np.nan)
    if results.keypoints is not None:
        points[whose] = results.keypoints[i[order][first], :, :2]
    counts = length_of(truths, by) > 0
    counts &= ~matching.excused(truths, "bbox")
    counts = counts[:, None] & (truths.keypoints[..., 2] > 0)
    apart = np.linalg.norm(points - truths.keypoints[..., :2], axis=-1)
    # What is not predicted is NaN, and no comparison with that holds.
    return counts & (apart <= by.reach * length_of(truths, by)[:, None]), counts


def length_of(truths: Truths, by: Scale) -> np.ndarray:
    """What distances of each truth are measured by [m]; 0 where that is not known."""
    if by.pair is None:
        return np.asarray(truths.boxes)[:, 2:].max(axis=1, initial=0.0)
    assert truths.keypoints is not None
    one, other = (truths.keypoints[:, i] for i in by.pair)
    known = (one[:, 2] > 0) & (other[:, 2] > 0)
    return np.where(known, np.linalg.norm(one[:, :2] - other[:, :2], axis=-1), 0.0)


def rates(
    correct: np.ndarray, counts: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """The share of the keypoints that count which are `correct`: all, and by name.

    -1 where there is none.
    """
    hits, number = correct.sum(axis=0), counts.sum(axis=0)
    each = np.where(number > 0, hits / np.maximum(number, 1), -1.0)
    whole = float(hits.sum() / number.sum()) if number.sum() else -1.0
    return {"PCK": whole} | {
        f"PCK/{name}": float(x) for name, x in zip(names, each, strict=True)
    }
