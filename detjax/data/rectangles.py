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


def of_masks(
    runs: rle.Runs, numbers: Sequence[int] | np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """Those [n 5] around the masks `numbers` [n] under an affine `matrix` [3 3].

    Around their pixels' corners; zeros of an empty mask.
    """
    found = np.zeros((len(numbers), 5))
    if not len(runs.lows):
        return found
    x, y = rle.corners(runs)
    for row, number in zip(found, np.asarray(numbers).tolist(), strict=True):
        own = slice(runs.first[number], runs.first[number + 1])
        if own.start == own.stop:
            continue
        points = np.stack([x[:, own].ravel(), y[:, own].ravel()], axis=1)
        row[:] = of_points(points @ matrix[:2, :2].T + matrix[:2, 2])
    return found


def of_codes(codes: Sequence[bytes | None], size: tuple[int, int]) -> np.ndarray:
    """Those [n 5] around run-length codes of masks of `size` (h, w); zeros of None."""
    try:
        runs = rle.runs_of_all([code or b"" for code in codes], size)
    except ValueError:
        return np.zeros((len(codes), 5))
    return of_masks(runs, range(len(codes)), np.eye(3))


def corners(found: np.ndarray) -> np.ndarray:
    """The corners [n 4 2] of rectangles [n 5], one after the other around them."""
    x, y, w, h, angle = np.asarray(found, np.float64).T
    along = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * w[:, None] / 2
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=-1) * h[:, None] / 2
    centre = np.stack([x, y], axis=-1)
    signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
    return np.stack([centre + a * along + b * across for a, b in signs], axis=1)


def moved(found: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Those [n 5] around the corners of rectangles under an affine `matrix` [3 3]."""
    places = corners(found) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.array([of_points(points) for points in places]).reshape(-1, 5)
