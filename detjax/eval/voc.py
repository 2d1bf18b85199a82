"""Pascal VOC's average precision, and rankings of all classes or of one image.

By falling score each detection looks at the truth of its class and image that it
overlaps most. It is right if that overlap reaches the threshold and no detection before
it took that truth; a second one is wrong; one of a difficult truth counts neither way.
(COCO's takes the best truth that is still free instead, see `matching`.)

Shape legend: m truths, n detections, k classes, i images.

Everingham et al. 2010, section 4.2; the development kit's VOCevaldet.m.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from detjax.eval import columns
from detjax.eval.columns import Results, Truths

Points = Literal["all", "11"]


class Marked(NamedTuple):
    """Detections against the truths, at one overlap; those of other images left out."""

    images: np.ndarray  # [n] places in the sorted image ids
    labels: np.ndarray  # [n]
    scores: np.ndarray  # [n]
    hit: np.ndarray  # [n] bool: right
    void: np.ndarray  # [n] bool: of a difficult truth
    of_image: np.ndarray  # [i] truths that count
    of_class: np.ndarray  # [k] the same


def marked(
    truths: Truths,
    results: Results,
    *,
    image_ids: Sequence[int] | np.ndarray,
    num_classes: int,
    iou: float = 0.5,
    inclusive: bool = False,
) -> Marked:
    """The `Marked` of boxes [.. 4] xywh; truths with `ignore` or `crowd` are difficult.

    inclusive: boxes name their first and last pixels, as the development kit's do:
        widths and heights are one more. Boxes of continuous coordinates, which go from
        the left edge of the first pixel to the right edge of the last, need no such
        correction.

    Equal scores rank by image id, then by their order in `results`.
    """
    images = np.unique(np.asarray(image_ids, np.int64))
    truths, truth_group = columns.arranged(truths, images, num_classes)
    results, group = columns.arranged(results, images, num_classes)
    best, overlap = _best(truths, truth_group, results, group, float(inclusive))
    difficult = np.asarray(truths.crowd, bool)
    if truths.ignore is not None:
        difficult = difficult | (np.asarray(truths.ignore) > 0)
    near = overlap >= iou
    void = near & difficult[best] if len(difficult) else near
    hit = near & ~void
    # Of the detections of one truth the first; groups are in order of score.
    taking = np.flatnonzero(hit)
    _, first = np.unique(best[taking], return_index=True)
    hit[np.delete(taking, first)] = False
    known = truth_group[~difficult]
    places = max(len(images), 1)
    of_image = np.bincount(known % places, minlength=len(images))
    of_class = np.bincount(known // places, minlength=num_classes)
    scores = np.asarray(results.scores, np.float64)
    return Marked(
        group % places, group // places, scores, hit, void, of_image, of_class
    )


def _best(
    truths: Truths,
    truth_group: np.ndarray,
    results: Results,
    group: np.ndarray,
    more: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The first truth of its group that each detection overlaps most, and the IoU [n].

    Where there is none the IoU is -1. Groups rise; `more` is added to all sides.
    """
    best, overlap = np.zeros(len(group), np.int64), np.full(len(group), -1.0)
    first = np.searchsorted(truth_group, group, side="left")
    count = np.searchsorted(truth_group, group, side="right") - first
    box, true = (
        np.asarray(x.boxes, np.float64).reshape(-1, 4) for x in (results, truths)
    )
    # One truth of every group at a time: as many rounds as the fullest group has.
    for turn in range(int(count.max(initial=0))):
        rows = np.flatnonzero(count > turn)
        truth = first[rows] + turn
        found = _iou(box[rows], true[truth], more)
        better = found > overlap[rows]
        best[rows[better]], overlap[rows[better]] = truth[better], found[better]
    return best, overlap


def _iou(a: np.ndarray, b: np.ndarray, more: float) -> np.ndarray:
    """IoU [p] of boxes [p 4] xywh in pairs, whose sides are `more` longer."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    inter = np.clip(high - low + more, 0, None).prod(axis=1)
    area_a, area_b = ((x[:, 2:] + more).prod(axis=1) for x in (a, b))
    union = area_a + area_b - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def average_precision(
    scores: np.ndarray, hit: np.ndarray, count: int, points: Points = "all"
) -> float:
    """The area under the interpolated precision, of detections [n] and `count` truths.

    points: "all" recalls that occur (VOC from 2010 on), or the mean at "11" recalls
        from 0 to 1 (until 2009).

    Equal scores keep their order. NaN without a truth.
    """
    if count == 0:
        return float("nan")
    right = np.asarray(hit, bool)[np.argsort(-np.asarray(scores), kind="stable")]
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / count
    peak = np.maximum.accumulate(precision[::-1])[::-1]
    if points == "11":
        place = np.searchsorted(recall, np.linspace(0, 1, 11))
        return float(np.append(peak, 0.0)[place].mean())
    return float(peak[right].sum() / count)


class Scores(NamedTuple):
    """What a ranking of detections is worth; NaN where there is no truth."""

    classes: np.ndarray  # [k] AP of each class
    macro: float  # their mean, VOC's mAP
    # AP of one ranking of all classes (micro-averaged): Redmon and Farhadi 2018's
    # "global" AP, which mean AP says nothing of
    micro: float
    images: np.ndarray  # [i] AP of each image, all its classes in one ranking
    by_image: float  # their mean


def evaluate(
    truths: Truths,
    results: Results,
    *,
    image_ids: Sequence[int] | np.ndarray,
    num_classes: int,
    iou: float = 0.5,
    points: Points = "all",
    inclusive: bool = False,
) -> Scores:
    """The `Scores` of what `marked` takes; see `average_precision` for `points`.

    Everingham et al. 2010; Redmon and Farhadi 2018 (YOLOv3), "What this all means".
    """
    found = marked(
        truths,
        results,
        image_ids=image_ids,
        num_classes=num_classes,
        iou=iou,
        inclusive=inclusive,
    )
    classes = _each(found, found.labels, found.of_class, points)
    images = _each(found, found.images, found.of_image, points)
    real = ~found.void
    total = int(found.of_class.sum())
    micro = average_precision(found.scores[real], found.hit[real], total, points)
    return Scores(classes, _mean(classes), micro, images, _mean(images))


def _each(
    found: Marked, ids: np.ndarray, counts: np.ndarray, points: Points
) -> np.ndarray:
    """AP of the detections of each id, of which there are as many as `counts`."""
    order = np.argsort(ids, kind="stable")
    order = order[~found.void[order]]
    ends = np.searchsorted(ids[order], np.arange(len(counts) + 1))
    return np.array(
        [
            average_precision(found.scores[rows], found.hit[rows], int(count), points)
            for count, rows in zip(
                counts, np.split(order, ends[1:-1]) if len(counts) else [], strict=True
            )
        ]
    )


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
