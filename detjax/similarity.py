"""How alike two sets of features are: Frechet distance and a classifier of sets.

n, m images of the two sets, d features
"""

from typing import NamedTuple

import numpy as np

from detjax.errors import UserError

NEIGHBOURS = 5
LEAST = 8  # images of a set whose halves still have a covariance
MOST = 2000  # images of a set that are compared, drawn at random
AXES = 32  # principal axes in which covariances are estimated


class Similarity(NamedTuple):
    """Distances of two sets of features."""

    distance: float  # Frechet's, squared, between the sets
    within: float  # the same between random halves of each, the larger
    told_apart: float  # the share whose set their nearest neighbours tell; .5 is chance
    images: int  # of each set that were compared

    @property
    def ratio(self) -> float:
        """How many times further apart the sets are than halves of one."""
        return self.distance / max(self.within, 1e-12)


def compare(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Similarity:
    """The similarity of features [n d] and [m d], of as many images each.

    Features are standardised together and reduced to `AXES` principal axes: a
    covariance of more needs more images than small data sets have. Distances between
    sets and within are of samples of the same size, since both are biased by it.

    Raises UserError for a set of fewer than `LEAST` images.
    """
    rng = np.random.default_rng(seed)
    size = min(len(one), len(other), MOST)
    if size < LEAST:
        raise UserError(
            f"{len(one)} and {len(other)} images were given to compare, and a set "
            f"needs {LEAST}: look at both, and say --similar or --different"
        )
    size -= size % 2
    one, other = (np.asarray(x)[rng.permutation(len(x))[:size]] for x in (one, other))
    both = np.concatenate([one, other]).astype(np.float64)
    deviation = both.std(axis=0)
    both = (both - both.mean(axis=0)) / np.where(deviation > 1e-9, deviation, np.inf)
    _, _, axes = np.linalg.svd(both, full_matrices=False)
    both = both @ axes[:AXES].T
    a, b = both[:size], both[size:]
    half = size // 2
    between = [
        frechet(x, y) for x in (a[:half], a[half:]) for y in (b[:half], b[half:])
    ]
    within = max(frechet(x[:half], x[half:]) for x in (a, b))
    return Similarity(float(np.mean(between)), within, told_apart(a, b), size)


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The squared Frechet distance of the normal distributions of two sets.

    |m - n|^2 + tr(C + D - 2 (C D)^1/2), as in the Frechet Inception distance (Heusel et
    al., NeurIPS 2017, section 3).
    """
    apart = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    c, d = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (one, other))
    # The eigenvalues of C D are those of C^1/2 D C^1/2, which is symmetric.
    values, turn = np.linalg.eigh(c)
    root = turn * np.sqrt(np.clip(values, 0, None)) @ turn.T
    squares = np.clip(np.linalg.eigvalsh(root @ d @ root), 0, None)
    spread = np.trace(c) + np.trace(d) - 2 * np.sqrt(squares).sum()
    return float(apart + max(spread, 0.0))


def told_apart(one: np.ndarray, other: np.ndarray) -> float:
    """The share of features whose set most of their nearest neighbours are of.

    Each is left out of its own neighbours. Half is chance: nothing tells the sets
    apart; 1 is that no image looks like one of the other set.
    """
    both = np.concatenate([one, other])
    of = np.arange(len(both)) >= len(one)
    norms = np.square(both).sum(axis=1)
    right = 0
    for start in range(0, len(both), 500):
        rows = slice(start, start + 500)
        apart = norms[rows, None] + norms - 2 * both[rows] @ both.T
        apart[np.arange(len(apart)), np.arange(start, start + len(apart))] = np.inf
        count = min(NEIGHBOURS, len(both) - 1)
        near = np.argpartition(apart, count - 1, axis=1)[:, :count]
        right += int(((of[near].mean(axis=1) > 0.5) == of[rows]).sum())
    return right / len(both)
