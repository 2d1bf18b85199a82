"""Linear models that are solved for, not descended to: SVMs and ridge regression.

On the host, in numpy. Features come in any array that can be indexed by rows, such as
one on disk, and are read a block at a time.

    n        examples
    f        features of each
"""

from typing import Any, NamedTuple

import numpy as np

_BLOCK = 1 << 14  # rows read at once: 64 MiB of float32 at 1,024 features


class Affine(NamedTuple):
    """x -> x @ kernel + bias."""

    kernel: np.ndarray  # [f] or [f k]
    bias: Any  # [] or [k]

    def __call__(self, features) -> np.ndarray:
        """Values [n] or [n k] of features [n f]."""
        blocks = range(0, max(len(features), 1), _BLOCK)
        return np.concatenate(
            [
                np.asarray(features[i : i + _BLOCK], np.float32) @ self.kernel
                + self.bias
                for i in blocks
            ]
        )


class Rows:
    """Some rows of an array, times a number, read when they are indexed."""

    def __init__(self, source: np.ndarray, index: np.ndarray, scale: float = 1.0):
        self._source, self._index, self._scale = source, index, scale
        self.shape = len(index), source.shape[1]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, key) -> np.ndarray:
        rows = self._source[self._index[key]]
        return np.asarray(rows, np.float32) * np.float32(self._scale)


def scale(features: np.ndarray, norm: float = 20.0) -> float:
    """What brings the mean norm of features [n f] to `norm`; 1 where all are 0.

    20 is what the constants of R-CNN's code are made for.
    """
    total = sum(
        float(
            np.linalg.norm(
                np.asarray(features[i : i + _BLOCK], np.float32), axis=1
            ).sum()
        )
        for i in range(0, len(features), _BLOCK)
    )
    return norm * len(features) / total if total else 1.0


def svm(
    positives: np.ndarray | Rows,
    negatives: np.ndarray | Rows,
    *,
    cost: float = 1e-3,
    positive_weight: float = 2.0,
    intercept: float = 10.0,
    first: int = 5000,
    most: int = 20_000,
    rounds: int = 10,
    seed: int = 0,
) -> Affine:
    """A linear SVM of positives [n f] against negatives [n f], mined for the hard ones.

    It is first trained on `first` random negatives. Then, `rounds` times at most, those
    of all negatives that break the margin join (the `most` hardest), those that are far
    behind it leave, and it is trained again; fewer than one new in a hundred end it.

    Hinge loss, weighted `cost`, and `positive_weight` times that for positives; the
    bias is the weight of a feature of value `intercept`, so nearly free.

    Felzenszwalb et al. 2010 (hard negative mining); Girshick et al. 2014 (R-CNN),
    section 2.3, with the constants of the authors' code. Without positives or without
    negatives the kernel is 0, and the bias `-intercept` or `intercept`: what was never
    seen is never found.
    """
    if not len(positives) or not len(negatives):
        bias = intercept if len(positives) else -intercept
        return Affine(np.zeros(positives.shape[1], np.float32), np.float32(bias))
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(negatives))[:first]
    options = {"C": cost, "class_weight": {1: positive_weight}, "random_state": seed}
    for _ in range(rounds):
        model = _solve(positives[:], negatives[np.sort(chosen)], intercept, options)
        margins = model(negatives)
        kept = chosen[margins[chosen] > -1.2]
        hard = np.setdiff1d(np.flatnonzero(margins > -1), chosen)
        if len(hard) <= max(len(chosen) // 100, 1):
            break
        hardest = hard[np.argsort(-margins[hard], kind="stable")[:most]]
        chosen = np.concatenate([kept, hardest])
    return model


def _solve(positives, negatives, intercept: float, options: dict) -> Affine:
    from sklearn.svm import LinearSVC

    features = np.concatenate([positives, negatives]).astype(np.float64)
    labels = np.arange(len(features)) < len(positives)
    solver = LinearSVC(
        loss="hinge", intercept_scaling=intercept, max_iter=20_000, **options
    ).fit(features, labels.astype(int))
    return Affine(
        solver.coef_[0].astype(np.float32), np.float32(solver.intercept_.item())
    )


def ridge(
    features: np.ndarray | Rows, targets: np.ndarray, penalty: float = 1000.0
) -> Affine:
    """Least squares of targets [n k] on features [n f], the weights penalised.

    The targets' mean is taken off first; `penalty` times the squares of the kernel, and
    of what the bias differs from that mean, is added. Without examples kernel and bias
    are 0.

    Girshick et al. 2014 (R-CNN), appendix C, equation 5.
    """
    f = features.shape[1]
    targets = np.asarray(targets, np.float64)
    if not len(targets):
        return Affine(
            np.zeros((f, targets.shape[1]), np.float32),
            np.zeros(targets.shape[1], np.float32),
        )
    mean = targets.mean(axis=0)
    squares, products = penalty * np.eye(f + 1), np.zeros((f + 1, len(mean)))
    for i in range(0, len(targets), _BLOCK):
        rows = np.asarray(features[i : i + _BLOCK], np.float64)
        rows = np.pad(rows, [(0, 0), (0, 1)], constant_values=1)
        squares += rows.T @ rows
        products += rows.T @ (targets[i : i + _BLOCK] - mean)
    solved = np.linalg.solve(squares, products)
    return Affine(
        solved[:-1].astype(np.float32), (solved[-1] + mean).astype(np.float32)
    )
