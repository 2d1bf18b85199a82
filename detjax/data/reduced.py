"""Pictures that are drawn much smaller than they are: reduced before they are drawn.

Drawn at half its size or less, a picture is first made 2, 4 or 8 times smaller, and
stays at least as large as it will be seen. A JPEG is decoded at that size, by which
libjpeg leaves out most of the inverse transform; of other pictures the means of blocks
are taken. Bilinear interpolation alone would read four pixels of each such block, and
so alias. Pixel i of a reduced picture is that of the original pixels
[factor i, factor (i + 1)), also where the last of them lie beyond its edge.
"""

import cv2
import numpy as np

from detjax.data import pixels, views
from detjax.data.frames import scaling

FACTORS = (8, 4, 2)
_JPEG = b"\xff\xd8\xff"
_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# OpenCV has no name for reduced RGB: the bits that ask for a size, without colours.
_SIZES = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def factor(matrix: np.ndarray) -> int:
    """How many times smaller a picture under an affine `matrix` [3 3] may be: 1 to 8.

    So that along neither side one of its pixels is drawn larger than a pixel.
    """
    scale = np.hypot(matrix[0, :2], matrix[1, :2]).max()
    return next((f for f in FACTORS if f * scale <= 1 + 1e-9), 1)


def size(full: tuple[int, int], by: int) -> tuple[int, int]:
    """The (h, w) of a picture of size `full` (h, w) reduced `by` so many times."""
    return -(-full[0] // by), -(-full[1] // by)


def decode(data: bytes, by: int = 1) -> np.ndarray:
    """RGB uint8 [h w 3] of an encoded image as stored, reduced `by` 1, 2, 4 or 8.

    EXIF rotation does not apply. Raises UserError if decoding fails, MemoryError if it
    is too large.
    """
    if data.startswith(_JPEG):
        return pixels.decode(data, _STORED | _SIZES[by])
    return shrink(pixels.decode(data, _STORED), by)


def shrink(image: np.ndarray, by: int) -> np.ndarray:
    """The means of blocks of `by` x `by` pixels of `image` [h w 3] uint8."""
    if by == 1:
        return image
    h, w = size(image.shape[:2], by)
    below, right = h * by - image.shape[0], w * by - image.shape[1]
    if below or right:
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)


def move_pixels(
    image: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    fill: tuple[int, int, int] = views.FILL,
) -> np.ndarray:
    """`views.move_pixels` of `image` [h w 3], reduced as far as `matrix` [3 3] allows.

    Images whose size is not yet reduced are seen as those of `decode` are.
    """
    by = factor(matrix)
    return views.move_pixels(shrink(image, by), matrix @ scaling(by, by), size, fill)
