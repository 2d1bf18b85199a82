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

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from detjax.eval.columns import Results, Truths
from detjax.eval.matching import (
    AREAS,
    THRESHOLDS,
    Matched,
    Matches,
    limits_of,
    matched,
    rank_in,
)
from detjax.eval.overlaps import COCO_SIGMAS

RECALLS = np.linspace(0.0, 1.0, 101)


class Curves(NamedTuple):
    """Values that the protocol averages; -1 for a class without counted truths."""

    precision: np.ndarray  # [t r k a] at the largest limit
    recall: np.ndarray  # [t k a d]


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

    All but AR<limit> are at the largest of `max_detections`, by default
    `matching.LIMITS`. A number is -1 where no class has a truth that counts.
    `image_ids` are the images evaluated, also those without objects; truths and results
    of other images are ignored. Raises ValueError if columns are missing or do not fit.
    """
    limits = limits_of(kind, max_detections)
    found = curves(
        truths,
        results,
        image_ids=image_ids,
        num_classes=num_classes,
        kind=kind,
        max_detections=limits,
        sigmas=sigmas,
    )
    return means(found, kind, limits)


def per_class(truths: Truths, results: Results, **kwargs: Any) -> np.ndarray:
    """AP of every class [k], nan where a class has no truth that counts.

    Takes what `evaluate` takes; its "AP" is the mean of these without the nan.
    """
    return class_means(curves(truths, results, **kwargs))


def curves(truths: Truths, results: Results, **kwargs: Any) -> Curves:
    """Precision at the recall points and the final recall, of what `evaluate` takes.

    Equal scores rank by image id, then by their order in `results`.
    """
    return accumulate(matched(truths, results, **kwargs))


def names(kind: str = "bbox", max_detections: Sequence[int] | None = None) -> list[str]:
    """The names of the metrics of `evaluate`, in their order."""
    limits = limits_of(kind, max_detections)
    count, areas = len(THRESHOLDS), len(AREAS)
    nothing = np.zeros((count, 1, 1, areas)), np.zeros((count, 1, areas, len(limits)))
    return list(means(Curves(*nothing), kind, limits))


def means(found: Curves, kind: str, limits: Sequence[int]) -> dict[str, float]:
    """The summary that `evaluate` returns, of curves at `limits`, which rise."""
    precision, recall = found
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


def class_means(found: Curves) -> np.ndarray:
    """AP of every class [k] of curves, nan where a class has no truth that counts."""
    return _defined(found.precision[..., 0].mean(axis=(0, 1)))


def class_means_50(found: Curves) -> np.ndarray:
    """AP50 of every class [k], as `class_means`."""
    return _defined(found.precision[0, ..., 0].mean(axis=0))


def _defined(means: np.ndarray) -> np.ndarray:
    return np.where(means < 0, np.nan, means)


def _has_size(kind: str, size: str) -> bool:
    """Whether the protocol has the size class: keypoints have no small objects."""
    return kind != "keypoints" or size != "s"


def accumulate(found: Matched) -> Curves:
    """Curves from all matches.

    Precision peaks at hits, so only hits are listed: by cell = (area range, threshold,
    class), inside a cell by falling score.
    """
    matches, results, inside, rank, counts, limits = found
    shape = (len(AREAS), len(THRESHOLDS), counts.shape[1])
    chosen, hit, seen = _by_score(matches, results, inside, shape[-1])
    a, t, c = np.nonzero(hit)
    cell = np.ravel_multi_index((a, t, results.labels[chosen[c]]), shape)
    precision = (rank_in(cell) + 1) / seen[hit]
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
