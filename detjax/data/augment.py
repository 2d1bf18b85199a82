"""Random colours and random geometry, in numpy and OpenCV, for one image.

Geometry is only ever a 3x3 affine matrix from original pixels to a frame; pixels and
masks are moved once, at the end, whatever was drawn. Coordinates are continuous: the
first pixel's centre is (0.5, 0.5).

The recipe is SSD's (Liu et al., ECCV 2016, sec. 2.2 and 3.6), which YOLACT trains with.
"""

from typing import NamedTuple

import cv2
import numpy as np

# What is outside the image: ImageNet's mean, which normalisation turns into zeros.
FILL = (124, 117, 104)


class Frame(NamedTuple):
    """A window that images are moved into: its matrix and its (h, w)."""

    matrix: np.ndarray  # [3 3] float64, original pixel (x, y, 1) -> frame pixel
    size: tuple[float, float]


def scaling(x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """The [3 3] matrix of (x', y') = (x * scale + d)."""
    return np.array([[x, 0, dx], [0, y, dy], [0, 0, 1]], np.float64)


def fit(
    frame: Frame, size: tuple[int, int], letterbox: bool, scale: float | None = None
) -> Frame:
    """`frame` brought to `size` (h, w): stretched, or scaled evenly and centred.

    `scale`, where given, is used instead of the one that fills `size`.
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


def move_pixels(
    image: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    fill=FILL,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """`image` [h w] or [h w 3] drawn bilinearly into a frame of `size` (h, w).

    It is drawn into `out`, where that is given.
    """
    h, w = image.shape[:2]
    whole = scaling(size[1] / w, size[0] / h)
    if np.abs(matrix[:2] - whole[:2]).max() <= 1e-9:
        return cv2.resize(image, size[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
    # OpenCV counts pixel centres from 0, not from 0.5.
    half = scaling(1, 1, -0.5, -0.5) @ matrix @ scaling(1, 1, 0.5, 0.5)
    return cv2.warpAffine(
        image,
        half[:2],
        size[::-1],
        dst=out,
        flags=cv2.INTER_LINEAR,
        borderValue=fill,
    )


def photometric(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Random brightness, contrast, saturation and hue of a uint8 image, half the time.

    SSD's order: contrast comes before the colours or after them, by a toss.
    """

    def drawn(low, high, otherwise):
        return rng.uniform(low, high) if rng.random() < 0.5 else otherwise

    brightness, contrast = drawn(-32, 32, 0), drawn(0.5, 1.5, 1)
    saturation, hue = drawn(0.5, 1.5, 1), drawn(-18, 18, 0)
    early = rng.random() < 0.5
    # Brightness and contrast are one table; the colours need HSV.
    levels = np.arange(256, dtype=np.float32)
    image = cv2.LUT(image, to_bytes((levels + brightness) * (contrast if early else 1)))
    if saturation != 1 or hue != 0:
        h, s, v = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        # OpenCV's 8-bit hue runs from 0 to 179, half a degree a step.
        h = cv2.LUT(h, to_bytes((levels + hue / 2) % 180))
        s = cv2.LUT(s, to_bytes(levels * saturation))
        image = cv2.cvtColor(cv2.merge([h, s, v]), cv2.COLOR_HSV2RGB)
    return image if early else cv2.LUT(image, to_bytes(levels * contrast))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """`values` as uint8, clipped to its range."""
    return np.clip(values, 0, 255).astype(np.uint8)


def expand(rng: np.random.Generator, frame: Frame, most: float) -> Frame:
    """`frame` inside a canvas of up to `most` times its sides, at a chance of 1/2."""
    if most <= 1 or rng.random() < 0.5:
        return frame
    h, w = frame.size
    ratio = rng.uniform(1, most)
    dx, dy = rng.uniform(0, w * ratio - w), rng.uniform(0, h * ratio - h)
    return Frame(scaling(1, 1, dx, dy) @ frame.matrix, (h * ratio, w * ratio))


def iou_crop(rng: np.random.Generator, frame: Frame, boxes: np.ndarray) -> Frame:
    """A window of 0.3 to 1 of each side that meets an object with some overlap.

    The overlap (IoU of window and box) is at least one of .1, .3, .5, .7, .9, or free,
    or the frame stays whole. A window holds at least one object's centre.
    """
    if len(boxes) == 0:
        return frame
    boxes = move_boxes(boxes, frame.matrix)
    h, w = frame.size
    while True:
        least = rng.choice([-1.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
        if least < 0:
            return frame
        for _ in range(50):
            cw, ch = rng.uniform(0.3, 1, 2) * (w, h)
            if not 0.5 <= ch / cw <= 2:
                continue
            x, y = rng.uniform(0, w - cw), rng.uniform(0, h - ch)
            window = np.array([x, y, x + cw, y + ch])
            if centred(boxes, window).any() and overlap(boxes, window).max() >= least:
                return Frame(scaling(1, 1, -x, -y) @ frame.matrix, (ch, cw))


def centred(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Which boxes [n 4] have their centre inside `window` [4]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centre > window[:2]) & (centre < window[2:])).all(axis=1)


def overlap(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """IoU [n] of each box with `window` [4]."""
    low = np.maximum(boxes[:, :2], window[:2])
    high = np.minimum(boxes[:, 2:], window[2:])
    inter = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    union = areas + (window[2:] - window[:2]).prod() - inter
    return inter / np.maximum(union, 1e-9)


def rescale(rng: np.random.Generator, frame: Frame, span: tuple[float, float]) -> Frame:
    """A window of the frame's shape that shows it `span` times as large, anywhere."""
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
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    colour: bool = False,
    expand_to: float = 1.0,
    crop: bool = False,
    scale: tuple[float, float] = (1, 1),
    mirror: bool = False,
    turn: bool = False,
) -> tuple[np.ndarray, Frame]:
    """The image [h w 3] uint8 in other colours, and the frame to move it into.

    `boxes` [n 4] in original pixels steer `crop`. `colour`, `expand_to`, `crop` and
    `mirror` are SSD's; `scale` draws a zoom from a range; `turn` adds the other seven
    symmetries of the square, for pictures that have no up, such as microscopy.
    """
    frame = Frame(np.eye(3), image.shape[:2])
    if colour:
        image = photometric(rng, image)
    frame = expand(rng, frame, expand_to)
    if crop:
        frame = iou_crop(rng, frame, boxes)
    frame = rescale(rng, frame, scale)
    tosses = rng.random(3) < 0.5
    return image, flip(
        frame,
        horizontal=bool(tosses[0]) and (mirror or turn),
        vertical=bool(tosses[1]) and turn,
        transpose=bool(tosses[2]) and turn,
    )
