"""Masks of the network's grid as binary masks of the original image; on the host.

Only the part of the image that a mask's box can reach is computed and kept.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float

from detjax.data.patches import Patch, nothing
from detjax.ops import masks as mask_ops
from detjax.ops import resize
from detjax.types import Array


def paste(
    masks: Float[Array, "n mh mw"],
    boxes: Float[Array, "n 4"] | None,
    affine: Float[Array, "2 3"],
    size: tuple[int, int],
    network_size: tuple[int, int],
    threshold: int | float = 0.5,
) -> Iterator[Patch]:
    """For each mask its pixels in the original image of `size` (h, w), bool.

    One is computed when it is asked for: an image's masks together may be large.

    masks: foreground probabilities on a grid that spans the network's input.
    boxes: pixels of the network's input; a mask counts only inside its box, by the
        rule of `masks.crop`. None: everywhere.
    affine: original pixel (x, y, 1) -> pixel of a network input of `network_size`
        (h, w), in coordinates whose pixel centres are at half-integers.
    threshold: what a foreground pixel's interpolated probability exceeds, 0 or more.
    """
    if threshold < 0:
        raise ValueError(f"threshold is {threshold}: expected 0 or more")
    masks = np.asarray(masks, np.float32)
    n, *mask_size = masks.shape
    to_grid = _pixel_to_cell(np.asarray(affine, np.float64), mask_size, network_size)
    if boxes is None:
        cells = tuple(np.ones((n, cells), bool) for cells in mask_size)
    else:
        cells = mask_ops.crop_cells(boxes, network_size, tuple(mask_size))
    return (
        _paste_one(mask, rows, columns, to_grid, size, threshold)
        for mask, rows, columns in zip(masks, *map(np.asarray, cells), strict=True)
    )


def paste_boxes(
    masks: Float[Array, "n r r"],
    boxes: Float[Array, "n 4"],
    affine: Float[Array, "2 3"],
    size: tuple[int, int],
    threshold: int | float = 0.5,
    aligned: bool = False,
) -> Iterator[Patch]:
    """For each mask its pixels in the original image of `size` (h, w), bool.

    One is computed when it is asked for: an image's masks together may be large.

    aligned: cells lie where they lie; else boxes are rounded to whole pixels, as
        torchvision's are.
    masks: foreground probabilities on a grid that spans each box.
    boxes: pixels of the network's input.
    affine: original pixel (x, y, 1) -> network pixel, without rotation or shear; else
        there is a ValueError.
    threshold: what a foreground pixel's interpolated probability exceeds.
    """
    affine = np.asarray(affine, np.float64)
    if affine[0, 1] or affine[1, 0]:
        raise ValueError(
            f"affine={affine.tolist()} turns or shears the image; masks on boxes can "
            "be pasted into images that are moved, scaled or flipped only"
        )
    scale, shift = affine[[0, 1], [0, 1]], affine[:, 2]
    ends = (np.asarray(boxes, np.float64).reshape(-1, 2, 2) - shift) / scale
    order = [slice(None, None, -1 if s < 0 else 1) for s in scale]
    upright = np.asarray(masks)[:, order[1], order[0]]
    corners = np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1)
    draw = drawn_aligned if aligned else drawn
    drawings = (
        draw(mask, box, size) for mask, box in zip(upright, corners, strict=True)
    )
    return (d._replace(pixels=d.pixels > threshold) for d in drawings)


def drawn_aligned(
    mask: Float[Array, "r r"], box: Float[Array, "4"], size: tuple[int, int]
) -> Patch:
    """The probabilities of a mask that spans `box`, on an image of `size` (h, w).

    Bilinear between the centres of its cells; nothing beyond the box.
    """
    side = np.maximum(box[2:] - box[:2], 1e-6)
    # Pixels whose centres the box holds.
    x1, y1, x2, y2 = np.ceil(box - 0.5).astype(int)
    x1, x2 = np.clip([x1, x2], 0, size[1])
    y1, y2 = np.clip([y1, y2], 0, size[0])
    if x1 >= x2 or y1 >= y2:
        return nothing(size, np.float32)
    step = side / len(mask)
    to_pixels = np.array(
        [
            [step[0], 0, box[0] + step[0] / 2 - 0.5 - x1],
            [0, step[1], box[1] + step[1] / 2 - 0.5 - y1],
        ]
    )
    probability = cv2.warpAffine(
        np.asarray(mask, np.float32),
        to_pixels,
        (int(x2 - x1), int(y2 - y1)),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Patch(int(x1), int(y1), probability, size)


def drawn(
    mask: Float[Array, "r r"], box: Float[Array, "4"], size: tuple[int, int]
) -> Patch:
    """The probabilities of a mask that spans `box`, on an image of `size` (h, w).

    The mask gets an edge of zeros one cell wide, the box grows by as much and is cut to
    whole pixels, which are interpolated between the cells. He et al. 2017 (Mask R-CNN),
    with the rounding of its code.
    """
    padded = np.pad(np.asarray(mask, np.float32), 1)
    r = len(mask)
    centre = (box[:2] + box[2:]) / 2
    half = (box[2:] - box[:2]) / 2 * ((r + 2) / r)
    low, high = (np.trunc(v).astype(int) for v in (centre - half, centre + half))
    sides = np.maximum(high - low + 1, 1)
    first = np.clip(low, 0, size[::-1])
    last = np.clip(high + 1, first, size[::-1])
    columns, rows = (
        _between(r + 2, int(side))[begin:end]
        for side, begin, end in zip(sides, first - low, last - low, strict=True)
    )
    return Patch(int(first[0]), int(first[1]), rows @ padded @ columns.T, size)


def _between(cells: int, size: int) -> np.ndarray:
    """The matrix [size cells] that interpolates `cells` at `size` pixels."""
    low, high, weight = resize.taps(cells, size)
    matrix = np.zeros((size, cells), np.float32)
    np.add.at(matrix, (np.arange(size), low), 1 - weight)
    np.add.at(matrix, (np.arange(size), high), weight)
    return matrix


def _pixel_to_cell(affine, mask_size, network_size) -> np.ndarray:
    """Index (j, i, 1) of an original pixel -> fractional index of the mask grid.

    Cell index u has its centre at (u + 0.5) * network / grid network pixels, and pixel
    index j at j + 0.5 original pixels.
    """
    affine = affine.copy()
    affine[:, 2] += affine[:, :2].sum(1) / 2
    affine *= np.divide(mask_size, network_size)[::-1, None]
    affine[:, 2] -= 0.5
    return affine


def _paste_one(mask, rows, columns, to_grid, size, threshold) -> Patch:
    if not rows.any() or not columns.any():
        return nothing(size)
    x, y = np.flatnonzero(columns), np.flatnonzero(rows)
    x1, y1, x2, y2 = _reach(x[0], y[0], x[-1], y[-1], mask.shape, to_grid, size)
    if x1 >= x2 or y1 >= y2:
        return nothing(size)
    shifted = to_grid.copy()
    shifted[:, 2] += to_grid[:, :2] @ (x1, y1)
    probability = cv2.warpAffine(
        mask * rows[:, None] * columns,
        shifted,
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Patch(x1, y1, probability > threshold, size)


def _reach(left, top, right, bottom, mask_size, to_grid, size) -> tuple[int, ...]:
    """Original pixels (x1, y1, x2, y2) that a range of cells, ends included, touches.

    A cell touches what lies less than one cell from its centre, and a cell on the
    grid's edge everything beyond that edge too.
    """
    h, w = size
    far = 1 + np.abs(to_grid @ np.array([[0, w, 0, w], [0, 0, h, h], [1] * 4])).max()
    left, top = (v - 1 if v > 0 else -far for v in (left, top))
    right = right + 1 if right < mask_size[1] - 1 else mask_size[1] + far
    bottom = bottom + 1 if bottom < mask_size[0] - 1 else mask_size[0] + far
    corners = np.array([[left, right, left, right], [top, top, bottom, bottom]])
    back = np.linalg.inv(to_grid[:, :2]) @ (corners - to_grid[:, 2:])
    low = np.floor(back.min(1)).clip(0, (w, h)).astype(int)
    high = (np.ceil(back.max(1)) + 1).clip(0, (w, h)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
