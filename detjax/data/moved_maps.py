"""Maps of a picture's pixels under an affine matrix: classes, and numbers.

A matrix goes from the map's pixels (x, y, 1) to those of what is filled. Maps are moved
along their rows and their columns in turn where it turns no further, in exact terms;
OpenCV turns the others.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from detjax.data.frames import upright


class Places(NamedTuple):
    """Where the rows, or the columns, of an output are in a map, in its pixels."""

    at: np.ndarray  # [n] continuous: the first pixel's centre is at .5
    inside: np.ndarray  # [n] bool: within the map


def nearest(
    held: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A map [h w] in a frame of `size` (oh, ow), and where it is seen [oh ow] bool.

    Each pixel is the one that its centre lies in; beyond the map it is the nearest.
    """
    if not upright(matrix):
        return _turned(held, matrix, size, cv2.INTER_NEAREST)
    held, rows, columns = _sides(held, matrix, size)
    y, x = (
        np.clip(np.floor(side.at), 0, count - 1).astype(np.intp)
        for side, count in zip((rows, columns), held.shape, strict=True)
    )
    return held[y][:, x], rows.inside[:, None] & columns.inside


def bilinear(
    held: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The same of numbers, float32, interpolated between the four nearest pixels."""
    held = np.asarray(held, np.float32)
    if not upright(matrix):
        return _turned(held, matrix, size, cv2.INTER_LINEAR)
    held, rows, columns = _sides(held, matrix, size)
    wide = _between(held, columns, lambda x, i: x[:, i])
    weights_last = rows, lambda x, i: x[i]
    return _between(wide, *weights_last, column=True), (
        rows.inside[:, None] & columns.inside
    )


def _between(
    x: np.ndarray,
    side: Places,
    take: Callable[[np.ndarray, np.ndarray], np.ndarray],
    column: bool = False,
) -> np.ndarray:
    """`x` along one of its axes at places between its pixels."""
    count = x.shape[0 if column else 1]
    at = np.clip(side.at - 0.5, 0, count - 1)
    low = at.astype(np.intp)
    weight = (at - low).astype(np.float32)
    weight = weight[:, None] if column else weight
    found = take(x, np.minimum(low + 1, count - 1))
    below = take(x, low)
    found -= below
    found *= weight
    found += below
    return found


def _sides(
    held: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, Places, Places]:
    """A map whose rows are along those of the output, and where both of these are."""
    linear, shift = matrix[:2, :2], matrix[:2, 2]
    if linear[0, 0] == 0:
        held, linear = held.T, linear[:, ::-1]
    columns, rows = (
        _places(linear[i, i], shift[i], size[1 - i], held.shape[1 - i]) for i in (0, 1)
    )
    return held, rows, columns


def _places(scale: float, shift: float, count: int, most: int) -> Places:
    at = (np.arange(count) + 0.5 - shift) / scale
    return Places(at, (at >= 0) & (at < most))


def _turned(held, matrix, size, how) -> tuple[np.ndarray, np.ndarray]:
    """The same of a map that is turned."""
    linear = matrix[:2, :2]
    # OpenCV's pixel centres are whole numbers.
    shift = matrix[:2, 2] + linear.sum(axis=1) / 2 - 0.5
    centred = np.concatenate([linear, shift[:, None]], axis=1)
    moved = cv2.warpAffine(
        held, centred, size[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE
    )
    seen = cv2.warpAffine(
        np.ones(held.shape, np.uint8), centred, size[::-1], flags=cv2.INTER_NEAREST
    )
    return moved, seen.astype(bool)
