"""Random colours and random geometry, in numpy and OpenCV, for one image.

Geometry is accumulated in one 3x3 affine matrix from original pixels to a frame; pixels
and masks are warped once, at the end. Coordinates are continuous: the first pixel's
centre is (0.5, 0.5).

The recipe is SSD's (Liu et al., ECCV 2016, sec. 2.2 and 3.6), which YOLACT trains with.
"""

import functools
from typing import Annotated, NamedTuple

import cv2
import numpy as np

from detjax.data.colours import Colours, photometric, recolour
from detjax.settings import Positive, Range

# The fill colour: ImageNet's mean, which normalisation turns into zeros.
FILL = (124, 117, 104)
_OVERLAPS = (-1.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # below 0: no crop


class Frame(NamedTuple):
    """An output window: its matrix and its (h, w)."""

    matrix: np.ndarray  # [3 3] float64, original pixel (x, y, 1) -> frame pixel
    size: tuple[float, float]


def scaling(x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """The [3 3] matrix of (x', y') = (x * scale + d)."""
    return np.array([[x, 0, dx], [0, y, dy], [0, 0, 1]], np.float64)


def resize(
    frame: Frame, size: tuple[int, int], letterbox: bool, scale: float | None = None
) -> Frame:
    """`frame` brought to `size` (h, w): stretched, or scaled evenly and centred.

    `scale`, if given, replaces the one that fits `size`.
    """
    sy, sx = size[0] / frame.size[0], size[1] / frame.size[1]
    if scale is not None:
        sx = sy = scale
    elif letterbox:
        sx = sy = min(sx, sy)
    dx = (size[1] - sx * frame.size[1]) / 2
    dy = (size[0] - sy * frame.size[0]) / 2
    return Frame(scaling(sx, sy, dx, dy) @ frame.matrix, size)


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes [n 4] xyxy under an axis-aligned affine `matrix` [2 or 3, 3]."""
    corners = boxes.reshape(-1, 2, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def move_keypoints(
    points: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    names: tuple[str, ...],
) -> np.ndarray:
    """Keypoints [n k 3] under an affine `matrix` [2 or 3, 3] to a frame of `size`.

    Those outside the frame become zeros, like unannotated ones: visibility 0. If
    `matrix` mirrors, keypoints named left_ and right_ are swapped: the left hand of a
    mirrored person is a right hand.
    """
    h, w = size
    moved = points[..., :2] @ matrix[:2, :2].T + matrix[:2, 2]
    visible = points[..., 2:]
    inside = ((moved >= 0) & (moved <= (w, h))).all(axis=-1, keepdims=True)
    found = np.concatenate([moved, visible], axis=-1) * (inside & (visible > 0))
    mirrored = np.linalg.det(matrix[:2, :2]) < 0
    return found[:, opposites(names)] if mirrored else found


@functools.lru_cache(16)
def opposites(names: tuple[str, ...]) -> list[int]:
    """The number of each keypoint's opposite, left_eye's for right_eye, or its own."""
    turned = {"left": "right", "right": "left"}
    found = []
    for i, name in enumerate(names):
        side, _, part = name.partition("_")
        other = f"{turned.get(side, side)}_{part}"
        found.append(names.index(other) if other in names else i)
    return found


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


def draw(out: np.ndarray, image: np.ndarray, view: Crop, colours: Colours) -> None:
    """Fills `out` [h w 3] with the view of `image`, with jittered colours."""
    part = out[view.target]
    if part.shape != out.shape:
        out[:] = _grey(out.shape[:2])
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
    signs = linear.sum(axis=1) < 0
    if signs.any():
        cv2.flip(part, -1 if signs.all() else int(signs[0]), dst=part)


@functools.lru_cache(16)
def _grey(size: tuple[int, int]) -> np.ndarray:
    """An image of FILL: copying it is faster than repeating three numbers."""
    return np.full((*size, 3), FILL, np.uint8)


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


def expand(rng: np.random.Generator, frame: Frame, most: float) -> Frame:
    """`frame` inside a canvas of up to `most` times its sides, with probability 1/2."""
    if most <= 1 or rng.random() < 0.5:
        return frame
    h, w = frame.size
    ratio = rng.uniform(1, most)
    dx, dy = rng.uniform(0, w * ratio - w), rng.uniform(0, h * ratio - h)
    return Frame(scaling(1, 1, dx, dy) @ frame.matrix, (h * ratio, w * ratio))


def iou_crop(rng: np.random.Generator, frame: Frame, boxes: np.ndarray) -> Frame:
    """A window of 0.3 to 1 of each side that meets an object with some overlap.

    The overlap (IoU of window and box) is at least one of .1, .3, .5, .7, .9, or free,
    or the full frame is kept. A window holds at least one object's centre.
    """
    if len(boxes) == 0:
        return frame
    boxes = move_boxes(boxes, frame.matrix)
    h, w = frame.size
    while True:
        least = _OVERLAPS[rng.integers(len(_OVERLAPS))]
        if least < 0:
            return frame
        sides = rng.uniform(0.3, 1, (50, 2)) * (w, h)
        corners = rng.random((50, 2)) * ((w, h) - sides)
        shapes = sides[:, 1] / sides[:, 0]
        some = (shapes >= 0.5) & (shapes <= 2)
        windows = np.concatenate([corners, corners + sides], axis=1)[some]
        good = centred(boxes, windows).any(axis=1)
        good &= overlap(boxes, windows).max(axis=1) >= least
        if good.any():
            x1, y1, x2, y2 = windows[good.argmax()].tolist()
            return Frame(scaling(1, 1, -x1, -y1) @ frame.matrix, (y2 - y1, x2 - x1))


def centred(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Which boxes [n 4] have their centre inside `window` [... 4]; [... n]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = window[..., None, :2], window[..., None, 2:]
    return ((centre > low) & (centre < high)).all(axis=-1)


def overlap(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """IoU [... n] of each box [n 4] with `window` [... 4]."""
    low = np.maximum(boxes[:, :2], window[..., None, :2])
    high = np.minimum(boxes[:, 2:], window[..., None, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    whole = (window[..., 2:] - window[..., :2]).prod(axis=-1)[..., None]
    return inter / np.maximum(areas + whole - inter, 1e-9)


def rescale(rng: np.random.Generator, frame: Frame, span: tuple[float, float]) -> Frame:
    """A random window of the frame's shape, which magnifies it `span` times."""
    if tuple(span) == (1, 1):
        return frame
    h, w = frame.size
    side = 1 / rng.uniform(*span)
    dx, dy = (
        rng.uniform(min(0, s * (side - 1)), max(0, s * (side - 1))) for s in (w, h)
    )
    return Frame(scaling(1, 1, dx, dy) @ frame.matrix, (h * side, w * side))


def flip(frame: Frame, *, horizontal: bool, vertical: bool, transpose: bool) -> Frame:
    """`frame` mirrored left to right, top to bottom, and along its diagonal."""
    h, w = frame.size
    matrix = frame.matrix
    if horizontal:
        matrix = scaling(-1, 1, w, 0) @ matrix
    if vertical:
        matrix = scaling(1, -1, 0, h) @ matrix
    if transpose:
        return Frame(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]) @ matrix, (w, h))
    return Frame(matrix, (h, w))


def augment(
    rng: np.random.Generator,
    size: tuple[int, int],
    boxes: np.ndarray,
    *,
    colour: bool = False,
    expand_to: Annotated[float, Range(1)] = 1.0,
    crop: bool = False,
    scale: tuple[Positive, Positive] = (1, 1),
    mirror: bool = False,
    turn: bool = False,
) -> tuple[Colours, Frame]:
    """Random colours for an image of `size` (h, w), and the frame to warp it into.

    `boxes` [n 4] in original pixels steer `crop`. `colour`, `expand_to`, `crop` and
    `mirror` are SSD's; `scale` draws a zoom from a range; `turn` adds the other seven
    symmetries of the square, for images without orientation, such as microscopy.
    """
    colours = photometric(rng) if colour else Colours()
    frame = expand(rng, Frame(np.eye(3), size), expand_to)
    if crop:
        frame = iou_crop(rng, frame, boxes)
    frame = rescale(rng, frame, scale)
    tosses = rng.random(3) < 0.5
    return colours, flip(
        frame,
        horizontal=bool(tosses[0]) and (mirror or turn),
        vertical=bool(tosses[1]) and turn,
        transpose=bool(tosses[2]) and turn,
    )
