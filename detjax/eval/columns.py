"""Annotated and detected objects of a data set, one column per property.

Shape legend: m truths, n detections, k keypoints of one object. The columns lie in any
order; an image or a class has any number of rows.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from detjax.eval.codes import Codes


class Truths(NamedTuple):
    """Annotated objects of all images; boxes are xywh in original pixels."""

    image_ids: np.ndarray  # [m] int64
    labels: np.ndarray  # [m] int, 0..c-1
    boxes: np.ndarray  # [m 4] float64
    areas: np.ndarray  # [m] float64: decides the size class, not w * h
    crowd: np.ndarray  # [m] bool: absorbs any number of detections, never counts
    # COCO's {"size": [h, w], "counts": str or bytes}
    rles: Sequence | None = None
    ignore: np.ndarray | None = None  # [m] bool: absorbs one detection, never counts
    keypoints: np.ndarray | None = None  # [m k 3] float64: x, y, visibility 0/1/2
    # [m] int: 0 is ignored for keypoints; None counts the visible
    num_keypoints: np.ndarray | None = None
    oriented: np.ndarray | None = None  # [m 5] float64: see `ops.rotated`


class Results(NamedTuple):
    """Detections of all images; boxes are xywh in original pixels."""

    image_ids: np.ndarray  # [n] int64
    labels: np.ndarray  # [n] int, 0..c-1
    scores: np.ndarray  # [n] float64
    boxes: np.ndarray  # [n 4] float64
    rles: Sequence | None = None
    keypoints: np.ndarray | None = None  # [n k 2 or more] float64: x, y
    oriented: np.ndarray | None = None  # [n 5] float64


Records = TypeVar("Records", Truths, Results)


def arranged(
    records: Records, images: np.ndarray, num_classes: int
) -> tuple[Records, np.ndarray]:
    """The records of `images` by group, results also by falling score; their groups.

    A group is one class in one image; `images` are sorted ids.
    """
    group = _groups(records, images, num_classes)
    keys = [group]
    if isinstance(records, Results):
        keys.insert(0, -np.asarray(records.scores, np.float64))
    order = np.lexsort(keys)[np.count_nonzero(group < 0) :]
    return take(records, order), group[order]


def take(records: Records, order: np.ndarray) -> Records:
    """The records at the indices `order`, in all their columns."""
    given = {k: v for k, v in records._asdict().items() if v is not None}
    rles = given.pop("rles", None)
    arrays = {name: np.asarray(column)[order] for name, column in given.items()}
    if rles is not None:
        held = isinstance(rles, Codes)
        arrays["rles"] = rles.take(order) if held else [rles[i] for i in order]
    return records._replace(**arrays)


def _groups(
    records: Truths | Results, images: np.ndarray, num_classes: int
) -> np.ndarray:
    """Number of each record's (class, image), rising in both; -1 for other images."""
    labels = np.asarray(records.labels, np.int64)
    ids = np.asarray(records.image_ids, np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise ValueError(
            f"{type(records).__name__} {wrong[0]} (image {ids[wrong[0]]}) has label "
            f"{labels[wrong[0]]}, expected 0..{num_classes - 1}; map category ids to "
            "0..c-1 as `coco_json.read` does, or raise num_classes."
        )
    group = labels * len(images) + np.searchsorted(images, ids)
    return np.where(np.isin(ids, images), group, -1)
