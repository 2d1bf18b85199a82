"""Image files to arrays, by OpenCV."""

import cv2
import numpy as np

from detjax.errors import UserError


def decode(data: bytes, flags: int) -> np.ndarray:
    """The pixels of an encoded image; `flags` are OpenCV's (cv2.IMREAD_...).

    Raises UserError where nothing can be decoded, MemoryError where there is no room.
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
    """Keeps what OpenCV prints about broken files from stderr: sentences say it."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
