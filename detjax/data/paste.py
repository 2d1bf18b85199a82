"""Masks of the network's grid as binary masks of the original image; on the host.

Only the part of the image that a mask's box can reach is computed and kept.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, Shaped

from detjax.data.patches import Patch, nothing
from detjax.ops import masks as mask_ops
from detjax.ops import resize
from detjax.types import Array


def paste(
    masks: Shaped[Array, "n mh mw"],
    boxes: Float[Array, "n 4"] | None,
    affine: Float[Array, "2 3"],
    size: tuple[int, int],
    network_size: tuple[int, int],
    threshold: int | float = 0.5,
) -> Iterator[Patch]:
    """For each mask its pixels in the original image of `size` (h, w), bool.

    One is computed when it is asked for: an image's masks together may be large.

    masks: foreground probabilities on a grid that spans the network's input, of any
        type; each is converted when it is pasted.
    boxes: pixels of the network's input; a mask counts only inside its box, by the
        rule of `masks.crop`. None: everywhere.
    affine: original pixel (x, y, 1) -> pixel of a network input of `network_size`
        (h, w), in coordinates whose pixel centres are at half-integers.
    threshold: what a foreground pixel's interpolated probability exceeds, 0 or more.
    """
    if threshold < 0:
        raise ValueError(f"threshold is {threshold}: expected 0 or more")
    masks = np.asarray(masks)
    n, *mask_size = masks.shape
    to_grid = _pixel_to_cell(np.asarray(affine, np.float64), mask_size, network_size)
    rows, columns = np.ones((n, mask_size[0]), bool), np.ones((n, mask_size[1]), bool)
    if boxes is not None:
        kept = mask_ops.crop_cells(boxes, network_size, tuple(mask_size))
        rows, columns = map(np.asarray, kept)
    reach = _reach(_ends(columns), _ends(rows), mask_size, to_grid, size)
    there = np.logical_and(rows.any(axis=1), columns.any(axis=1))
    return (
        _paste_one(mask, inside, window, to_grid, size, threshold)
        if some
        else nothing(size)
        for mask, *inside, window, some in zip(
            masks, rows, columns, reach.tolist(), there.tolist(), strict=True
        )
    )


def paste_boxes(
    masks: Shaped[Array, "n r r"],
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
    masks: foreground probabilities on a grid that spans each box, of any type; each is
        converted when it is pasted.
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
    mask: Shaped[Array, "r r"], box: Float[Array, "4"], size: tuple[int, int]
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
    mask: Shaped[Array, "r r"], box: Float[Array, "4"], size: tuple[int, int]
) -> Patch:
    """The probabilities of a mask that spans `box`, on an image of `size` (h, w).

    The mask gets an edge of zeros one cell wide, the box grows by as much and is cut to
    whole pixels, which are interpolated between the cells. He et al. 2017 (Mask R-CNN),
    with the rounding of its code.
    """
    r = len(mask)
    padded = np.zeros((r + 2, r + 2), np.float32)
    padded[1:-1, 1:-1] = mask
    centre = (box[:2] + box[2:]) / 2
    half = (box[2:] - box[:2]) / 2 * ((r + 2) / r)
    low, high = (np.trunc(v).astype(int) for v in (centre - half, centre + half))
    w, h = np.maximum(high - low + 1, 1).tolist()
    x1, y1 = np.clip(low, 0, size[::-1]).tolist()
    x2, y2 = np.clip(high + 1, (x1, y1), size[::-1]).tolist()
    columns, rows = (
        slice(a - c, b - c) for a, b, c in zip((x1, y1), (x2, y2), low, strict=True)
    )
    if x1 == x2 or y1 == y2:
        return nothing(size, np.float32)._replace(x=x1, y=y1)
    # Most of the box, or else little of a large one, is in the image.
    if w * h <= 4 * (x2 - x1) * (y2 - y1):
        pixels = cv2.resize(padded, (w, h), interpolation=cv2.INTER_LINEAR)
        return Patch(x1, y1, pixels[rows, columns], size)
    left, right, weight = (v[columns] for v in resize.taps(r + 2, w))
    padded = padded[:, left] * (1 - weight) + padded[:, right] * weight
    above, below, weight = (v[rows] for v in resize.taps(r + 2, h))
    weight = weight[:, None]
    return Patch(x1, y1, padded[above] * (1 - weight) + padded[below] * weight, size)


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


def _ends(kept: np.ndarray) -> np.ndarray:
    """The first and the last [2 n] of the cells [n m] that are `kept`, if some are."""
    return np.stack([kept.argmax(axis=1), kept.shape[1] - 1 - kept[:, ::-1].argmax(1)])


def _paste_one(mask, inside, window, to_grid, size, threshold) -> Patch:
    (rows, columns), (x1, y1, x2, y2) = inside, window
    if x1 >= x2 or y1 >= y2:
        return nothing(size)
    shifted = to_grid.copy()
    shifted[:, 2] += to_grid[:, :2] @ (x1, y1)
    cropped = np.multiply(mask, rows[:, None] & columns, dtype=np.float32)
    probability = cv2.warpAffine(
        cropped,
        shifted,
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Patch(x1, y1, probability > threshold, size)


def _reach(columns, rows, mask_size, to_grid, size) -> np.ndarray:
    """Original pixels [n 4] xyxy that ranges [2 n] of cells, ends included, touch.

    A cell touches what lies less than one cell from its centre, and a cell on the
    grid's edge everything beyond that edge too.
    """
    h, w = size
    far = 1 + np.abs(to_grid @ np.array([[0, w, 0, w], [0, 0, h, h], [1] * 4])).max()
    (left, right), (top, bottom) = (
        (
            np.where(low > 0, low - 1, -far),
            np.where(high < cells - 1, high + 1, cells + far),
        )
        for (low, high), cells in zip((columns, rows), mask_size[::-1], strict=True)
    )
    corners = np.stack(
        [[left, right, left, right], [top, top, bottom, bottom]]
    ).transpose(2, 0, 1)
    back = np.linalg.inv(to_grid[:, :2]) @ (corners - to_grid[:, 2:])
    low = np.floor(back.min(axis=2)).clip(0, (w, h))
    high = (np.ceil(back.max(axis=2)) + 1).clip(0, (w, h))
    return np.concatenate([low, high], axis=1).astype(int)
