"""Files of label maps: one whole number a pixel."""

import io
from pathlib import Path

import cv2
import numpy as np

from detjax import files
from detjax.data import images, pixels
from detjax.errors import UserError

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".bmp")


def load(path: Path) -> np.ndarray:
    """The numbers of a label map as they are stored.

    Raises UserError, whose sentence lacks its subject, where they cannot be read, and
    for formats that do not keep numbers apart.
    """
    data = files.read_bytes(path)
    numpy = path.suffix.lower() == ".npy"
    labels = array(data) if numpy else _picture(data)
    if labels.dtype.kind not in "ui" or labels.ndim != 2:
        raise UserError(
            f"is not one channel of whole numbers ({labels.dtype} {list(labels.shape)})"
        )
    if labels.size and labels.min() < 0:
        raise UserError("has numbers below 0; background is 0, instances count from 1")
    return labels


def _picture(data: bytes) -> np.ndarray:
    """The pixels of a label map as they are stored."""
    if data.startswith(images.JPEG):
        raise UserError(
            "is a JPEG, which is lossy: numbers of instances are not kept; save it as "
            "a PNG"
        )
    if images.cut_off(data):
        raise UserError(f"is cut off after {len(data)} bytes")
    head = images.header(data)
    if head.size and head.size[0] * head.size[1] > images.MOST_PIXELS:
        raise UserError(f"has more than {images.MOST_PIXELS:,} pixels")
    if head.mode == "1":
        raise UserError(
            "has one bit a pixel, which tells no instances apart; number them in a "
            "PNG of 8 or 16 bits"
        )
    return pixels.decode(data, cv2.IMREAD_UNCHANGED)


def array(data: bytes) -> np.ndarray:
    """The array of a .npy file, whose size must match its header."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, kind = read(file)
        size = int(np.prod(shape, dtype=object)) * kind.itemsize
        if kind.hasobject or size > len(data):
            raise ValueError("it holds something else")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        # numpy evaluates the header as Python's literals, which may raise anything.
        raise UserError("is no array of whole numbers that numpy saved") from error


def components(labels: np.ndarray) -> np.ndarray:
    """The connected parts [h w] of what is not 0, numbered from 1.

    Pixels that touch by a side or a corner are connected.
    """
    return np.asarray(
        cv2.connectedComponents((labels > 0).astype(np.uint8), connectivity=8)[1]
    )
