"""Boxes that may hold an object, found without learning: what R-CNN classifies.

They are a field of a data set, made once with it: `prepare` calls `add`.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

from detjax.data import pixels
from detjax.data.builder import encoded
from detjax.data.records import Record


def selective_search(
    image: np.ndarray,
    *,
    mode: str = "fast",
    max_side: int | None = 500,
    min_side: float = 0,
    limit: int = 2000,
) -> np.ndarray:
    """Proposals [p 4] float32, xyxy pixels of `image` [h w 3] uint8 BGR, best first.

    Regions of a graph segmentation are merged, the most alike first, under several
    colour spaces, scales and likenesses; each region's box is a proposal. `mode` is
    "fast" or "quality", which has more of each. Images longer than `max_side` are
    shrunk for it (R-CNN takes them at a width of 500). Boxes with a side under
    `min_side` of the image's pixels are left out, and of the rest `limit` stay.

    The same image gives the same boxes in the same order. Raises ValueError for another
    `mode`.

    Uijlings et al., Selective Search for Object Recognition, IJCV 2013. As there the
    order is that of the hierarchies, whole first, times a random number; a region's
    depth is not known here and its rank by size stands for it.
    """
    if mode not in ("fast", "quality"):
        raise ValueError(f"mode={mode!r} is not 'fast' or 'quality'")
    h, w = image.shape[:2]
    scale = min(1.0, max_side / max(h, w)) if max_side else 1.0
    size = max(1, round(w * scale)), max(1, round(h * scale))
    search = _search()
    search.setBaseImage(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    # OpenCV's own order comes from C's rand(); sorted, it is forgotten.
    found = np.unique(np.reshape(search.process(), (-1, 4)), axis=0)
    corner, extent = found[:, :2], found[:, 2:]
    boxes = np.concatenate([corner, corner + extent], 1) * (
        np.tile([w, h], 2) / (size * 2)
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes = boxes[(sides >= min_side).all(1)]
    return _ranked(boxes)[:limit].astype(np.float32)


def _search() -> Any:
    """OpenCV's selective search; raises ImportError that says what to install."""
    try:
        modules = cv2.ximgproc  # type: ignore[attr-defined]
    except AttributeError as error:
        raise ImportError(
            "this OpenCV has no ximgproc, which selective search needs: replace "
            "opencv-python-headless by opencv-contrib-python-headless"
        ) from error
    return modules.segmentation.createSelectiveSearchSegmentation()


def _ranked(boxes: np.ndarray) -> np.ndarray:
    """Boxes by rank in size, the largest first, times a random number in 0..1."""
    sides = boxes[:, 2:] - boxes[:, :2]
    largest = np.argsort(-sides.prod(1), kind="stable")
    chance = np.random.default_rng(0).random(len(boxes))
    order = np.argsort(np.arange(1, len(boxes) + 1) * chance, kind="stable")
    return boxes[largest[order]]


METHODS: dict[str, Callable[..., np.ndarray]] = {"selective_search": selective_search}


def complete(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `add` is asked for, defaults included, as JSON would hold it.

    Raises ValueError for an unknown method or keyword.
    """
    method, given = _split(asked)
    known = dict(METHODS[method].__kwdefaults__)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"proposals by {method} know no {', '.join(unknown)}; they take "
            f"{', '.join(known)}"
        )
    return {"method": method, **known, **given}


def finder(asked: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from an image [h w 3] uint8 BGR to its proposals [p 4]."""
    method, given = _split(asked)
    return functools.partial(METHODS[method], **given)


def add(records: Sequence[Record], asked: Mapping[str, Any]) -> None:
    """Gives every record its proposals, by the `asked` "method" and its keywords.

    Threads share the work. Raises ValueError for an image that cannot be decoded.
    """
    find = finder(asked)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for record, boxes in zip(
            records, pool.map(lambda r: find(_pixels(r)), records), strict=True
        ):
            record.proposals = boxes


def recall(records: Sequence[Record], threshold: float = 0.5) -> float:
    """Share of the annotated objects that a proposal overlaps with a greater IoU.

    Crowds do not count; 0 where there is no object.
    """
    hits, count = 0, 0
    for record in records:
        truth = [a.box for a in record.annotations if not a.crowd]
        count += len(truth)
        if truth and record.proposals is not None and len(record.proposals):
            found = _xywh(record.proposals)
            overlap = rle.iou(_xywh(truth), found, [0] * len(found))
            hits += int((overlap.max(axis=1) > threshold).sum())
    return hits / max(count, 1)


def _split(asked: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    given = dict(asked)
    method = given.pop("method", None)
    if method not in METHODS:
        raise ValueError(
            f"proposals have the method {method!r}; take one of {', '.join(METHODS)}"
        )
    return method, given


def _pixels(record: Record) -> np.ndarray:
    """The image as stored, BGR: proposals are in stored pixels, as annotations are."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    data = encoded(record)
    try:
        return pixels.decode(data, flags)
    except ValueError:
        raise ValueError(f"{record.file_name} cannot be decoded") from None


def _xywh(boxes: Any) -> np.ndarray:
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes
