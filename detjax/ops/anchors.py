"""Priors (anchors) of a feature pyramid, as numpy constants.

`grid` and `rcnn` return [p 4] xyxy float32 pixels of the network's input, by level,
row, column, then the priors of one location, as a head's outputs [h w a] flatten;
`grid_levels` and `rcnn_levels` return the levels that these are placed on.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from detjax.types import PriorLevel

Size = tuple[int, int]


def grid(
    feature_shapes: Sequence[Size],
    image_size: Size,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (1, 0.5, 2),
    square: bool = False,
) -> Float[np.ndarray, "p 4"]:
    """Priors centred in the cells of each level; a ratio is w / h.

    feature_shapes: (h, w) of each level. image_size: (h, w) in pixels.
    sizes: for each level the square roots of the areas in pixels.
    square: h = w = size * sqrt(ratio), a slip that YOLACT's first weights rely on.

    At each location: for each size, for each ratio.

    Liu et al. 2016 (SSD), section 2.2; Bolya et al. 2019 (YOLACT), section 4.
    """
    return placed(grid_levels(feature_shapes, image_size, sizes, ratios, square))


def grid_levels(
    feature_shapes: Sequence[Size],
    image_size: Size,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (1, 0.5, 2),
    square: bool = False,
) -> list[PriorLevel]:
    """The levels of `grid`."""
    root = np.sqrt(np.asarray(ratios, np.float64))
    levels = []
    for shape, level_sizes in _by_level(feature_shapes, sizes):
        size = np.asarray(level_sizes, np.float64)[:, None]
        w = (size * root).ravel()
        h = w if square else (size / root).ravel()
        step = image_size[0] / shape[0], image_size[1] / shape[1]
        levels.append(PriorLevel(np.stack([-w, -h, w, h], -1) / 2, shape, step, 0.5))
    return levels


def rcnn(
    feature_shapes: Sequence[Size],
    strides: Sequence[int | Size],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (0.5, 1, 2),
) -> Float[np.ndarray, "p 4"]:
    """Priors on the upper left corners of the cells; a ratio is h / w.

    feature_shapes: (h, w) of each level. strides: pixels between cells of each level,
    one number or (vertical, horizontal). sizes: for each level the square roots of the
    areas in pixels. The corners about the origin are rounded to whole pixels.

    At each location: for each ratio, for each size.

    Ren et al. 2015 (Faster R-CNN), section 3.1.1, in torchvision's convention.
    """
    return placed(rcnn_levels(feature_shapes, strides, sizes, ratios))


def rcnn_levels(
    feature_shapes: Sequence[Size],
    strides: Sequence[int | Size],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (0.5, 1, 2),
) -> list[PriorLevel]:
    """The levels of `rcnn`."""
    root = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    levels = []
    for (shape, level_sizes), stride in zip(
        _by_level(feature_shapes, sizes), strides, strict=True
    ):
        size = np.asarray(level_sizes, np.float32)
        w, h = (1 / root * size).ravel(), (root * size).ravel()
        base = np.round(np.stack([-w, -h, w, h], -1) / 2)
        step = (stride, stride) if isinstance(stride, int) else stride
        levels.append(PriorLevel(base, shape, step, 0))
    return levels


def placed(levels: Sequence[PriorLevel]) -> Float[np.ndarray, "p 4"]:
    """The priors [p 4] float32 of levels."""
    return np.concatenate([_placed(*level) for level in levels])


def halved(size: Size, times: int) -> Size:
    """(h, w) of the level of stride 2^times: halved and rounded up as often.

    Networks that round down, such as VGG, have a row less of some sizes.
    """
    h, w = size
    return -(-h // 2**times), -(-w // 2**times)


def strides(shapes: Sequence[Size], size: Size) -> list[Size]:
    """Pixels between the cells of each level (h, w), whole numbers as in torchvision.

    Inputs count as if they were padded to a multiple of 32, as torchvision's are.
    """
    h, w = (-(-side // 32) * 32 for side in size)
    return [(h // rows, w // columns) for rows, columns in shapes]


def best_iou(
    boxes: Float[np.ndarray, "n 4"], levels: Sequence[PriorLevel]
) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "k 2"]]:
    """The highest IoU of boxes with each kind of prior, and the kinds' (w, h).

    A kind is one of a level's priors of a location. Of these the one whose centre is
    nearest overlaps most, so no more than one place of each is compared.
    """
    boxes = np.asarray(boxes, np.float64)
    found, shapes = [np.zeros((len(boxes), 0))], [np.zeros((0, 2))]
    for base, shape, step, offset in levels:
        side = base[:, 2:] - base[:, :2]
        middle = (base[:, 2:] + base[:, :2]) / 2
        centre = (boxes[:, None, 2:] + boxes[:, None, :2]) / 2 - middle
        step_xy, last = np.array(step[::-1]), np.array(shape[::-1]) - 1
        cell = np.clip(np.rint(centre / step_xy - offset), 0, last)
        low = (cell + offset) * step_xy + base[:, :2]
        common = np.minimum(boxes[:, None, 2:], low + side)
        common = np.maximum(common - np.maximum(boxes[:, None, :2], low), 0).prod(-1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        union = area[:, None] + side.prod(-1) - common
        found.append(common / np.maximum(union, 1e-9))
        shapes.append(side)
    return np.concatenate(found, 1), np.concatenate(shapes)


def _by_level(shapes: Sequence[Size], sizes: Sequence[Sequence[float]]) -> list:
    if len(shapes) != len(sizes):
        raise ValueError(
            f"{len(shapes)} feature shapes but sizes for {len(sizes)} levels: give one "
            "list of sizes per level, such as [[24], [48]]"
        )
    return list(zip(shapes, sizes, strict=True))


def _placed(
    base: np.ndarray, shape: Size, step: tuple[float, float], offset: float
) -> np.ndarray:
    """Boxes about the origin [a 4] moved to each cell, [h * w * a 4] float32."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + offset
    y, x = rows * step[0], columns * step[1]
    centre = np.stack([x, y, x, y], -1)
    return (centre[:, :, None] + base).reshape(-1, 4).astype(np.float32)
