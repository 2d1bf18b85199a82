"""Maps of numbers, such as depth, in files: float32 TIFFs, NaN where nothing is known.

TIFF keeps float32 exactly and compresses it; a 16-bit PNG would need a unit.
"""

import cv2
import numpy as np

from detjax.data.records import Unreadable

_DEFLATE = [cv2.IMWRITE_TIFF_COMPRESSION, 8]


def encode(values: np.ndarray, valid: np.ndarray) -> bytes:
    """The file of values [h w], of the pixels [h w] that are `valid`."""
    held = np.where(valid, values, np.nan).astype(np.float32)
    return cv2.imencode(".tiff", held, _DEFLATE)[1].tobytes()


def decode(file: bytes, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Values [h w] float32 of a map of `size` (h, w), and which are valid [h w].

    The others are 0. Raises Unreadable for other files.
    """
    held = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if held is None or held.shape != tuple(size) or held.dtype != np.float32:
        found = "no TIFF" if held is None else f"of {' x '.join(map(str, held.shape))}"
        raise Unreadable(f"its map of values is {found}, not {size[0]} x {size[1]}")
    valid = np.isfinite(held)
    return np.where(valid, held, 0), valid
