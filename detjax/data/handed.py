"""Pictures as callers have them: arrays, and PIL's."""

from typing import Any

import numpy as np

from detjax.errors import UserError


def rgb(image: Any) -> np.ndarray:
    """`image` as uint8 RGB [h w 3]; grey is repeated, an alpha channel dropped.

    It is an array or a PIL image of any mode. Raises UserError for anything but a uint8
    image of at least one pixel.
    """
    if hasattr(image, "convert"):  # PIL's: palettes and bits are no arrays of colours
        image = image.convert("RGB")
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise UserError(
            f"an image of shape {image.shape} and type {image.dtype} was given; give a "
            "uint8 array [h w 3] in RGB, or [h w] in grey, a PIL image, or a path"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] not in (1, 3, 4):
        raise UserError(f"an image of {image.shape[2]} channels was given; give 1 or 3")
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image[..., :3]
