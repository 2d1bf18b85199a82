"""The labels of images on disk, and what they tell of a data set.

A record's truth is the tuple of its labels: one, or several where classes do not
exclude each other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from detjax.data.features import Schema, integers
from detjax.data.records import Record
from detjax.data.summary import Facts


def features(schema: Schema) -> dict[str, Any]:
    """tfds's features of the labels of an image."""
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=schema.classes)
    return {"labels": tfds.features.Sequence(label)}


def encode(record: Record, schema: Schema) -> dict[str, Any]:
    """The labels of a record as those features."""
    return {"labels": integers(list(record.truth))}


def decode(held: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, ...]:
    """The labels of an image, of its example's features."""
    return tuple(held["labels"].int64_list.value)


def fault(labels: tuple[int, ...], num_classes: int) -> str | None:
    """The problem of labels from a file, if any."""
    wrong = [label for label in labels if not 0 <= label < num_classes]
    return f"the image has label {wrong[0]}" if wrong else None


def facts(labels: tuple[int, ...]) -> Facts:
    """Statistics of an image for a data set's summary."""
    return Facts(
        labels=np.array(labels, np.int64),
        sides=np.zeros(0, np.float32),
        counts={
            "images without a class": int(not labels),
            "images of several classes": int(len(labels) > 1),
        },
    )


def regions(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The labels [n] of a record, and the whole picture for each as a box [n 4]."""
    labels = np.array(record.truth, np.int64)
    whole = np.array([0, 0, record.width, record.height], np.float64)
    return labels, np.tile(whole, (len(labels), 1))
