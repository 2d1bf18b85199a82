"""Annotated objects in a data set's files.

Boxes are stored as tfds wants them, relative yxyx, and masks as COCO's compressed
run-length codes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from detjax.data.features import Schema, floats, integers, texts
from detjax.data.records import Annotation, Record
from detjax.data.summary import Facts


def features(schema: Schema) -> dict[str, Any]:
    """tfds's features of the objects of an image."""
    import tensorflow_datasets as tfds

    thing: dict[str, Any] = {
        "id": np.int64,
        "bbox": tfds.features.BBoxFeature(),
        "label": tfds.features.ClassLabel(names=schema.classes),
        "area": np.float32,
        "is_crowd": np.bool_,
        "is_difficult": np.bool_,
        "rle": tfds.features.Text(),
    }
    if schema.keypoints:
        shape = (len(schema.keypoints), 3)
        thing["keypoints"] = tfds.features.Tensor(shape=shape, dtype=np.float32)
    if schema.oriented:
        thing["corners"] = tfds.features.Tensor(shape=(4, 2), dtype=np.float32)
    if schema.amodal:
        # In pixels: what is hidden may lie beyond the picture.
        thing["amodal"] = tfds.features.Tensor(shape=(4,), dtype=np.float32)
    return {"objects": tfds.features.Sequence(thing)}


def encode(record: Record, schema: Schema) -> dict[str, Any]:
    """The annotations of a record as those features."""
    things, points = record.truth, len(schema.keypoints)
    boxes = np.array([a.box for a in things], np.float64).reshape(-1, 4)
    sides = np.array([record.height, record.width] * 2, np.float64)
    held = {
        "id": integers([a.id for a in things]),
        "bbox": floats(boxes[:, [1, 0, 3, 2]] / sides),
        "label": integers([a.label for a in things]),
        "area": floats([a.area for a in things]),
        "is_crowd": integers([int(a.crowd) for a in things]),
        "is_difficult": integers([int(a.difficult) for a in things]),
        "rle": texts([a.rle or b"" for a in things]),
    }
    if points:
        # Nothing is visible of keypoints that nobody annotated.
        absent = np.zeros((points, 3), np.float32)
        found = [absent if a.keypoints is None else a.keypoints for a in things]
        held["keypoints"] = floats(np.reshape(found, (-1, points, 3)))
    if schema.amodal:
        whole = [a.box if a.amodal is None else a.amodal for a in things]
        held["amodal"] = floats(np.reshape(whole, (-1, 4)))
    if schema.oriented:
        # Zeros are none.
        none = np.zeros((4, 2), np.float32)
        turned = [none if a.corners is None else a.corners for a in things]
        held["corners"] = floats(np.reshape(turned, (-1, 8)))
    return {f"objects/{name}": value for name, value in held.items()}


def decode(held: Mapping[str, Any], size: tuple[int, int]) -> list[Annotation]:
    """The annotations of an image of `size` (h, w), of its example's features."""

    def numbers(name: str) -> list[int]:
        return list(held[f"objects/{name}"].int64_list.value)

    h, w = size
    ids = numbers("id")
    # float32 as stored, so that all readers get the same box.
    boxes = np.array(held["objects/bbox"].float_list.value, np.float32)
    boxes = boxes.reshape(len(ids), 4) * np.array([h, w, h, w], np.float64)
    points: Any = [None] * len(ids)
    if ids and "objects/keypoints" in held:
        points = np.array(held["objects/keypoints"].float_list.value, np.float32)
        points = points.reshape(len(ids), -1, 3)
    whole: Any = [None] * len(ids)
    if ids and "objects/amodal" in held:
        given = np.array(held["objects/amodal"].float_list.value, np.float32)
        whole = [tuple(box) for box in given.reshape(-1, 4).tolist()]
    turned: Any = [None] * len(ids)
    if ids and "objects/corners" in held:
        given = np.array(held["objects/corners"].float_list.value, np.float32)
        turned = [c if c.any() else None for c in given.reshape(-1, 4, 2)]
    rows = zip(
        ids,
        boxes[:, [1, 0, 3, 2]].tolist(),
        numbers("label"),
        held["objects/area"].float_list.value,
        numbers("is_crowd"),
        numbers("is_difficult"),
        held["objects/rle"].bytes_list.value,
        points,
        whole,
        turned,
        strict=True,
    )
    return [
        Annotation(
            id=number,
            box=tuple(box),
            label=label,
            area=area,
            crowd=bool(crowd),
            difficult=bool(difficult),
            rle=code or None,
            keypoints=own,
            amodal=entire,
            corners=four,
        )
        for number, box, label, area, crowd, difficult, code, own, entire, four in rows
    ]


def fault(annotations: list[Annotation], num_classes: int) -> str | None:
    """The problem of annotations from a file, if any."""
    for a in annotations:
        if not 0 <= a.label < num_classes:
            return f"annotation {a.id} has label {a.label}"
    return None


def facts(annotations: list[Annotation]) -> Facts:
    """Statistics of an image for a data set's summary."""
    boxes = np.array([a.box for a in annotations], np.float64).reshape(-1, 4)
    return Facts(
        labels=np.array([a.label for a in annotations], np.int64),
        sides=np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).astype(np.float32),
        counts={
            "images without objects": int(not annotations),
            "objects": len(annotations),
            "crowd": sum(a.crowd for a in annotations),
            "difficult": sum(a.difficult for a in annotations),
            "with masks": sum(a.rle is not None for a in annotations),
            "with keypoints": sum(a.keypoints is not None for a in annotations),
        },
    )


def regions(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The labels [n] and boxes [n 4] of a record's objects, crowds left out."""
    some = [a for a in record.truth if not a.crowd]
    boxes = np.array([a.box for a in some], np.float64).reshape(-1, 4)
    return np.array([a.label for a in some], np.int64), boxes
