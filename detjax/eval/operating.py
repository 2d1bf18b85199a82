"""Precision, recall and F1 by the confidence from which detections are taken.

k classes, g confidences. Detections are matched at an IoU (or OKS) of .5, whatever the
size of their object.
"""

from typing import NamedTuple

import numpy as np

from detjax.eval.matching import Matched

STEPS = 200  # between the lowest and the highest confidence


class Operating(NamedTuple):
    """What taking the detections from a confidence on is worth.

    Without a detection there is no precision, without a truth no recall and no F1: NaN.
    """

    confidences: np.ndarray  # [g], rising; from 0 to 1 where scores are
    precision: np.ndarray  # [k g]
    recall: np.ndarray  # [k g]
    f1: np.ndarray  # [k g]
    counts: np.ndarray  # [k] truths

    def best(self) -> np.ndarray:
        """The index [k] of the confidence of each class's highest F1."""
        return np.nan_to_num(self.f1, nan=-1.0).argmax(axis=1)

    def mean_f1(self) -> np.ndarray:
        """F1 [g], the mean over the classes with a truth; 0 where there is none."""
        known = self.f1[self.counts > 0]
        return known.mean(axis=0) if len(known) else np.zeros(len(self.confidences))

    def confidence(self) -> float:
        """The confidence of the highest mean F1."""
        return float(self.confidences[self.mean_f1().argmax()])


def by_confidence(found: Matched) -> Operating:
    """The `Operating` of matched detections.

    Those that took a truth that does not count are left out, as in COCO's precision.
    """
    scores, labels = found.results.scores, found.results.labels
    hit, void = np.zeros((2, len(scores)), bool)
    matches = found.matches
    hit[matches.candidates] = matches.hit[:, 0, 0]
    void[matches.candidates] = matches.void[:, 0, 0]
    ends = np.min(scores, initial=0.0), np.max(scores, initial=1.0)
    confidences = np.linspace(*ends, STEPS + 1)
    k = found.counts.shape[1]
    cell = np.searchsorted(confidences, scores, side="right") - 1

    def reached(some: np.ndarray) -> np.ndarray:
        """How many [k g] of the detections `some` score so much or more."""
        flat = np.bincount(
            labels[some] * len(confidences) + cell[some],
            minlength=k * len(confidences),
        )
        return flat.reshape(k, -1)[:, ::-1].cumsum(axis=1)[:, ::-1]

    right, taken, counts = reached(hit), reached(~void), found.counts[0]
    truths = counts[:, None]
    with np.errstate(invalid="ignore"):
        precision, recall = right / taken, right / truths
        f1 = np.where(truths > 0, 2 * right / (taken + truths), np.nan)
    recall[counts == 0] = np.nan
    return Operating(confidences, precision, recall, f1, counts)
