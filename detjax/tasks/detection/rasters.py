"""Masks of targets, drawn on their grids."""

import cv2
import numpy as np

from detjax.data import rle


def spans(boxes: np.ndarray, side: int) -> np.ndarray:
    """The matrices [n 3 3] that bring each of the boxes [n 4] to `side` x `side`."""
    scale = side / (boxes[:, 2:] - boxes[:, :2])
    found = np.tile(np.eye(3), (len(boxes), 1, 1))
    found[:, [0, 1], [0, 1]] = scale
    found[:, :2, 2] = -boxes[:, :2] * scale
    return found


def draw_masks(
    out: np.ndarray,
    runs: rle.Runs,
    numbers: np.ndarray,
    matrices: np.ndarray,
    window: np.ndarray | None = None,
) -> None:
    """Draws the masks `numbers` [m] of `runs` into zeros `out` [n mh mw], n >= m.

    `matrices` [m 3 3] move them; `window` [4] is the part of the grid that may show
    them, all of it if None. Bilinear on 0..255, cut in the middle: a smooth
    outline at any scale.
    """
    boxes, linear = runs.boxes[numbers].astype(np.float64), matrices[:, :2, :2]
    if window is None:
        window = np.array([0, 0, out.shape[2], out.shape[1]])
    shift = matrices[:, :2, 2]
    corners = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    corners = corners @ linear.swapaxes(1, 2) + shift[:, None]
    # A pixel's shade reaches to the centres of its neighbours.
    reach = 1 + np.abs(linear).sum(axis=2)
    parts = np.concatenate(
        [corners.min(axis=1) - reach, corners.max(axis=1) + reach], axis=1
    )
    parts = np.clip(parts, window[[0, 1, 0, 1]], window[[2, 3, 2, 3]]).astype(np.int64)
    # Run-length codes go down the columns: what is stored is the mask's transpose, and
    # OpenCV's pixel centres are whole numbers.
    warps = np.empty((len(numbers), 2, 3))
    warps[:, :, :2] = linear[:, :, ::-1]
    warps[:, :, 2] = np.einsum("mij,mj->mi", linear, boxes[:, :2]) - parts[:, :2]
    warps[:, :, 2] += shift + linear.sum(axis=2) / 2 - 0.5
    for drawn, number, part, warp in zip(
        out, numbers.tolist(), parts.tolist(), warps, strict=False
    ):
        left, top, right, bottom = part
        shades = runs.shades(number)
        if shades.size and left < right and top < bottom:
            size = (right - left, bottom - top)
            moved = cv2.warpAffine(shades, warp, size, flags=cv2.INTER_LINEAR)
            drawn[top:bottom, left:right] = moved > 127
