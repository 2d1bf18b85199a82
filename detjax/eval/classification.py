"""Metrics of image classification: accuracy, precision and recall, calibration.

n        images
c        classes
k        labels of an image, the most probable first
"""

from typing import Any, NamedTuple

import numpy as np

BINS = 15  # of confidence, for the calibration error; Guo et al. 2017 have as many


class Rates(NamedTuple):
    """Precision, recall and F1, of classes [c] or of all."""

    precision: Any
    recall: Any
    f1: Any


def top_k(ranked: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """Whether [n] one of the first `k` labels of `ranked` [n .] is among the truth's.

    `truth` [n c] bool has the classes of each image, possibly several.
    """
    rows = np.arange(len(ranked))[:, None]
    return truth[rows, ranked[:, :k]].any(axis=1)


def by_class(ranked: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Top-1 and top-5 accuracy [c 2] of the images of each class; NaN of no image."""
    right = [(top_k(ranked, truth, k)[:, None] & truth).sum(axis=0) for k in (1, 5)]
    with np.errstate(invalid="ignore"):
        return np.stack([hit / truth.sum(axis=0) for hit in right], axis=1)


def decided(ranked: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The classes [n c] bool that are said of each image.

    The most probable one where every image has one class, else those of a score of at
    least .5 (`scores` [n k] are those of `ranked` [n k]).
    """
    found = np.zeros(truth.shape, bool)
    rows = np.arange(len(ranked))
    if single(truth):
        found[rows, ranked[:, 0]] = True
    else:
        i, j = np.nonzero(scores >= 0.5)
        found[i, ranked[i, j]] = True
    return found


def single(truth: np.ndarray) -> bool:
    """Whether every image of `truth` [n c] has one class."""
    return bool((truth.sum(axis=1) == 1).all())


def rates(found: np.ndarray, truth: np.ndarray) -> Rates:
    """Precision, recall and F1 [c] of decisions `found` [n c] bool.

    Of what is said to be a class the share that is; of what is the share that is said
    to be; and 2 tp / (2 tp + fp + fn). NaN where nothing is counted.
    """
    hits, said, real = (x.sum(axis=0) for x in (found & truth, found, truth))
    return _rates(hits, said, real)


def micro(found: np.ndarray, truth: np.ndarray) -> Rates:
    """Precision, recall and F1 of all decisions as if they were of one class."""
    return _rates(*(x.sum() for x in (found & truth, found, truth)))


def macro(found: np.ndarray, truth: np.ndarray) -> Rates:
    """The means over the classes that occur or are said to; what is undefined is 0."""
    known = (found | truth).any(axis=0)
    if not known.any():
        return Rates(*(np.float64(np.nan),) * 3)
    each = rates(found, truth)
    return Rates(*(np.nan_to_num(rate[known]).mean() for rate in each))


def _rates(hits, said, real) -> Rates:
    with np.errstate(invalid="ignore", divide="ignore"):
        return Rates(
            *(
                np.divide(n, of)
                for n, of in ((hits, said), (hits, real), (2 * hits, said + real))
            )
        )


def calibration(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, mean confidence and accuracy [bins] by confidence; NaN of no image.

    `confidence` [n] of the most probable classes, between 0 and 1, and whether they
    are `right` [n]. Bins are of equal width, each with its upper end.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.bincount(place, values, minlength=bins) / counts

    return counts, mean(confidence), mean(right)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS
) -> float:
    """Expected calibration error (Guo et al., ICML 2017, eq. 3); NaN of no image.

    The mean distance of confidence and accuracy of the bins, by their images.
    """
    if not len(confidence):
        return float("nan")
    counts, mean, accuracy = calibration(confidence, right, bins)
    return float(counts @ np.nan_to_num(np.abs(mean - accuracy)) / counts.sum())


def confusion(found: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """The confusion matrix [c c]: true class (row), predicted class (column).

    `found` and `truth` are labels [n].
    """
    flat = np.asarray(truth, np.int64) * num_classes + np.asarray(found, np.int64)
    counts = np.bincount(flat, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)
