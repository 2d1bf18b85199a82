"""How well the outlines of a label map are found: the boundary F score.

Csurka et al., BMVC 2013, section 3: of the outline of a class the share that lies
within a tolerance of the true one (precision), of the true one the share that is within
it of what is found (recall), and the F1 of both; over the images in which the class is.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

TOLERANCE = 0.0075  # of the picture's diagonal; Csurka et al. 2013


class Score(NamedTuple):
    """The boundary F score of a class in one picture."""

    label: int
    f1: float


def outlines(labels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The pixels [h w] bool that have a neighbour of another class.

    Of four neighbours; only those that are `valid` count. The picture's edge is none.
    """
    found = np.zeros(labels.shape, bool)
    for one, other in (
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        apart = (labels[one] != labels[other]) & valid[one] & valid[other]
        found[one] |= apart
        found[other] |= apart
    return found


def scores(
    truth: np.ndarray,
    found: np.ndarray,
    valid: np.ndarray,
    tolerance: float = TOLERANCE,
) -> Iterator[Score]:
    """The score of each class that has an outline in a picture, true or found.

    Of labels [h w], where `valid`. `tolerance` is a share of the diagonal and rounded
    up to whole pixels. A class is 0 that has an outline in one of the two only.
    """
    reach = int(np.ceil(tolerance * np.hypot(*truth.shape)))
    edges = [outlines(labels, valid) for labels in (truth, found)]
    kinds = [labels[edge] for labels, edge in zip((truth, found), edges, strict=True)]
    count = 1 + max((int(kind.max()) for kind in kinds if len(kind)), default=-1)
    totals = [np.bincount(kind, minlength=count) for kind in kinds]
    recall, precision = (
        np.bincount(kind[near], minlength=count) / np.maximum(total, 1)
        for kind, near, total in zip(
            kinds, _near((truth, found), edges, kinds, reach), totals, strict=True
        )
    )
    for label in np.flatnonzero(totals[0] + totals[1]).tolist():
        p, r = float(precision[label]), float(recall[label])
        yield Score(label, 2 * p * r / (p + r) if p + r else 0.0)


def _near(
    labels: Sequence[np.ndarray],
    edges: Sequence[np.ndarray],
    kinds: Sequence[np.ndarray],
    reach: int,
) -> list[np.ndarray]:
    """Which points of two outlines are within `reach` pixels of the other's.

    Of the points of the same label; [n] bool each, in the order of `kinds`.
    """
    # Most points of good and of noisy maps have a partner in their own place or next
    # to it, which is found faster than by a search.
    close = [
        _beside(labels[i], labels[1 - i], edges[1 - i], reach)[edges[i]] for i in (0, 1)
    ]
    if all(one.all() for one in close):
        return close
    # Points of different labels are further apart than the search goes.
    points = [
        np.column_stack([*np.nonzero(edge), kind * (2.0 * reach + 2)])
        for edge, kind in zip(edges, kinds, strict=True)
    ]
    for i in (0, 1):
        rest = np.flatnonzero(~close[i])
        if len(rest) and len(points[1 - i]):
            close[i][rest] = _reached(points[i][rest], points[1 - i], reach)
    return close


def _beside(
    labels: np.ndarray, others: np.ndarray, edge: np.ndarray, reach: int
) -> np.ndarray:
    """The pixels [h w] bool that have a point of the other outline, of their label.

    In their own place, or in one of the eight around it as far as `reach` allows.
    """
    found = edge & (labels == others)
    for y, x in itertools.product((-1, 0, 1), repeat=2):
        if (y or x) and np.hypot(y, x) <= reach:
            here, there = _shifted(y, x)
            found[here] |= edge[there] & (labels[here] == others[there])
    return found


def _shifted(y: int, x: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels that have a neighbour `y` down and `x` to the right, and these."""
    ends = {-1: (1, None), 0: (None, None), 1: (None, -1)}
    here = slice(*ends[y]), slice(*ends[x])
    there = slice(*ends[-y]), slice(*ends[-x])
    return here, there


def _reached(points: np.ndarray, others: np.ndarray, reach: int) -> np.ndarray:
    """Which of `points` [n 3] are within `reach` of one of `others` [m 3]."""
    from scipy.spatial import cKDTree

    tree = cKDTree(others, compact_nodes=False, balanced_tree=False, leafsize=32)
    away, _ = tree.query(points, distance_upper_bound=reach + 1e-3)
    return np.isfinite(away)
