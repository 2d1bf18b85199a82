"""Windows of a picture and what lies in them: affine matrices, boxes, keypoints.

A matrix goes from original pixels (x, y, 1) to a frame. Coordinates are continuous: the
first pixel's centre is (0.5, 0.5).
"""

import functools
from typing import Any, NamedTuple

import numpy as np


class Frame(NamedTuple):
    """An output window: its matrix and its (h, w)."""

    matrix: np.ndarray  # [3 3] float64, original pixel (x, y, 1) -> frame pixel
    size: tuple[float, float]


def scaling(x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """The [3 3] matrix of (x', y') = (x * scale + d)."""
    return np.array([[x, 0, dx], [0, y, dy], [0, 0, 1]], np.float64)


def rotation(degrees: float, centre: tuple[float, float]) -> np.ndarray:
    """The [3 3] matrix that turns clockwise, as seen, around `centre` (x, y)."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    about = scaling(1, 1, *centre)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return about @ turn @ np.linalg.inv(about)


def upright(matrix: np.ndarray) -> bool:
    """Whether `matrix` moves, scales, flips and transposes, and turns no further."""
    linear = matrix[:2, :2]
    return bool((linear == 0).sum() >= 2)


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
    """The boxes [n 4] xyxy around boxes [n 4] under an affine `matrix` [2 or 3, 3].

    A rotation by the angle a makes a box of (w, h) one of (w |cos a| + h |sin a|,
    w |sin a| + h |cos a|): it is as large as that, whatever is in it.
    """
    corners = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    corners = corners @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def move_keypoints(
    points: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    names: tuple[str, ...],
    window: np.ndarray | None = None,
) -> np.ndarray:
    """Keypoints [n k 3] under an affine `matrix` [2 or 3, 3] to a frame of `size`.

    Those outside the frame, or its `window` [4], become zeros, like unannotated ones:
    visibility 0. If `matrix` mirrors, keypoints named left_ and right_ are swapped: the
    left hand of a mirrored person is a right hand.
    """
    window = np.array([0, 0, size[1], size[0]]) if window is None else window
    moved = points[..., :2] @ matrix[:2, :2].T + matrix[:2, 2]
    visible = points[..., 2:]
    inside = ((moved >= window[:2]) & (moved <= window[2:])).all(-1, keepdims=True)
    found = np.concatenate([moved, visible], axis=-1) * (inside & (visible > 0))
    mirrored = np.linalg.det(matrix[:2, :2]) < 0
    return found[:, opposites(names)] if mirrored else found


class Seen(NamedTuple):
    """The truth of a picture, and where it is seen in a network's input."""

    truth: Any  # what a task's targets read of a record
    matrix: np.ndarray  # [3 3], original pixel (x, y, 1) -> pixel of the input
    window: np.ndarray  # [4] xyxy: the part of the input that may show it
    share: float | None = None  # of the labels, where several pictures lie in one place


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


def centred(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Which boxes [n 4] have their centre inside `window` [... 4]; [... n]."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    x1, y1, x2, y2 = (window[..., i, None] for i in range(4))
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def overlap(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """IoU [... n] of each box [n 4] with `window` [... 4]."""
    # Coordinate by coordinate: numpy reduces axes of length two slowly.
    x1, y1, x2, y2 = (window[..., i, None] for i in range(4))
    w = np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)
    h = np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)
    inter = np.maximum(w, 0) * np.maximum(h, 0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    whole = (x2 - x1) * (y2 - y1)
    return inter / np.maximum(areas + whole - inter, 1e-9)
