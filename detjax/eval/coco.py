"""COCO's average precision and recall of boxes, masks and keypoints, vectorised.

Detections of one class in one image are matched greedily to the image's truths of that
class: by falling score each takes the free truth of largest overlap above the
threshold. Ignored truths (crowds, sizes out of range) absorb detections without reward
or penalty. Precision over all images, made monotone, is read at 101 recalls; AP is its
mean over classes and ten overlap thresholds, AR the mean of the recall reached. Lin et
al. 2014, Microsoft COCO: Common Objects in Context, and its evaluation protocol.

Boxes, masks and keypoints differ only in the similarity of (detection, truth) pairs,
see `overlaps`; everything here uses its values only.

Shape legend: m truths, n detections, p pairs of the two within one image and class,
c candidates (detections with a pair), t overlap thresholds, r recall points, k classes,
a area ranges, d limits on detections per image and class.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from detjax.eval import overlaps
from detjax.eval.columns import Results, Truths, arranged, take
from detjax.eval.overlaps import COCO_SIGMAS, Similarity

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
CHUNK = 1 << 18  # pairs compared at once: a dozen temporaries of 2 MiB stay in cache
# Default limits on detections per image and class.
LIMITS = {"bbox": (1, 10, 100), "segm": (1, 10, 100), "keypoints": (20,)}


class Curves(NamedTuple):
    """Values that the protocol averages; -1 for a class without counted truths."""

    precision: np.ndarray  # [t r k a] at the largest limit
    recall: np.ndarray  # [t k a d]


class Matches(NamedTuple):
    """Matches of candidates, by area range and threshold; others are unmatched."""

    candidates: np.ndarray  # [c] indices of detections, rising
    hit: np.ndarray  # [c a t] bool: took a truth that counts
    void: np.ndarray  # [c a t] bool: took a truth that does not count


def evaluate(
    truths: Truths,
    results: Results,
    *,
    image_ids: Sequence[int] | np.ndarray,
    num_classes: int,
    kind: str = "bbox",
    max_detections: Sequence[int] | None = None,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> dict[str, float]:
    """COCO's summary: AP, AP50, AP75, AP[sml], AR<limit> for each limit, and AR[sml].

    Of keypoints it is AP, AP50, AP75, AP[ml], AR, AR50, AR75 and AR[ml]. `kind` is
    "bbox", "segm" or "keypoints", the last with as many `sigmas` as keypoints.

    All but AR<limit> are at the largest of `max_detections`, by default `LIMITS`. A
    number is -1 where no class has a truth that counts. `image_ids` are the images
    evaluated, also those without objects; truths and results of other images are
    ignored. Raises ValueError if columns are missing or do not fit.
    """
    limits = _limits(kind, max_detections)
    precision, recall = curves(
        truths,
        results,
        image_ids=image_ids,
        num_classes=num_classes,
        kind=kind,
        max_detections=limits,
        sigmas=sigmas,
    )
    sizes = [(a, s) for a, s in enumerate("sml", start=1) if _has_size(kind, s)]
    summary = {"AP": precision[..., 0]}
    summary |= {"AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0]}
    summary |= {f"AP{s}": precision[..., a] for a, s in sizes}
    if kind == "keypoints":
        final = recall[:, :, 0, -1]
        summary |= {"AR": final, "AR50": final[0], "AR75": final[5]}
    else:
        summary |= {f"AR{n}": recall[:, :, 0, d] for d, n in enumerate(limits)}
    summary |= {f"AR{s}": recall[:, :, a, -1] for a, s in sizes}
    defined = {name: values[values > -1] for name, values in summary.items()}
    return {name: float(v.mean()) if v.size else -1.0 for name, v in defined.items()}


def per_class(truths: Truths, results: Results, **kwargs: Any) -> np.ndarray:
    """AP of every class [k], nan where a class has no truth that counts.

    Takes what `evaluate` takes; its "AP" is the mean of these without the nan.
    """
    precision = curves(truths, results, **kwargs).precision[..., 0]
    means = precision.mean(axis=(0, 1))
    return np.where(means < 0, np.nan, means)


def curves(
    truths: Truths,
    results: Results,
    *,
    image_ids: Sequence[int] | np.ndarray,
    num_classes: int,
    kind: str = "bbox",
    max_detections: Sequence[int] | None = None,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> Curves:
    """Precision at the recall points and the final recall, of what `evaluate` takes.

    Equal scores rank by image id, then by their order in `results`.
    """
    images = np.unique(np.asarray(image_ids, np.int64))
    limits = _limits(kind, max_detections)
    truths, truth_group = arranged(truths, images, num_classes)
    results, group = arranged(results, images, num_classes)
    top = np.flatnonzero(_rank(group) < limits[-1])
    results, group = take(results, top), group[top]
    crowd = np.asarray(truths.crowd, bool)
    excused = crowd if truths.ignore is None else crowd | (truths.ignore > 0)
    if kind == "keypoints":
        excused = excused | overlaps.unseen(truths)
    ignored = excused[:, None] | ~_inside(truths.areas)
    similarity = overlaps.similarity(truths, results, kind, sigmas)
    pairs = _pairs(truth_group, group, similarity)
    matches = _match(*pairs, group, ignored, crowd)
    counts = [np.bincount(truths.labels[~i], minlength=num_classes) for i in ignored.T]
    inside = _inside(overlaps.areas(results, kind))
    return _accumulate(matches, results, inside, _rank(group), np.array(counts), limits)


def _limits(kind: str, given: Sequence[int] | None) -> list[int]:
    """The limits on detections, rising. Raises ValueError for an unknown kind."""
    if kind not in LIMITS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(LIMITS)}.")
    return sorted(set(LIMITS[kind] if given is None else given))


def _has_size(kind: str, size: str) -> bool:
    """Whether the protocol has the size class: keypoints have no small objects."""
    return kind != "keypoints" or size != "s"


def _rank(ids: np.ndarray) -> np.ndarray:
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


def _pairs(
    truth_group: np.ndarray, group: np.ndarray, similarity: Similarity
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections, truths and overlaps [p] of the pairs above the smallest threshold.

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
        keep = overlap >= THRESHOLDS[0]
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
    turn = _rank(group[candidates])[index]
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
        who = who[_rank(who) == 0]
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


def _accumulate(
    matches: Matches,
    results: Results,
    inside: np.ndarray,
    rank: np.ndarray,
    counts: np.ndarray,
    limits: list[int],
) -> Curves:
    """Curves from all matches; inside [n a], rank within the group [n], counts [a k].

    Precision peaks at hits, so only hits are listed: by cell = (area range, threshold,
    class), inside a cell by falling score.
    """
    shape = (len(AREAS), len(THRESHOLDS), counts.shape[1])
    chosen, hit, seen = _by_score(matches, results, inside, shape[-1])
    a, t, c = np.nonzero(hit)
    cell = np.ravel_multi_index((a, t, results.labels[chosen[c]]), shape)
    precision = (_rank(cell) + 1) / seen[hit]
    rank = rank[chosen[c]]
    within = [np.bincount(cell[rank < d], minlength=np.prod(shape)) for d in limits]
    hits = np.reshape(within, (len(limits), *shape))
    recall = hits / np.maximum(counts, 1)[:, None]
    curve = _interpolate(precision, hits[-1], counts)
    absent = (counts == 0)[:, None]
    return Curves(
        np.where(absent[..., None], -1.0, curve).transpose(1, 3, 2, 0),
        np.where(absent, -1.0, recall).transpose(2, 3, 1, 0),
    )


def _by_score(
    matches: Matches, results: Results, inside: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates [c] by class and falling score, their hits and counts so far [a t c].

    The counts are true and false positives of the class up to and including the
    candidate: detections in range, adjusted for matches.
    """
    order = np.lexsort((-results.scores, results.labels))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    by_score = np.argsort(place[matches.candidates])
    chosen = matches.candidates[by_score]
    hit = np.ascontiguousarray(matches.hit[by_score].transpose(1, 2, 0))
    void = matches.void[by_score].transpose(1, 2, 0)
    usual = inside[chosen].T[:, None]
    change = (hit | (usual & ~void)).astype(np.int8) - usual
    seen = _running(inside[order].T, results.labels[order], k)[:, None, place[chosen]]
    return chosen, hit, seen + _running(change, results.labels[chosen], k)


def _running(values: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Sums along the last axis that restart at each class; labels rise."""
    sums = np.cumsum(values, axis=-1, dtype=np.int32)
    before = np.pad(sums, [(0, 0)] * (sums.ndim - 1) + [(1, 0)])
    first = np.searchsorted(labels, np.arange(k))
    return sums - np.repeat(before[..., first], np.bincount(labels, minlength=k), -1)


def _interpolate(
    precision: np.ndarray, hits: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Largest precision at or beyond each recall point [a t k r], 0 if never reached.

    precision [hits.sum()] lists the hits cell by cell and is overwritten; hits [a t k],
    counts [a k].
    """
    ends = np.cumsum(hits)
    for lo, hi in pairwise([0, *ends.tolist()]):
        tail = precision[lo:hi][::-1]
        np.maximum.accumulate(tail, out=tail)
    # The least number of hits n with n / counts >= recall, in that float comparison:
    # rounding puts ceil(recall * counts) off by one at most.
    counts = np.maximum(counts, 1)[..., None]
    least = np.ceil(RECALLS * counts) - 1
    least += least / counts < RECALLS
    least += least / counts < RECALLS
    least = np.maximum(least, 1).astype(np.int64)[:, None]
    index = (ends.reshape(hits.shape) - hits)[..., None] + least - 1
    reached = least <= hits[..., None]
    padded = np.append(precision, 0.0)
    return padded[np.where(reached, index, len(precision))]
