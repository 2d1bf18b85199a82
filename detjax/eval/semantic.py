"""Metrics of label maps, from the confusion matrix of their pixels.

c        classes

A matrix [c c] counts pixels by their true class (row) and the class found (column). It
is the sum of those of any parts of a split: what is ignored is in none. A rate that is
not defined, as of a class without a pixel, is NaN.
"""

import functools
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from detjax.types import Array

# Pixels that are counted at a time: they stay in a core's cache; and a histogram of
# OpenCV's, whose bins are float32, stays exact.
PIECE, HISTOGRAM = 1 << 18, 1 << 22


class Rates(NamedTuple):
    """Rates of the classes [c]."""

    iou: np.ndarray  # intersection over union
    precision: np.ndarray
    recall: np.ndarray  # the accuracy of the pixels of a class
    f1: np.ndarray  # Dice's coefficient is the same number


def confusion(
    truth: np.ndarray, found: np.ndarray, valid: np.ndarray, num_classes: int
) -> np.ndarray:
    """The matrix [c c] int64 of the pixels that are `valid`, of maps of one shape.

    Labels are uint8 or uint16 and below `num_classes` where valid. A part of the pixels
    is copied at a time, however many there are.
    """
    truth, found, valid = (np.ravel(x) for x in (truth, found, valid))
    total = np.zeros((num_classes, num_classes), np.int64)
    fine = {truth.dtype, found.dtype} == {np.dtype(np.uint8)}
    step = HISTOGRAM if fine and num_classes < 256 else PIECE
    count = _histogram if step == HISTOGRAM else _counted
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        total += count(truth[part], found[part], valid[part], num_classes)
    return total


def label_counts(labels: np.ndarray, valid: np.ndarray, num_classes: int) -> np.ndarray:
    """The pixels [c] int64 of each class that are `valid`, of a map of any shape."""
    labels, valid = np.ravel(labels), np.ravel(valid)
    total = np.zeros(num_classes, np.int64)
    for start in range(0, len(labels), PIECE):
        part = slice(start, start + PIECE)
        total += np.bincount(labels[part][valid[part]], minlength=num_classes)
    return total


def _histogram(truth, found, valid, c: int) -> np.ndarray:
    """By OpenCV, in a third of numpy's time: neither labels nor pairs are copied."""
    some = np.ascontiguousarray(valid).view(np.uint8)
    maps = [np.ascontiguousarray(truth), np.ascontiguousarray(found)]
    return cv2.calcHist(maps, [0, 1], some, [c, c], [0, c, 0, c]).astype(np.int64)


def _counted(truth, found, valid, c: int) -> np.ndarray:
    pairs = np.multiply(truth, c, dtype=np.int64)
    pairs += found
    return np.bincount(pairs[valid], minlength=c * c).reshape(c, c)


@functools.partial(jax.jit, static_argnums=3)
def confusion_on_device(
    truth: Array, found: Array, valid: Array, num_classes: int
) -> jax.Array:
    """`confusion` as an array [c c] int32, of at most 2^31 pixels."""
    pairs = truth.astype(jnp.int32) * num_classes + found.astype(jnp.int32)
    # What is not valid is counted outside of the matrix, and dropped.
    pairs = jnp.where(valid, pairs, num_classes**2).ravel()
    total = jnp.zeros(num_classes**2, jnp.int32).at[pairs].add(1, mode="drop")
    return total.reshape(num_classes, num_classes)


def rates(matrix: np.ndarray) -> Rates:
    """IoU, precision, recall and F1 of the classes.

    Everingham et al., IJCV 2015, section 4.3.2: tp / (tp + fp + fn).
    """
    hits, real, said = _sums(matrix)
    return Rates(
        _share(hits, real + said - hits),
        _share(hits, said),
        _share(hits, real),
        _share(2 * hits, real + said),
    )


def pixel_accuracy(matrix: np.ndarray) -> float:
    """The share of pixels whose class is found."""
    return float(_share(np.trace(matrix), matrix.sum()))


def mean_accuracy(matrix: np.ndarray) -> float:
    """The mean recall of the classes that have a pixel."""
    return _mean(rates(matrix).recall)


def mean_iou(matrix: np.ndarray) -> float:
    """The mean IoU of the classes that have a pixel or are found in one."""
    return _mean(rates(matrix).iou)


def frequency_weighted_iou(matrix: np.ndarray) -> float:
    """The mean IoU of the classes, each weighted by its pixels (Long et al. 2015)."""
    real = matrix.sum(axis=1)
    some = real > 0
    if not some.any():
        return float("nan")
    return float(real[some] @ rates(matrix).iou[some] / real.sum())


def macro(matrix: np.ndarray) -> dict[str, float]:
    """The mean precision, recall and F1 of the classes that occur or are found.

    What is not defined of such a class is 0.
    """
    known = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    each = rates(matrix)
    means = (
        _mean(np.nan_to_num(of[known])) for of in (each.precision, each.recall, each.f1)
    )
    return dict(zip(("precision", "recall", "f1"), means, strict=True))


def micro(matrix: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of all pixels as if they were of one class.

    Every pixel has a class and gets one: all three are the pixel accuracy.
    """
    hits, real, said = (x.sum() for x in _sums(matrix))
    each = _share(hits, said), _share(hits, real), _share(2 * hits, real + said)
    return dict(zip(("precision", "recall", "f1"), map(float, each), strict=True))


def _sums(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels [c] that are right, those of the class, and those found to be."""
    return np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def _share(part, whole):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(part, whole)


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined; NaN of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
