"""Maps of numbers in a data set's files, and what they tell of it.

A record's truth is the file of its map; see `data.value_maps`. The data set has one
class, which names the quantity.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from detjax.data import value_maps
from detjax.data.features import Schema, texts
from detjax.data.records import Record
from detjax.data.summary import Facts

_TIFF = b"II*\0", b"MM\0*"


def features(schema: Schema) -> dict[str, Any]:
    """tfds's features of the map of an image: its file."""
    import tensorflow_datasets as tfds

    return {"value_map": tfds.features.Text()}


def encode(record: Record, schema: Schema) -> dict[str, Any]:
    """The map of a record as those features."""
    return {"value_map": texts([record.truth])}


def decode(held: Mapping[str, Any], size: tuple[int, int]) -> bytes:
    """The file of an image's map, of its example's features."""
    return held["value_map"].bytes_list.value[0]


def fault(file: bytes, num_classes: int) -> str | None:
    """The problem of a map by its first bytes, if any."""
    return None if file.startswith(_TIFF) else "the map of values is no TIFF file"


def read(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The values [h w] of a record, and which are known. Raises Unreadable."""
    return value_maps.decode(record.truth, (record.height, record.width))


def facts(file: bytes) -> Facts:
    """Statistics of an image for a data set's summary; its map is not decoded."""
    return Facts(np.zeros(1, np.int64), np.zeros(0, np.float32), {"maps": 1})


def regions(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture as the one region [1], [1 4]."""
    whole = [[0.0, 0.0, float(record.width), float(record.height)]]
    return np.zeros(1, np.int64), np.array(whole)
