"""Linear support vector machines, mined for hard negatives, on the host.

    n        examples
    f        features of each

Felzenszwalb et al. 2010 (hard negative mining); Girshick et al. 2014 (R-CNN), section
2.3, with the constants of the authors' code.
"""

import dataclasses

import numpy as np

from detjax.models.rcnn.linear import Affine, Rows
from detjax.settings import Count, Fraction, Positive


@dataclasses.dataclass(frozen=True)
class SVM:
    """Settings of the machine of one class.

    negative: candidates that overlap the class's objects by less are its negatives.
    cost, positive_weight: the weight of the hinge loss, and of positives beside it.
    intercept: the value of the feature whose weight is the bias, so nearly free.
    first: random negatives that it is first trained on.
    most, rounds: the hardest negatives that join in a round, and the most rounds.
    """

    negative: Fraction = 0.3
    cost: Positive = 1e-3
    positive_weight: Positive = 2.0
    intercept: Positive = 10.0
    first: Count = 5000
    most: Count = 20_000
    rounds: Count = 10

    def fit(self, positives: np.ndarray | Rows, negatives: np.ndarray | Rows) -> Affine:
        """A machine of positives [n f] against negatives [n f].

        After the first training, those of all negatives that break the margin join,
        those that are far behind it leave, and it is trained again; fewer than one new
        in a hundred end it.

        Without positives or without negatives the kernel is 0, and the bias
        `-intercept` or `intercept`: an unseen class is never detected.
        """
        if not len(positives) or not len(negatives):
            bias = self.intercept if len(positives) else -self.intercept
            return Affine(np.zeros(positives.shape[1], np.float32), np.float32(bias))
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(negatives))[: self.first]
        for _ in range(self.rounds):
            model = self._trained(positives[:], negatives[np.sort(chosen)])
            margins = model(negatives)
            kept = chosen[margins[chosen] > -1.2]
            hard = np.setdiff1d(np.flatnonzero(margins > -1), chosen)
            if len(hard) <= max(len(chosen) // 100, 1):
                break
            hardest = hard[np.argsort(-margins[hard], kind="stable")[: self.most]]
            chosen = np.concatenate([kept, hardest])
        return model

    def _trained(self, positives: np.ndarray, negatives: np.ndarray) -> Affine:
        from sklearn.svm import LinearSVC

        features = np.concatenate([positives, negatives]).astype(np.float64)
        labels = np.arange(len(features)) < len(positives)
        solver = LinearSVC(
            loss="hinge",
            C=self.cost,
            class_weight={1: self.positive_weight},
            intercept_scaling=self.intercept,
            max_iter=20_000,
            random_state=0,
        ).fit(features, labels.astype(int))
        return Affine(
            solver.coef_[0].astype(np.float32), np.float32(solver.intercept_.item())
        )
