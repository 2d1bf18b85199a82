"""Rectangles at an angle around masks and points, on the host.

They are [n 5] as `ops.rotated` has them: centre x and y, long side, short side, angle.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from detjax.data import rle


def of_points(points: np.ndarray) -> np.ndarray:
    """The smallest rectangle [5] around points [m 2]."""
    (x, y), (w, h), degrees = cv2.minAreaRect(np.ascontiguousarray(points, np.float32))
    return canonical(np.array([[x, y, w, h, np.radians(degrees)]]))[0]


def canonical(found: np.ndarray) -> np.ndarray:
    """The same rectangles with w >= h and an angle from -pi / 2 to below pi / 2."""
    x, y, w, h, angle = np.moveaxis(np.asarray(found, np.float64), -1, 0)
    angle = np.where(h > w, angle + np.pi / 2, angle)
    angle = (angle + np.pi / 2) % np.pi - np.pi / 2
    return np.stack([x, y, np.maximum(w, h), np.minimum(w, h), angle], axis=-1)


def of_masks(runs: rle.Runs, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Those [n 5] around the masks `numbers` [n].

    Around their pixels' corners; zeros of an empty mask.
    """
    found = np.zeros((len(numbers), 5))
    if not len(runs.lows):
        return found
    x, y = rle.corners(runs)
    for row, number in zip(found, np.asarray(numbers).tolist(), strict=True):
        own = slice(runs.first[number], runs.first[number + 1])
        if own.start < own.stop:
            row[:] = of_points(np.stack([x[:, own].ravel(), y[:, own].ravel()], axis=1))
    return found


def of_objects(
    runs: rle.Runs | None,
    given: Sequence[np.ndarray | None],
    numbers: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Those [n 5] of the objects `numbers` [n] of a picture.

    Their own, around the corners `given` [4 2] of them, or those around their masks.
    """
    found = np.zeros((len(numbers), 5)) if runs is None else of_masks(runs, numbers)
    for row, four in zip(found, given, strict=True):
        if four is not None:
            row[:] = of_points(four)
    return found


def of_codes(
    codes: Sequence[bytes | None],
    given: Sequence[np.ndarray | None],
    size: tuple[int, int],
) -> np.ndarray:
    """`of_objects`, of run-length codes of masks of `size` (h, w); zeros of None."""
    try:
        runs = rle.runs_of_all([code or b"" for code in codes], size)
    except ValueError:
        runs = None
    return of_objects(runs, given, range(len(codes)))


def corners(found: np.ndarray) -> np.ndarray:
    """The corners [n 4 2] of rectangles [n 5], one after the other around them."""
    x, y, w, h, angle = np.asarray(found, np.float64).T
    along = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * w[:, None] / 2
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=-1) * h[:, None] / 2
    centre = np.stack([x, y], axis=-1)
    signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
    return np.stack([centre + a * along + b * across for a, b in signs], axis=1)


def moved(found: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The rectangles [n 5] under an affine `matrix` [3 3].

    Where it scales one direction more than another a rectangle becomes none: its long
    axis is moved, and the other side keeps the area, as `ops.rotated.rescale` has it.
    The inverse matrix brings such a rectangle back while its long side stays the long
    one; the smallest rectangle around the moved corners would grow both times.
    """
    x, y, w, h, angle = np.moveaxis(np.asarray(found, np.float64), -1, 0)
    linear = np.asarray(matrix, np.float64)[:2, :2]
    place = np.stack([x, y], axis=-1) @ linear.T + matrix[:2, 2]
    along = np.stack([w * np.cos(angle), w * np.sin(angle)], axis=-1) @ linear.T
    length = np.hypot(along[..., 0], along[..., 1])
    other = abs(np.linalg.det(linear)) * w * h / np.maximum(length, 1e-9)
    turned = np.arctan2(along[..., 1], along[..., 0])
    sides = np.stack([length, other, turned], axis=-1)
    return canonical(np.concatenate([place, sides], axis=-1))


def cut(found: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The rectangles [n 5] around what lies of those of `found` in `window` [4] xyxy.

    At the angles that they had; zeros of those that lie outside.
    """
    x1, y1, x2, y2 = np.asarray(window, np.float32)
    frame = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    kept = np.zeros((len(found), 5))
    for row, box, four in zip(kept, found, corners(found), strict=True):
        area, common = cv2.intersectConvexConvex(four.astype(np.float32), frame)
        if area > 0:
            cos, sin = np.cos(box[4]), np.sin(box[4])
            turn = np.array([[cos, -sin], [sin, cos]])
            own = common.reshape(-1, 2) @ turn
            low, high = own.min(axis=0), own.max(axis=0)
            row[:] = [*turn @ (low + high) / 2, *(high - low), box[4]]
    return canonical(kept)
