"""Label maps in a data set's files, and what they tell of it.

A record's truth is the file of its label map; see `data.label_maps`. Reading a data set
decodes none of them: that waits until an image is prepared.
"""

import struct
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from detjax.data import label_maps, rle
from detjax.data.features import Schema, texts
from detjax.data.records import Record, Unreadable
from detjax.data.summary import Facts

# A PNG's signature, and the length and name of its first chunk, the header: width,
# height, bits, kind (0 is grey).
_BEGINNING = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_GREY = 0
_COUNTED = 1 << 18  # pixels at once


def features(schema: Schema) -> dict[str, Any]:
    """tfds's features of the label map of an image."""
    import tensorflow_datasets as tfds

    kind = label_maps.dtype(len(schema.classes))
    return {
        "label_map": tfds.features.Image(
            shape=(None, None, 1), dtype=kind, encoding_format="png"
        )
    }


def encode(record: Record, schema: Schema) -> dict[str, Any]:
    """The label map of a record as those features."""
    return {"label_map": texts([record.truth])}


def decode(held: Mapping[str, Any], size: tuple[int, int]) -> bytes:
    """The file of an image's label map, of its example's features."""
    return held["label_map"].bytes_list.value[0]


def fault(file: bytes, num_classes: int) -> str | None:
    """The problem of a label map by its first bytes, if any.

    A label outside the classes is found when the map is read: see `read`.
    """
    if not file.startswith(_BEGINNING) or len(file) < len(_BEGINNING) + 10:
        return "the label map is no PNG file"
    *_, bits, kind = struct.unpack(">IIBB", file[16:26])
    wanted = 8 * np.dtype(label_maps.dtype(num_classes)).itemsize
    if kind != _GREY or bits != wanted:
        return f"the label map has {bits} bits and is not grey of {wanted} bits"
    return None


def read(record: Record, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels [h w] of a record, and which of them are valid.

    Raises Unreadable, for labels outside the classes too.
    """
    labels, valid = label_maps.decode(record.truth, (record.height, record.width))
    if labels.size and int(labels.max()) >= num_classes:
        raise Unreadable(
            f"its label map has label {int(labels.max())}, and there are {num_classes} "
            f"classes, from 0 to {num_classes - 1}"
        )
    return labels, valid


def parts(labels: np.ndarray, valid: np.ndarray) -> dict[int, rle.Instance]:
    """The mask, box and area of each class that is in a map, in the classes' order."""
    # Runs are those of values above 0.
    shifted = np.where(valid, labels.astype(np.int32) + 1, 0)
    return {value - 1: part for value, part in rle.instances(shifted).items()}


def facts(file: bytes) -> Facts:
    """Statistics of an image for a data set's summary: its labels are its classes."""
    held = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if held is None or held.ndim != 2 or held.dtype.kind != "u":
        raise Unreadable("the label map is no PNG file of one channel")
    counts = np.zeros(1 << 8 * held.dtype.itemsize, np.int64)
    flat = held.reshape(-1)
    # In pieces: a bincount makes 64-bit numbers of all that it counts.
    for first in range(0, flat.size, _COUNTED):
        counts += np.bincount(flat[first : first + _COUNTED], minlength=len(counts))
    *classes, ignored = counts
    labels = np.flatnonzero(classes)
    return Facts(
        labels=labels,
        sides=np.zeros(0, np.float32),
        counts={
            "images without a class": int(not len(labels)),
            "pixels": held.size,
            "pixels ignored": int(ignored),
        },
        pixels=np.asarray(classes)[labels],
    )


def regions(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The classes [n] in a picture, and the box [n 4] around the pixels of each."""
    labels, valid = label_maps.decode(record.truth, (record.height, record.width))
    found = parts(labels, valid)
    boxes = np.array([part.box for part in found.values()], np.float64).reshape(-1, 4)
    return np.array([*found], np.int64), boxes
