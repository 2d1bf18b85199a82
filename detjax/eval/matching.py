"""COCO's matching of detections and truths, on which all detection metrics rest.

Detections of one class in one image are matched greedily to the image's truths of that
class; see `coco`.

Shape legend: m truths, n detections, p pairs of the two within one image and class,
c candidates (detections with a pair), t overlap thresholds, k classes, a area ranges.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from detjax.eval import overlaps
from detjax.eval.columns import Results, Truths, arranged, take
from detjax.eval.overlaps import COCO_SIGMAS, Similarity

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
CHUNK = 1 << 18  # pairs compared at once: a dozen temporaries of 2 MiB stay in cache
# Default limits on detections per image and class.
_USUAL = (1, 10, 100)
LIMITS = {
    **dict.fromkeys(("bbox", "segm", "oriented"), _USUAL),
    "keypoints": (20,),
}


class Matches(NamedTuple):
    """Matches of candidates, by area range and threshold; others are unmatched."""

    candidates: np.ndarray  # [c] indices of detections, rising
    hit: np.ndarray  # [c a t] bool: took a truth that counts
    void: np.ndarray  # [c a t] bool: took a truth that does not count


class Matched(NamedTuple):
    """Detections of a split with their matches."""

    matches: Matches
    results: Results  # up to the largest limit, by class and image
    inside: np.ndarray  # [n a] bool: their areas lie in the range
    rank: np.ndarray  # [n] their place among those of their image and class
    counts: np.ndarray  # [a k] truths that count
    limits: list[int]  # on detections of an image and class, rising


def matched(
    truths: Truths,
    results: Results,
    *,
    image_ids: Sequence[int] | np.ndarray,
    num_classes: int,
    kind: str = "bbox",
    max_detections: Sequence[int] | None = None,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> Matched:
    """The matches of what `coco.evaluate` takes.

    Equal scores rank by image id, then by their order in `results`.
    """
    images = np.unique(np.asarray(image_ids, np.int64))
    limits = limits_of(kind, max_detections)
    truths, truth_group = arranged(truths, images, num_classes)
    results, group = arranged(results, images, num_classes)
    top = np.flatnonzero(rank_in(group) < limits[-1])
    results, group = take(results, top), group[top]
    crowd = np.asarray(truths.crowd, bool)
    ignored = excused(truths, kind)[:, None] | ~_inside(truths.areas)
    similarity = overlaps.similarity(truths, results, kind, sigmas)
    found = _match(*pairs(truth_group, group, similarity), group, ignored, crowd)
    counts = [np.bincount(truths.labels[~i], minlength=num_classes) for i in ignored.T]
    inside = _inside(overlaps.areas(results, kind))
    return Matched(found, results, inside, rank_in(group), np.array(counts), limits)


def excused(truths: Truths, kind: str) -> np.ndarray:
    """Truths [m] bool that never count: crowds and those that are to be ignored."""
    crowd = np.asarray(truths.crowd, bool)
    found = crowd if truths.ignore is None else crowd | (truths.ignore > 0)
    return found | overlaps.unseen(truths) if kind == "keypoints" else found


def limits_of(kind: str, given: Sequence[int] | None) -> list[int]:
    """The limits on detections, rising. Raises ValueError for an unknown kind."""
    if kind not in LIMITS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(LIMITS)}.")
    return sorted(set(LIMITS[kind] if given is None else given))


def rank_in(ids: np.ndarray) -> np.ndarray:
    """Position of each element inside its run of equal ids."""
    first = np.flatnonzero(np.diff(ids, prepend=-1))
    return np.arange(len(ids)) - np.repeat(first, np.diff(first, append=len(ids)))


def _inside(areas: np.ndarray) -> np.ndarray:
    """Whether each area lies in each range [.. a]; both ends belong to a range."""
    areas = np.asarray(areas, np.float64)[:, None]
    return (areas >= AREAS[:, 0]) & (areas <= AREAS[:, 1])


def _chunks(number: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of detections with about CHUNK pairs each, from pairs per detection."""
    ends = np.cumsum(number)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(CHUNK, total, CHUNK))
    return pairwise(np.unique([0, *cuts, len(number)]).tolist())


def pairs(
    truth_group: np.ndarray,
    group: np.ndarray,
    similarity: Similarity,
    least: float = float(THRESHOLDS[0]),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections, truths and overlaps [p] of the pairs that overlap by `least`.

    Both arguments rise. Pairs are listed detection by detection, truths rising.
    """
    first = np.searchsorted(truth_group, group, side="left")
    number = np.searchsorted(truth_group, group, side="right") - first
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for lo, hi in _chunks(number):
        size = number[lo:hi]
        i = np.repeat(np.arange(lo, hi), size)
        start = np.cumsum(size) - size
        j = np.arange(len(i)) + np.repeat(first[lo:hi] - start, size)
        overlap = similarity(i, j)
        keep = overlap >= least
        found.append((i[keep], j[keep], overlap[keep]))
    i, j, overlap = (np.concatenate(column) for column in zip(*found, strict=True))
    return i, j, overlap


def _match(
    i: np.ndarray,
    j: np.ndarray,
    overlap: np.ndarray,
    group: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
) -> Matches:
    """Truths taken greedily by score, in rounds over all groups at once.

    Groups are independent, so round s serves the s-th candidate of every group. A
    candidate prefers truths that count, then the largest overlap, then the last truth.
    """
    candidates, index = np.unique(i, return_inverse=True)
    turn = rank_in(group[candidates])[index]
    order = np.lexsort((-j, -overlap, index, turn))
    index, j = index[order], j[order]
    reached = overlap[order, None] >= THRESHOLDS
    shape = (len(candidates), len(AREAS), len(THRESHOLDS))
    hit, void = np.zeros(shape, bool), np.zeros(shape, bool)
    taken = np.zeros((len(crowd), *shape[1:]), bool)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(turn))])
    for lo, hi in pairwise(bounds.tolist()):
        who, truth = index[lo:hi], j[lo:hi]
        best, won = _choose(who, reached[lo:hi], taken[truth], ignored[truth])
        # A truth meets one candidate a round, so these rows are distinct.
        taken[truth] |= won & ~crowd[truth, None, None]
        who = who[rank_in(who) == 0]
        hit[who], void[who] = best == 0, best == 1
    return Matches(candidates, hit, void)


def _choose(
    who: np.ndarray, reached: np.ndarray, taken: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kind of truth matched by each candidate (0 counts, 1 ignored, 2 none), and pairs.

    who [p] names the candidate of a pair, best overlap first; reached [p t], taken
    [p a t], ignored [p a]. Returns [candidates a t] and the winning pairs [p a t].
    """
    p = len(who)
    heads = np.flatnonzero(np.diff(who, prepend=-1))
    free = reached[:, None] & ~taken
    cost = np.arange(p, dtype=np.int32)[:, None] + np.where(ignored, np.int32(p), 0)
    cost = np.where(free, cost[:, :, None], np.int32(2 * p))
    best = np.minimum.reduceat(cost, heads, axis=0)
    won = free & (cost == np.repeat(best, np.diff(heads, append=p), axis=0))
    return best // p, won
