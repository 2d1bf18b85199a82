"""Maps of classes in files: PNGs whose greatest value marks ignored pixels.

A map is uint8 and its greatest value 255 for up to 255 classes, else uint16 and 65535.
"""

from typing import Any

import cv2
import numpy as np

from detjax.data.records import Unreadable


def dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The type of a map of so many classes, with room for ignored pixels."""
    return np.uint8 if num_classes < 256 else np.uint16


def encode(labels: np.ndarray, valid: np.ndarray, num_classes: int) -> bytes:
    """The file of labels [h w], of the pixels [h w] that are `valid`."""
    kind = dtype(num_classes)
    held: Any = np.where(valid, labels, np.iinfo(kind).max).astype(kind)
    return cv2.imencode(".png", held)[1].tobytes()


def decode(file: bytes, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels [h w] uint8 or uint16 of a map of `size` (h, w), and which are valid.

    Ignored pixels have label 0. Raises Unreadable for other files.
    """
    held: Any = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if held is None or held.shape != tuple(size) or held.dtype.kind != "u":
        found = "no PNG" if held is None else f"of {' x '.join(map(str, held.shape))}"
        raise Unreadable(f"its label map is {found}, not {size[0]} x {size[1]}")
    valid = held != np.iinfo(held.dtype).max
    return np.where(valid, held, 0).astype(held.dtype), valid
