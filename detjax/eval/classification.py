"""Metrics of image classification: top-k accuracy and the confusion matrix.

n        images
c        classes
k        labels of an image, the most probable first
"""

import numpy as np


def top_k(ranked: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """Whether [n] one of the first `k` labels of `ranked` [n .] is among the truth's.

    `truth` [n c] bool has the classes of each image, possibly several.
    """
    rows = np.arange(len(ranked))[:, None]
    return truth[rows, ranked[:, :k]].any(axis=1)


def by_class(ranked: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Top-1 and top-5 accuracy and precision [c 3] of each class.

    Of the images of a class, the share that is right; of the images where the class is
    the most probable, the share where that is right. NaN of no image.
    """
    c = truth.shape[1]
    first = top_k(ranked, truth, 1)
    right = [(top_k(ranked, truth, k)[:, None] & truth).sum(axis=0) for k in (1, 5)]
    taken, hits = (
        np.bincount(x, minlength=c) for x in (ranked[:, 0], ranked[first, 0])
    )
    with np.errstate(invalid="ignore"):
        shares = [hit / truth.sum(axis=0) for hit in right]
        return np.stack([*shares, hits / taken], axis=1)


def confusion(found: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """The confusion matrix [c c]: true class (row), predicted class (column).

    `found` and `truth` are labels [n].
    """
    flat = np.asarray(truth, np.int64) * num_classes + np.asarray(found, np.int64)
    counts = np.bincount(flat, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)
