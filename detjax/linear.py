"""Linear classifiers of features: ridge regression and logistic regression.

    n examples, v views of each, d features, c classes

A classifier learns from all views of an example, and is judged by the first.
Features are standardised by their training part. Both are solved in the space of the
examples where there are fewer of these than features, which is the same problem, since
both penalties are of the weights' norm. Beside the features, memory has a copy of them
in float32 at most.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

# The strengths to choose from: penalties relative to the mean eigenvalue of the
# features' products; inverse penalties for features of mean norm 1.
RIDGES = tuple(np.logspace(-3, 3, 13))
INVERSES = (3.0, 10.0, 30.0, 100.0)
ITERATIONS = 300
INNER = 3  # folds of the training part by which a strength is chosen
CHOSEN_BY = 20_000  # examples that choose it, of more
# n d c up to which logistic regression is minutes: 300 iterations are 1,200 n d c
# operations, for each strength and fold.
LOGISTIC_PRODUCTS = 10**10
BLOCK = 8192  # examples at a time in float64


class Linear(NamedTuple):
    """A classifier: features [d] @ kernel [d c] + bias [c] are its logits."""

    kernel: np.ndarray
    bias: np.ndarray
    strength: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """The logits [n c] of `features` [n d]."""
        return features @ self.kernel + self.bias


class Scaled(NamedTuple):
    """Standardised features in as many dimensions as they need."""

    rows: np.ndarray  # [n r] float32, on their principal axes
    squares: np.ndarray  # [r]: the sums of the rows' squares
    turn: np.ndarray  # [d r]: features, standardised, @ turn are rows
    mean: np.ndarray  # [d]; 0 for a classifier without bias
    deviation: np.ndarray  # [d]
    biased: bool  # whether the classifier has a bias

    def unscaled(self, kernel: np.ndarray, bias: np.ndarray, strength: float) -> Linear:
        """The classifier of features as they are, of one [r c] of `rows`."""
        whole = (self.turn @ kernel) / self.deviation[:, None]
        return Linear(
            whole.astype(np.float32),
            (bias - self.mean @ whole).astype(np.float32),
            strength,
        )


def blocks(count: int) -> Iterator[slice]:
    """The rows of `count`, `BLOCK` at a time."""
    for start in range(0, count, BLOCK):
        yield slice(start, start + BLOCK)


def scaled(features: np.ndarray, biased: bool = True) -> Scaled:
    """`features` [n d] standardised and turned to their principal axes.

    For a classifier that is not `biased` they are scaled, and not centred.
    """
    n, d = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    squared = sum(np.square(features[at] - mean).sum(axis=0) for at in blocks(n))
    deviation = np.sqrt(squared / n)
    # A feature that never changes says nothing.
    deviation = np.where(deviation > 1e-6 * (np.abs(mean) + 1e-6), deviation, np.inf)
    mean = mean if biased else np.zeros(d)

    def standard(at: slice) -> np.ndarray:
        return (features[at] - mean) / deviation

    if n < d:
        x = standard(slice(None))
        squares, left = np.linalg.eigh(x @ x.T)
        keep = squares > 1e-9 * max(squares[-1], 1e-30)
        roots = np.sqrt(squares[keep])
        rows = (left[:, keep] * roots).astype(np.float32)
        turn = x.T @ (left[:, keep] / roots)
        return Scaled(rows, squares[keep], turn, mean, deviation, biased)
    products = np.zeros((d, d))
    for at in blocks(n):
        x = standard(at)
        products += x.T @ x
    squares, turn = np.linalg.eigh(products)
    keep = squares > 1e-9 * max(squares[-1], 1e-30)
    turn = turn[:, keep]
    rows = np.empty((n, turn.shape[1]), np.float32)
    for at in blocks(n):
        rows[at] = standard(at) @ turn
    return Scaled(rows, squares[keep], turn, mean, deviation, biased)


def ridge(
    seen: Scaled, labels: np.ndarray, num_classes: int, strengths: Iterable[float]
) -> Iterator[Linear]:
    """Ridge regression onto the classes in closed form (Hoerl and Kennard 1970).

    (x' x + s m 1)^-1 x' y for each strength s, with m the mean eigenvalue of x' x.
    """
    mean = np.bincount(labels, minlength=num_classes) / len(labels)
    mean = mean if seen.biased else np.zeros(num_classes)
    towards = np.zeros((len(seen.squares), num_classes))
    for at in blocks(len(labels)):
        # [rows c]: the examples' classes
        targets = np.arange(num_classes) == labels[at, None]
        towards += seen.rows[at].T @ (targets - mean).astype(np.float32)
    for strength in strengths:
        penalty = strength * seen.squares.mean() if len(seen.squares) else 1.0
        kernel = towards / (seen.squares + penalty)[:, None]
        yield seen.unscaled(kernel, mean, strength)


def logistic(
    seen: Scaled, labels: np.ndarray, num_classes: int, strengths: Iterable[float]
) -> Iterator[Linear]:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS.

    Each strength is the inverse of the penalty for features of mean norm 1.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    norm = max(float(np.sqrt(seen.squares.sum() / len(seen.rows))), 1e-12)
    rows = seen.rows / np.float32(norm)
    for strength in strengths:
        solver = LogisticRegression(
            C=strength, max_iter=ITERATIONS, tol=1e-3, fit_intercept=seen.biased
        )
        with warnings.catch_warnings():
            # The last iterations of a weak penalty change no answer.
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.fit(rows, labels)
        kernel = np.zeros((rows.shape[1], num_classes))
        # A class without an example is never found.
        bias = np.full(num_classes, -1e3 if seen.biased else 0.0)
        weights = solver.coef_
        offsets = np.broadcast_to(solver.intercept_, len(weights))
        if len(solver.classes_) == 2:
            weights, offsets = (np.concatenate([-x, x]) / 2 for x in (weights, offsets))
        kernel[:, solver.classes_], bias[solver.classes_] = weights.T / norm, offsets
        yield seen.unscaled(kernel, bias, strength)


METHODS = {"ridge": (ridge, RIDGES), "logistic": (logistic, INVERSES)}


def roots(features: np.ndarray) -> np.ndarray:
    """The square roots of `features`, signs kept.

    Power normalisation (Perronnin et al., ECCV 2010): few large values, as behind a
    ReLU, count for less.
    """
    return np.sign(features) * np.sqrt(np.abs(features))


def folds(labels: np.ndarray, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The test rows [n] bool of `count` folds with all classes in equal shares."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels), np.int64)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    # Dealt out class after class, so that folds differ by one example at most.
    place[order] = np.arange(len(labels)) % count
    for i in range(count):
        yield place == i


def flat(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [n*v d] and labels [n*v] of the views [n v d] of examples."""
    n, v, d = features.shape
    return features.reshape(n * v, d), np.repeat(labels, v)


def sample(labels: np.ndarray, most: int) -> np.ndarray:
    """About `most` rows, or all of fewer, with the classes in their shares.

    Small classes keep `INNER` examples, where they have as many.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    kept = np.maximum(counts * most // len(labels), np.minimum(counts, INNER))
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < np.repeat(kept, counts)])


def fit(
    method: str,
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    biased: bool = True,
) -> Linear:
    """The classifier of `features` [n v d] whose strength does best on their folds.

    Of more than `CHOSEN_BY` examples so many choose the strength. One that is not
    `biased` has a bias of 0.
    """
    solve, strengths = METHODS[method]
    best = strengths[len(strengths) // 2]
    rows = sample(labels, CHOSEN_BY)
    known = labels[rows]
    least = np.bincount(known, minlength=num_classes)
    count = int(min(INNER, least[least > 0].min()))
    if count > 1:
        right = np.zeros(len(strengths))
        for test in folds(known, count):
            views, truth = flat(features[rows[~test]], known[~test])
            seen = scaled(views, biased)
            for i, made in enumerate(solve(seen, truth, num_classes, strengths)):
                right[i] += accuracy(made, features, labels, rows[test]) * test.sum()
        # Of equally good ones the middle one; sums of shares are not exact.
        good = np.flatnonzero(right > right.max() - 0.5)
        best = strengths[int(good[len(good) // 2])]
    views, truth = flat(features, labels)
    [made] = solve(scaled(views, biased), truth, num_classes, [best])
    return made


def accuracy(
    made: Linear,
    features: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray | None = None,
) -> float:
    """The share of `features` [n v d] whose most probable class is their label.

    Of some `rows`, by number, or all.
    """
    rows = np.arange(len(labels)) if rows is None else rows
    right = 0
    for at in blocks(len(rows)):
        found = made.logits(features[rows[at], 0]).argmax(axis=1)
        right += int((found == labels[rows[at]]).sum())
    return right / len(rows)


def in_folds(
    method: str,
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    count: int,
    *,
    biased: bool = True,
) -> list[float]:
    """The accuracy on each of `count` folds, by the others."""
    found = []
    for test in folds(labels, count):
        learnt = features[~test], labels[~test]
        made = fit(method, *learnt, num_classes, biased=biased)
        found.append(accuracy(made, features, labels, np.flatnonzero(test)))
    return found


def by_shots(
    method: str,
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    shots: int,
    repeats: int,
    *,
    biased: bool = True,
) -> list[float]:
    """The accuracy on the rest of so many draws of `shots` examples a class."""
    found = []
    for seed in range(repeats):
        drawn = draw(labels, shots, seed)
        learnt = features[drawn], labels[drawn]
        made = fit(method, *learnt, num_classes, biased=biased)
        found.append(accuracy(made, features, labels, np.flatnonzero(~drawn)))
    return found


def draw(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Rows [n] bool: `shots` of every class, or all of a smaller one."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        drawn[rng.permutation(own)[:shots]] = True
    return drawn


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The factor of `logits` [n c] that makes their softmax most probable.

    Temperature scaling (Guo et al., ICML 2017): scores of a regression become
    probabilities, and the order of classes stays.
    """

    def loss(factor: float) -> float:
        scores = factor * logits
        scores = scores - scores.max(axis=1, keepdims=True)
        hit = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - hit))

    factors: Sequence[float] = np.logspace(-2, 3, 101).tolist()
    return min(factors, key=loss)
