"""Drawings of detections, through supervision."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from detjax.data import rle
from detjax.data.records import Record
from detjax.draw import canvas, plain
from detjax.tasks.detection.meter import points_of
from detjax.tasks.detection.restore import Found

# Above this many, spreading labels out takes minutes and there is no room for them.
MOST_LABELS = 100


def draw(
    image: np.ndarray,
    found: Found,
    classes: Sequence[str],
    *,
    least_side: int = 480,
    most_side: int | None = None,
) -> np.ndarray:
    """A copy of `image` [h w 3] uint8 with all that was found drawn in.

    That is masks, boxes, keypoints of a score above 0, names and scores. Small pictures
    are enlarged to `least_side` pixels first, so that text can be read, and those with
    a side above `most_side` are shrunk. Instances of a one-class set are told apart by
    colour; otherwise it is the class.
    """
    import supervision as sv  # here: it brings matplotlib and scipy

    drawing: Any = canvas(image, least_side, most_side)
    if not len(found.boxes):
        return drawing
    h, w = size = drawing.shape[:2]
    scale = np.divide(size, image.shape[:2])[::-1]
    boxes = np.nan_to_num(np.asarray(found.boxes, np.float64)) * np.tile(scale, 2)
    drawn = sv.Detections(
        xyxy=np.clip(boxes, 0, [w, h, w, h]).astype(np.float32),
        class_id=np.asarray(found.labels, int),
    )
    several = len(classes) > 1
    lookup = sv.ColorLookup.CLASS if several else sv.ColorLookup.INDEX
    if found.rles:
        shades = found.labels if several else range(len(found.labels))
        drawing = blended(drawing, found, [int(shade) for shade in shades])
    # Lines and letters grow with large pictures, which are looked at as a whole.
    unit = max(1.0, min(size) / 800)
    drawing = sv.BoxAnnotator(thickness=round(2 * unit), color_lookup=lookup).annotate(
        drawing, drawn
    )
    if found.keypoints is not None:
        points = _inside(found.keypoints, scale, size)
        drawing = sv.VertexAnnotator(radius=round(3 * unit)).annotate(drawing, points)
    # Names on dozens of small objects would hide them all.
    side = np.sqrt(np.prod(drawn.xyxy[:, 2:] - drawn.xyxy[:, :2], axis=1)).mean()
    many = len(found.boxes) > 12 and side < 60 * unit
    if many or len(found.boxes) > MOST_LABELS:
        return drawing
    labels = [
        plain(classes[label], 40) + ("" if np.isnan(score) else f" {score:.2f}")
        for label, score in zip(found.labels, found.scores, strict=True)
    ]
    return sv.LabelAnnotator(
        text_scale=0.4 * unit,
        text_thickness=round(unit),
        text_padding=round(2 * unit),
        color_lookup=lookup,
        smart_position=True,
    ).annotate(drawing, drawn, labels)


def truth(record: Record) -> Found:
    """The annotations of `record` as detections without a score."""
    some = [a for a in record.truth if not a.crowd]
    size = (record.height, record.width)
    rles = [{"size": [*size], "counts": a.rle} for a in some if a.rle]
    return Found(
        np.array([a.box for a in some], np.float32).reshape(-1, 4),
        np.full(len(some), np.nan),
        np.array([a.label for a in some], int),
        rles if some and len(rles) == len(some) else None,
        keypoints=points_of([a.keypoints for a in some]),
        size=size,
    )


def blended(canvas: np.ndarray, found: Found, shades: Sequence[int]) -> np.ndarray:
    """`canvas` with the masks of `found` on it, in the palette's colours `shades`.

    Small masks lie on large ones. Only one mask is decoded at a time, in its box.
    """
    import supervision as sv

    codes = [code["counts"] for code in found.rles]
    codes = [code.encode() if isinstance(code, str) else code for code in codes]
    runs = rle.runs_of_all(codes, found.size)
    before = np.append(0, np.cumsum(runs.highs - runs.lows))[runs.first]
    scale = np.divide(canvas.shape[:2], found.size)[::-1]
    painted = canvas.copy()
    for i in np.argsort(before[:-1] - before[1:], kind="stable"):
        ends = runs.boxes[i].reshape(2, 2)
        if (ends[0] == ends[1]).any():
            continue
        (x1, y1), (x2, y2) = np.rint(ends * scale).astype(int)
        x1, y1 = min(x1, canvas.shape[1] - 1), min(y1, canvas.shape[0] - 1)
        side = max(x2 - x1, 1), max(y2 - y1, 1)
        window = runs.shades(i).T
        if side != window.shape[::-1]:
            window = cv2.resize(np.ascontiguousarray(window), side)
        colour = sv.ColorPalette.DEFAULT.by_idx(shades[i]).as_bgr()
        part = painted[y1 : y1 + side[1], x1 : x1 + side[0]]
        np.copyto(part, np.array(colour, np.uint8), where=(window > 127)[..., None])
    return cv2.addWeighted(painted, 0.45, canvas, 0.55, 0)


def _inside(keypoints: np.ndarray, scale: np.ndarray, size: tuple[int, int]) -> Any:
    """`keypoints` [n k 3] on a canvas of `size`; those outside are not visible."""
    import supervision as sv

    places = np.asarray(keypoints[..., :2], np.float64) * scale
    # What is not a number is not inside either.
    inside = ((places >= 0) & (places <= size[::-1])).all(axis=-1)
    return sv.KeyPoints(
        xy=np.where(inside[..., None], places, 0).astype(np.float32),
        visible=inside & (keypoints[..., 2] > 0),
    )
