"""Region proposals without learning, the inputs of R-CNN.

They are a field of a data set, computed once with it: `prepare` calls `of`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as rle

from detjax import settings
from detjax.data import pixels
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.settings import Count, NonNegative, Whole


def selective_search(
    image: np.ndarray,
    *,
    mode: Literal["fast", "quality"] = "fast",
    max_side: Whole | None = 500,
    min_side: NonNegative = 0,
    limit: Count = 2000,
) -> np.ndarray:
    """Proposals [p 4] float32, xyxy pixels of `image` [h w 3] uint8 BGR, best first.

    Regions of a graph segmentation are merged, the most similar first, for several
    colour spaces, scales and similarity measures; each region's box is a proposal.
    `mode` is "fast" or "quality", which has more of each. Images longer than `max_side`
    are shrunk for it (R-CNN takes them at a width of 500). Boxes with a side under
    `min_side` of the image's pixels are left out, and of the rest `limit` stay.

    The same image gives the same boxes in the same order. Raises UserError for another
    `mode`.

    Uijlings et al., Selective Search for Object Recognition, IJCV 2013. As there the
    order is the depth in the hierarchies, roots first, times a random number; here a
    region's rank by size replaces its depth, which is unknown.
    """
    if mode not in ("fast", "quality"):
        raise UserError(f"mode={mode!r} is not 'fast' or 'quality'")
    h, w = image.shape[:2]
    scale = min(1.0, max_side / max(h, w)) if max_side else 1.0
    size = max(1, round(w * scale)), max(1, round(h * scale))
    search = _search()
    search.setBaseImage(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    # Sorting removes OpenCV's own order, which comes from C's rand().
    found = np.unique(np.reshape(search.process(), (-1, 4)), axis=0)
    corner, extent = found[:, :2], found[:, 2:]
    boxes = np.concatenate([corner, corner + extent], 1) * (
        np.tile([w, h], 2) / (size * 2)
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes = boxes[(sides >= min_side).all(1)]
    return _ranked(boxes)[:limit].astype(np.float32)


def check() -> None:
    """Raises UserError that says what to install where proposals cannot be made."""
    _search()


def _search() -> Any:
    """OpenCV's selective search; raises UserError that says what to install."""
    try:
        modules = cv2.ximgproc  # type: ignore[attr-defined]
    except AttributeError as error:
        raise UserError(
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
    """The arguments of `of`, defaults included, as JSON values.

    Raises UserError for an unknown method or keyword.
    """
    method, given = _split(asked)
    known = dict(METHODS[method].__kwdefaults__)
    given = settings.check_all("proposals", METHODS[method], given)
    return {"method": method, **known, **given}


def finder(asked: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from an image [h w 3] uint8 BGR to its proposals [p 4]."""
    method, given = _split(asked)
    return functools.partial(METHODS[method], **given)


def of(record: Record, asked: Mapping[str, Any]) -> np.ndarray:
    """The proposals [p 4] of a record, by the `asked` "method" and its keywords.

    They are in pixels of the upright image, as annotations are. Raises UserError for an
    image that cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = pixels.decode(record.image, flags)
    except UserError:
        raise UserError(f"{record.file_name} cannot be decoded") from None
    return finder(asked)(image)


def recall(records: Sequence[Record], threshold: float = 0.5) -> float:
    """Share of the annotated objects that a proposal overlaps with a greater IoU.

    Crowds do not count; 0 where there is no object.
    """
    hits, count = 0, 0
    for record in records:
        truth = [a.box for a in record.truth if not a.crowd]
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
        raise UserError(
            f"proposals have the method {method!r}; take one of {', '.join(METHODS)}"
        )
    return method, given


def _xywh(boxes: Any) -> np.ndarray:
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes
