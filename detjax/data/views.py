"""The pixels of a picture in a frame, with OpenCV."""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from detjax.data.colours import Colours, blurred, erase, recolour
from detjax.data.frames import Frame, scaling, upright
from detjax.data.sizing import FILL


def move_pixels(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], fill=FILL
) -> np.ndarray:
    """`image` [h w] or [h w 3] warped bilinearly into a frame of `size` (h, w)."""
    if _fills(image, matrix, size):
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.warpAffine(
        image,
        _from_centres(matrix),
        size[::-1],
        flags=cv2.INTER_LINEAR,
        borderValue=fill,
    )


def place(
    out: np.ndarray,
    image: np.ndarray,
    frame: Frame,
    colours: Colours,
    fill: tuple[int, int, int] = FILL,
) -> np.ndarray:
    """Fills `out` [h w 3] with `image` in `frame`, which has its size, and `fill`.

    Returns the matrix [3 3] that was drawn by: the frame's, or where it is upright
    another by up to half a pixel; see `snap`.
    """
    if upright(frame.matrix):
        view = snap(frame, image.shape[:2])
        draw(out, image, view, colours, fill)
    else:
        view = None
        draw_turned(out, image, frame.matrix, colours, fill)
    erase(out, colours.erased)
    return frame.matrix if view is None else view.matrix


def draw_turned(
    out: np.ndarray,
    image: np.ndarray,
    matrix: np.ndarray,
    colours: Colours,
    fill: tuple[int, int, int] = FILL,
) -> None:
    """Fills `out` [h w 3] with `image` under any affine `matrix`, as `draw` does."""
    h, w = image.shape[:2]
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) @ matrix[:2, :2].T
    corners += matrix[:2, 2]
    out[:] = _filled(out.shape[:2], fill)
    # The part of the frame in which the picture lies.
    (x1, y1), (x2, y2) = (
        np.clip(ends, 0, out.shape[1::-1]).astype(int).tolist()
        for ends in (np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)))
    )
    part = out[y1:y2, x1:x2]
    if not part.size:
        return
    early = image.size < part.size
    moved = cv2.warpAffine(
        recolour(image, colours) if early else image,
        _from_centres(scaling(1, 1, -x1, -y1) @ matrix),
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    moved = moved if early else recolour(moved, colours)
    # OpenCV's pixel centres are whole numbers, and its fixed-point numbers of 4 bits.
    corners = np.rint((corners - (x1 + 0.5, y1 + 0.5)) * 16)
    inside = np.zeros(part.shape[:2], np.uint8)
    outline = np.clip(corners, -(2**26), 2**26).astype(np.int32)
    cv2.fillConvexPoly(inside, outline, 1, shift=4)
    cv2.copyTo(blurred(moved, colours.blur), inside, part)


class Crop(NamedTuple):
    """The visible part of an image in a frame, in integer pixels of both."""

    matrix: np.ndarray  # [3 3], original pixel (x, y, 1) -> frame pixel
    source: tuple[slice, slice]  # rows and columns of the image
    target: tuple[slice, slice]  # rows and columns of the frame


_NOTHING = (slice(0, 0), slice(0, 0))


def snap(frame: Frame, image: tuple[int, int]) -> Crop:
    """A view of an image of size (h, w) that rounds `frame` by up to half a pixel.

    The edges of the visible part are rounded to integer pixels in the image and in the
    frame, so that it can be resized, in a third of the time of a warp. An image with
    less than a pixel in the frame is not visible.
    """
    turned = frame.matrix[0, 0] == 0
    matrix = np.eye(3)
    matrix[:2, :2] = 0
    source, target = [slice(0)] * 2, [slice(0)] * 2
    for axis in (0, 1):  # x and y of the frame
        of = 1 - axis if turned else axis  # the image's axis that runs along it
        scale, shift = float(frame.matrix[axis, of]), float(frame.matrix[axis, 2])
        span = int(frame.size[1 - axis])
        ends = sorted((shift, shift + scale * image[1 - of]))
        there = max(ends[0], 0.0), min(ends[1], span)
        if there[1] - there[0] < 1:
            return Crop(frame.matrix, _NOTHING, _NOTHING)
        here = sorted((end - shift) / scale for end in there)
        low, high = _whole(here[0], here[1], image[1 - of])
        first, last = _whole(there[0], there[1], span)
        scale = (last - first) / (high - low) * (1 if scale > 0 else -1)
        matrix[axis, of] = scale
        matrix[axis, 2] = first - scale * (low if scale > 0 else high)
        source[1 - of], target[1 - axis] = slice(low, high), slice(first, last)
    return Crop(matrix, (source[0], source[1]), (target[0], target[1]))


def _whole(low: float, high: float, most: int) -> tuple[int, int]:
    """The integers nearest to an interval's ends, at least one apart."""
    first = min(max(round(low), 0), most - 1)
    return first, min(max(round(high), first + 1), most)


def draw(
    out: np.ndarray,
    image: np.ndarray,
    view: Crop,
    colours: Colours,
    fill: tuple[int, int, int] = FILL,
) -> None:
    """Fills `out` [h w 3] with the view of `image`, with jittered colours."""
    part = out[view.target]
    if part.shape != out.shape:
        out[:] = _filled(out.shape[:2], fill)
    if not part.size:
        return
    seen, linear = image[view.source], view.matrix[:2, :2]
    # Colours are changed before or after resizing, whichever has fewer pixels.
    early = seen.size < part.size
    if early:
        seen = recolour(seen, colours)
    if linear[0, 0] == 0:
        seen = cv2.transpose(seen)
    cv2.resize(seen, part.shape[1::-1], dst=part, interpolation=cv2.INTER_LINEAR)
    if not early:
        part[:] = recolour(part, colours)
    if colours.blur:
        part[:] = blurred(part, colours.blur)
    signs = linear.sum(axis=1) < 0
    if signs.any():
        cv2.flip(part, -1 if signs.all() else int(signs[0]), dst=part)


@functools.lru_cache(16)
def _filled(size: tuple[int, int], fill: tuple[int, int, int]) -> np.ndarray:
    """An image of one colour: copying it is faster than repeating three numbers."""
    return np.full((*size, 3), fill, np.uint8)


def _fills(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether `matrix` stretches all of `image` over all of a frame of `size`."""
    h, w = image.shape[:2]
    whole = scaling(size[1] / w, size[0] / h)
    return bool(np.abs(matrix[:2] - whole[:2]).max() <= 1e-9)


def _from_centres(matrix: np.ndarray) -> np.ndarray:
    """`matrix` [3 3] as [2 3] for OpenCV, whose pixel centres are whole numbers."""
    linear = matrix[:2, :2]
    shift = matrix[:2, 2] + linear.sum(axis=1) / 2 - 0.5
    return np.concatenate([linear, shift[:, None]], axis=1)
