"""Serialisation of records: an example of tfds's features, as bytes.

The image and its metadata are the same for every task; the truth is stored by the task.
Examples are encoded here and not by tfds, which is many times slower; a test checks
that the bytes are the same.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from detjax.data.records import Record
from detjax.errors import UserError
from detjax.types import Task

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


class Schema(NamedTuple):
    """The schema of a data set's features."""

    classes: tuple[str, ...]
    keypoints: tuple[str, ...] = ()
    proposed: bool = False  # whether records have proposals
    text_ids: bool = False  # whether the ids of images are text
    amodal: bool = False  # whether objects have boxes of the whole of them
    oriented: bool = False  # whether they have boxes at an angle of their own


def features(schema: Schema, task: Task) -> "tfds.features.FeaturesDict":
    """tfds's features of such a data set."""
    import tensorflow_datasets as tfds

    found = {
        "image": tfds.features.Image(),
        "image_id": tfds.features.Text() if schema.text_ids else np.int64,
        "file_name": tfds.features.Text(),
        "height": np.int32,
        "width": np.int32,
        **task.features(schema),
    }
    if schema.proposed:
        found["proposals"] = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
    return tfds.features.FeaturesDict(found)


def encode(record: Record, image: bytes, schema: Schema, task: Task) -> bytes:
    """The example of `record`, whose image file is `image`: always the same bytes."""
    number: Any = str(record.id).encode() if schema.text_ids else record.id
    held = {
        "image": texts([image]),
        "image_id": texts([number]) if schema.text_ids else integers([number]),
        "file_name": texts([record.file_name.encode()]),
        "height": integers([record.height]),
        "width": integers([record.width]),
        **task.encode(record, schema),
    }
    if schema.proposed:
        found = record.proposals
        held["proposals"] = floats(np.zeros((0, 4)) if found is None else found)
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=held))
    return example.SerializeToString(deterministic=True)


def texts(values: Sequence[bytes]) -> tf_feature_pb2.Feature:
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=values))


def integers(values: Sequence[int]) -> tf_feature_pb2.Feature:
    return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values))


def floats(values: Any) -> tf_feature_pb2.Feature:
    flat = np.asarray(values, np.float32).ravel().tolist()
    return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=flat))


def decode(example: bytes, task: Task, images: bool = True) -> Record:
    """The record of an example, with its encoded image, or None without `images`.

    Raises UserError if the bytes are not such an example.
    """
    try:
        held = tf_example_pb2.Example.FromString(example).features.feature
        return _record(held, task, images)
    except Exception as error:
        # protobuf's own error, and those of missing or short fields.
        raise UserError(f"it holds no record: {type(error).__name__}") from None


def _record(
    held: Mapping[str, tf_feature_pb2.Feature], task: Task, images: bool
) -> Record:
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
        truth=task.decode(held, (h, w)),
        proposals=proposals,
    )
