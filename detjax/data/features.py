"""What a record is on disk: an example of tfds's features, as bytes.

Boxes are stored as tfds wants them, relative yxyx. Examples are put together here, not
by tfds, whose feature by feature way takes many times as long; what comes out is the
same, and a test compares them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from detjax.data.records import Annotation, Record
from detjax.errors import UserError


class Schema(NamedTuple):
    """What decides the features of a data set."""

    classes: tuple[str, ...]
    keypoints: tuple[str, ...] = ()
    proposed: bool = False  # whether records have proposals
    text_ids: bool = False  # whether the ids of images are text


def features(schema: Schema) -> tfds.features.FeaturesDict:
    """tfds's features of such a data set."""
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
    found = {
        "image": tfds.features.Image(),
        "image_id": tfds.features.Text() if schema.text_ids else np.int64,
        "file_name": tfds.features.Text(),
        "height": np.int32,
        "width": np.int32,
        "objects": tfds.features.Sequence(thing),
    }
    if schema.proposed:
        found["proposals"] = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
    return tfds.features.FeaturesDict(found)


def encode(record: Record, image: bytes, schema: Schema) -> bytes:
    """The example of `record`, whose image file is `image`: always the same bytes."""
    number = str(record.id).encode() if schema.text_ids else record.id
    held = {
        "image": _feature([image]),
        "image_id": _feature([number]),
        "file_name": _feature([record.file_name.encode()]),
        "height": _feature([record.height]),
        "width": _feature([record.width]),
        **_objects(record, len(schema.keypoints)),
    }
    if schema.proposed:
        found = record.proposals
        boxes = np.zeros((0, 4)) if found is None else found
        held["proposals"] = _floats(boxes)
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=held))
    return example.SerializeToString(deterministic=True)


def _objects(record: Record, points: int) -> dict[str, tf_feature_pb2.Feature]:
    things = record.annotations
    boxes = np.array([a.box for a in things], np.float64).reshape(-1, 4)
    sides = np.array([record.height, record.width] * 2, np.float64)
    held = {
        "id": _integers([a.id for a in things]),
        "bbox": _floats(boxes[:, [1, 0, 3, 2]] / sides),
        "label": _integers([a.label for a in things]),
        "area": _floats([a.area for a in things]),
        "is_crowd": _integers([int(a.crowd) for a in things]),
        "is_difficult": _integers([int(a.difficult) for a in things]),
        "rle": _texts([a.rle or b"" for a in things]),
    }
    if points:
        # Nothing is visible of keypoints that nobody annotated.
        absent = np.zeros((points, 3), np.float32)
        found = [absent if a.keypoints is None else a.keypoints for a in things]
        held["keypoints"] = _floats(np.reshape(found, (-1, points, 3)))
    return {f"objects/{name}": value for name, value in held.items()}


def _feature(value: Sequence[Any]) -> tf_feature_pb2.Feature:
    return _texts(value) if isinstance(value[0], bytes) else _integers(value)


def _texts(values: Sequence[bytes]) -> tf_feature_pb2.Feature:
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=values))


def _integers(values: Sequence[int]) -> tf_feature_pb2.Feature:
    return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values))


def _floats(values: Any) -> tf_feature_pb2.Feature:
    flat = np.asarray(values, np.float32).ravel().tolist()
    return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=flat))


def decode(example: bytes, images: bool = True) -> Record:
    """The record of an example, its image as stored, or None without `images`.

    Raises UserError where the bytes are no such example.
    """
    try:
        held = tf_example_pb2.Example.FromString(example).features.feature
        return _record(held, images)
    except Exception as error:
        # protobuf's own error, and whatever missing or short fields lead to.
        raise UserError(f"it holds no record: {type(error).__name__}") from None


def _record(held: Mapping[str, tf_feature_pb2.Feature], images: bool) -> Record:
    h, w = (held[side].int64_list.value[0] for side in ("height", "width"))
    number = held["image_id"]
    text = number.bytes_list.value
    proposals = None
    if "proposals" in held:
        proposals = np.array(held["proposals"].float_list.value, np.float32)
        proposals = proposals.reshape(-1, 4)
    return Record(
        id=text[0].decode() if text else number.int64_list.value[0],
        file_name=held["file_name"].bytes_list.value[0].decode(),
        height=h,
        width=w,
        image=held["image"].bytes_list.value[0] if images else None,
        annotations=_annotations(held, h, w),
        proposals=proposals,
    )


def _annotations(
    held: Mapping[str, tf_feature_pb2.Feature], h: int, w: int
) -> list[Annotation]:
    def numbers(name: str) -> list[int]:
        return list(held[f"objects/{name}"].int64_list.value)

    ids = numbers("id")
    # float32 as it is stored: the same box for all who read it.
    boxes = np.array(held["objects/bbox"].float_list.value, np.float32)
    boxes = boxes.reshape(len(ids), 4) * np.array([h, w, h, w], np.float64)
    points: Any = [None] * len(ids)
    if ids and "objects/keypoints" in held:
        points = np.array(held["objects/keypoints"].float_list.value, np.float32)
        points = points.reshape(len(ids), -1, 3)
    rows = zip(
        ids,
        boxes[:, [1, 0, 3, 2]].tolist(),
        numbers("label"),
        held["objects/area"].float_list.value,
        numbers("is_crowd"),
        numbers("is_difficult"),
        held["objects/rle"].bytes_list.value,
        points,
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
        )
        for number, box, label, area, crowd, difficult, code, own in rows
    ]
