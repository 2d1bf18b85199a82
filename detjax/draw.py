"""Pictures of detections, through supervision and matplotlib."""

import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib.figure
import numpy as np
import supervision as sv

from detjax.data.loader import decode
from detjax.data.records import Record
from detjax.evaluate import points_of
from detjax.ops import masks
from detjax.predict import Found


def detections(
    image: np.ndarray, found: Found, classes: Sequence[str], *, least_side: int = 480
) -> np.ndarray:
    """A copy of `image` [h w 3] uint8 with all that was found drawn in.

    That is masks, boxes, keypoints of a score above 0, names and scores. Small pictures
    are enlarged to `least_side` pixels first, so that text can be read. Instances of a
    one-class set are told apart by colour; otherwise it is the class.
    """
    scale = max(1.0, least_side / min(image.shape[:2]))
    canvas: Any = cv2.resize(
        image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC
    )
    if not len(found.boxes):
        return canvas
    size = canvas.shape[1::-1]
    drawn = sv.Detections(
        xyxy=np.asarray(found.boxes, np.float32) * scale,
        mask=None
        if found.masks is None
        else np.stack(
            [cv2.resize(m.astype(np.uint8), size).astype(bool) for m in found.masks]
        ),
        class_id=np.asarray(found.labels, int),
    )
    lookup = sv.ColorLookup.CLASS if len(classes) > 1 else sv.ColorLookup.INDEX
    if drawn.mask is not None:
        canvas = sv.MaskAnnotator(opacity=0.45, color_lookup=lookup).annotate(
            canvas, drawn
        )
    canvas = sv.BoxAnnotator(thickness=2, color_lookup=lookup).annotate(canvas, drawn)
    if found.keypoints is not None:
        points = sv.KeyPoints(
            xy=np.asarray(found.keypoints[..., :2], np.float32) * scale,
            visible=found.keypoints[..., 2] > 0,
        )
        canvas = sv.VertexAnnotator(radius=3).annotate(canvas, points)
    # Names on dozens of small objects would hide them all.
    side = np.sqrt(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)).mean()
    if len(found.boxes) > 12 and side * scale < 60:
        return canvas
    labels = [
        classes[label] + ("" if np.isnan(score) else f" {score:.2f}")
        for label, score in zip(found.labels, found.scores, strict=True)
    ]
    return sv.LabelAnnotator(
        text_scale=0.4, text_padding=2, color_lookup=lookup, smart_position=True
    ).annotate(canvas, drawn, labels)


def truth(record: Record) -> Found:
    """The annotations of `record` as detections without a score."""
    some = [a for a in record.annotations if not a.crowd]
    size = (record.height, record.width)
    drawn = [
        masks.decode_rle({"size": list(size), "counts": a.rle}).astype(bool)
        for a in some
        if a.rle
    ]
    points = points_of([a.keypoints for a in some])
    return Found(
        np.array([a.box for a in some], np.float32).reshape(-1, 4),
        np.full(len(some), np.nan),
        np.array([a.label for a in some], int),
        np.stack(drawn) if some and len(drawn) == len(some) else None,
        keypoints=points,
    )


def comparison(
    path: str | pathlib.Path,
    records: Sequence[Record],
    predictions: Sequence[Found],
    classes: Sequence[str],
    *,
    columns: int = 3,
) -> None:
    """Writes a grid to `path`: of each record the truth, the prediction beside it."""
    rows = -(-len(records) // columns)
    shape = float(np.mean([r.height / r.width for r in records]))
    figure = matplotlib.figure.Figure(
        figsize=(5.2 * columns, (2.6 * shape + 0.25) * rows), layout="constrained"
    )
    axes = figure.subplots(rows, 2 * columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for i, (record, found) in enumerate(zip(records, predictions, strict=True)):
        image = decode(record.image)
        for axis, what, name in (
            (axes[2 * i], truth(record), "truth"),
            (axes[2 * i + 1], found, "prediction"),
        ):
            axis.imshow(detections(image, what, classes))
            axis.set_title(f"{record.file_name}: {name}", fontsize=8)
    figure.savefig(path, dpi=120)


def save(path: str | pathlib.Path, image: np.ndarray) -> None:
    """Writes `image` [h w 3] uint8 RGB to `path`. Raises OSError where that fails."""
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise OSError(f"{path} cannot be written")
