"""Image files to arrays, by OpenCV."""

import cv2
import numpy as np

from detjax.errors import UserError


def decode(data: bytes, flags: int) -> np.ndarray:
    """The pixels of an encoded image; `flags` are OpenCV's (cv2.IMREAD_...).

    Raises UserError if decoding fails, MemoryError if it is too large.
    """
    pixels = None
    try:
        if data:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # of more pixels than OpenCV takes, or than fit
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError("no room for the pixels of an image") from error
    if pixels is None:
        raise UserError("the image cannot be decoded")
    return pixels


def quiet() -> None:
    """Silences OpenCV's messages about broken files; errors report them."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
