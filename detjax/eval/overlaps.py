"""Similarity of detections and truths: IoU of boxes and masks, keypoint OKS.

`similarity` gives the function of (detection, truth) pairs that the metric ranks by,
for one kind of object. The metric itself knows only its values.

Shape legend: m truths, n detections, p pairs of the two within one image and class,
k keypoints of one object.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from pycocotools import mask as rle

from detjax.eval.columns import Results, Truths
from detjax.ops import rotated

# The standard deviation of COCO's 17 person keypoints among annotators, as a fraction
# of the square root of the object's area: nose, eyes, ears, shoulders, elbows, wrists,
# hips, knees, ankles.
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)

Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]  # [p], [p] -> [p]
_COLUMNS = {
    "segm": ("rles", "masks"),
    "keypoints": ("keypoints", "keypoints"),
    "oriented": ("oriented", "oriented boxes"),
}
LOT = 4096  # pairs of oriented boxes that are compared at once


def similarity(
    truths: Truths, results: Results, kind: str, sigmas: Sequence[float] = COCO_SIGMAS
) -> Similarity:
    """The function from indices of detections and of truths to their overlaps.

    `kind` is "bbox", "segm", "oriented" or "keypoints", the last with `sigmas` [k].
    Raises ValueError if required columns are missing or do not fit.
    """
    crowd = np.asarray(truths.crowd, bool)
    if kind == "bbox":
        boxes = corners(results.boxes), corners(truths.boxes)
        return partial(_box_overlap, *boxes, crowd)
    _check_columns(truths, results, kind)
    if kind == "segm":
        return partial(_mask_overlap, results.rles or [], truths.rles or [], crowd)
    if not len(truths.labels) or not len(results.labels):
        return lambda i, j: np.zeros(len(i))
    if kind == "oriented":
        assert truths.oriented is not None
        return partial(_turned_overlap, results.oriented, truths.oriented, crowd)
    return _keypoint_similarity(truths, results, np.asarray(sigmas, np.float64))


def areas(results: Results, kind: str) -> np.ndarray:
    """Areas [n] that decide whether an unmatched detection is out of range."""
    if kind == "oriented" and results.oriented is not None:
        return np.reshape(results.oriented, (-1, 5))[:, 2:4].prod(axis=1)
    if kind != "segm":
        return corners(results.boxes)[-1]
    masks = results.rles or []
    # Under numpy 2 pycocotools overflows on lists of 256 masks and more.
    lots = (rle.area(masks[lo : lo + 128]) for lo in range(0, len(masks), 128))
    return np.concatenate([np.zeros(0), *lots])


def corners(boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Contiguous x0, y0, x1, y1, area of xywh boxes [n 4]; columns gather faster."""
    x, y, w, h = np.array(np.reshape(boxes, (-1, 4)).T, np.float64, order="C")
    return x, y, x + w, y + h, w * h


def unseen(truths: Truths) -> np.ndarray:
    """Truths [m] bool without a labelled keypoint, which no detection can miss."""
    if truths.num_keypoints is not None:
        return np.equal(truths.num_keypoints, 0)
    if truths.keypoints is None:
        return np.zeros(len(truths.labels), bool)
    seen = np.asarray(truths.keypoints)[..., 2] > 0
    return np.logical_not(seen.any(axis=1))


def _check_columns(truths: Truths, results: Results, kind: str) -> None:
    column, name = _COLUMNS[kind]
    for records in (truths, results):
        absent = getattr(records, column) is None
        if absent and len(truths.labels) and len(results.labels):
            raise ValueError(
                f"{type(records).__name__} carry no {name} ({column} is None), which "
                f"kind={kind!r} needs; fill {column} or evaluate with kind='bbox'."
            )


def _box_overlap(
    detections: tuple[np.ndarray, ...],
    truths: tuple[np.ndarray, ...],
    crowd: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
) -> np.ndarray:
    """IoU [p] of detections i and truths j; for crowds intersection over detection."""
    x0, y0, x1, y1, area = (column[i] for column in detections)
    u0, v0, u1, v1, other = (column[j] for column in truths)
    w = np.minimum(x1, u1) - np.maximum(x0, u0)
    h = np.minimum(y1, v1) - np.maximum(y0, v0)
    apart = (w <= 0) | (h <= 0)
    common = w * h
    whole = np.where(crowd[j], area, area + other - common)
    return np.where(apart, 0.0, common / np.where(apart, 1.0, whole))


def _turned_overlap(
    detections: np.ndarray,
    truths: np.ndarray,
    crowd: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
) -> np.ndarray:
    """IoU [p] of the oriented boxes of detections i and truths j.

    For crowds intersection over detection, as of the other kinds.
    """
    found = np.zeros(len(i))
    # Those whose circumscribed circles meet.
    apart = detections[i, :2] - truths[j, :2]
    reach = np.hypot(*detections[i, 2:4].T) + np.hypot(*truths[j, 2:4].T)
    near = np.flatnonzero(np.hypot(*apart.T) < reach / 2)
    for lo in range(0, len(near), LOT):
        some = near[lo : lo + LOT]
        # Always as many, that one program is compiled.
        lot = np.resize(some, LOT)
        overlap = np.asarray(
            rotated.paired_iou(
                detections[i[lot]].astype(np.float32), truths[j[lot]].astype(np.float32)
            )
        )
        found[some] = overlap[: len(some)]
    own, other = (x[:, 2:4].prod(axis=1) for x in (detections[i], truths[j]))
    common = found * (own + other) / (1 + found)
    return np.where(crowd[j], common / np.maximum(own, 1e-9), found)


def _mask_overlap(
    detections: Sequence,
    truths: Sequence,
    crowd: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
) -> np.ndarray:
    """As `_box_overlap` for run-length masks; pairs come as `_pairs` lists them."""
    overlaps = np.empty(len(i))
    heads = np.flatnonzero(np.diff(i, prepend=-1))
    # Detections of one group share their first truth, those of others have another.
    groups = heads[np.flatnonzero(np.diff(j[heads], prepend=-1))]
    for lo, hi in pairwise([*groups, len(i)]):
        rows, columns = slice(i[lo], i[hi - 1] + 1), slice(j[lo], j[hi - 1] + 1)
        values = rle.iou(detections[rows], truths[columns], crowd[columns].tolist())
        if values.min() < 0:
            sizes = {tuple(m["size"]) for m in (*detections[rows], *truths[columns])}
            raise ValueError(
                f"masks of one image have the sizes {sorted(sizes)}, expected one; "
                "bring detected masks to the original image's size."
            )
        overlaps[lo:hi] = values.ravel()
    return overlaps


def _keypoint_similarity(
    truths: Truths, results: Results, sigmas: np.ndarray
) -> Similarity:
    """`_oks` over columns that gather fast: x and y as [k m] and [k n]."""
    points = np.asarray(truths.keypoints, np.float64)
    found = np.asarray(results.keypoints, np.float64)
    if not points.shape[1] == found.shape[1] == len(sigmas):
        raise ValueError(
            f"truths have {points.shape[1]} keypoints, results {found.shape[1]}, and "
            f"there are {len(sigmas)} sigmas; give as many sigmas as keypoints, and "
            "detect the keypoints that are annotated."
        )
    x, y, w, h = np.asarray(truths.boxes, np.float64).T
    return partial(
        _oks,
        np.ascontiguousarray(found[..., :2].T),
        np.ascontiguousarray(points.T),
        (x - w, y - h, x + 2 * w, y + 2 * h),
        np.asarray(truths.areas, np.float64) + np.spacing(1),
        (2 * sigmas) ** 2,
    )


def _oks(
    found: np.ndarray,
    points: np.ndarray,
    around: tuple[np.ndarray, ...],
    area: np.ndarray,
    variances: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
) -> np.ndarray:
    """Object keypoint similarity [p] of detections i and truths j, in [0, 1].

    The mean of exp(-d^2 / (2 area (2 sigma)^2)) over the labelled keypoints, d from
    found [2 k n] to points [3 k m]. For a truth without any, d is the distance of all
    keypoints to its box enlarged threefold (`around`), so that it absorbs detections
    nearby.

    COCO's keypoint evaluation (cocodataset.org, keypoints-eval).
    """
    labelled = points[2] > 0
    blank = ~labelled.any(axis=0)
    count = np.where(blank, len(labelled), labelled.sum(axis=0))[j]
    blank, size = blank[j], area[j]
    x0, y0, x1, y1 = (side[j] for side in around)
    total = np.zeros(len(i))
    # Point by point: what belongs to a chunk of pairs stays in cache.
    for x, y, u, v, seen, variance in zip(
        *found, *points[:2], labelled, variances, strict=True
    ):
        x, y = x[i], y[i]
        dx, dy = x - u[j], y - v[j]
        if blank.any():
            dx = np.where(blank, _outside(x, x0, x1), dx)
            dy = np.where(blank, _outside(y, y0, y1), dy)
        likeness = np.exp(-((dx**2 + dy**2) / variance / size / 2))
        total += np.where(seen[j] | blank, likeness, 0.0)
    return total / count


def _outside(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How far each x lies beyond its range."""
    return np.maximum(0.0, low - x) + np.maximum(0.0, x - high)
