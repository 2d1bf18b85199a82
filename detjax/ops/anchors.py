"""Priors (anchors) of a feature pyramid, as numpy constants.

Both functions return [p 4] xyxy float32 pixels of the network's input, by level, row,
column, then the priors of one location, as a head's outputs [h w a] flatten.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

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
    root = np.sqrt(np.asarray(ratios, np.float64))
    levels = []
    for shape, level_sizes in _by_level(feature_shapes, sizes):
        size = np.asarray(level_sizes, np.float64)[:, None]
        w = (size * root).ravel()
        h = w if square else (size / root).ravel()
        step = np.divide(image_size, shape)
        base = np.stack([-w, -h, w, h], -1) / 2
        levels.append(_placed(base, shape, step, offset=0.5))
    return np.concatenate(levels)


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
    root = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    levels = []
    for (shape, level_sizes), stride in zip(
        _by_level(feature_shapes, sizes), strides, strict=True
    ):
        size = np.asarray(level_sizes, np.float32)
        w, h = (1 / root * size).ravel(), (root * size).ravel()
        base = np.round(np.stack([-w, -h, w, h], -1) / 2)
        step = np.broadcast_to(stride, 2)
        levels.append(_placed(base, shape, step, offset=0))
    return np.concatenate(levels)


def _by_level(shapes: Sequence[Size], sizes: Sequence[Sequence[float]]) -> list:
    if len(shapes) != len(sizes):
        raise ValueError(
            f"{len(shapes)} feature shapes but sizes for {len(sizes)} levels: give one "
            "list of sizes per level, such as [[24], [48]]"
        )
    return list(zip(shapes, sizes, strict=True))


def _placed(
    base: np.ndarray, shape: Size, step: np.ndarray, offset: float
) -> np.ndarray:
    """Boxes about the origin [a 4] moved to each cell, [h * w * a 4] float32."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + offset
    y, x = rows * step[0], columns * step[1]
    centre = np.stack([x, y, x, y], -1)
    return (centre[:, :, None] + base).reshape(-1, 4).astype(np.float32)
