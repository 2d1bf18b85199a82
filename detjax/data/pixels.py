"""Image files to arrays, by OpenCV."""

import cv2
import numpy as np


def decode(data: bytes, flags: int) -> np.ndarray:
    """The pixels of an encoded image; `flags` are OpenCV's (cv2.IMREAD_...).

    Raises ValueError where nothing can be decoded.
    """
    pixels = None
    try:
        if data:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # of more pixels than OpenCV takes
        pass
    if pixels is None:
        raise ValueError("the image cannot be decoded")
    return pixels
