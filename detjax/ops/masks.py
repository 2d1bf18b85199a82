"""Instance masks: assembly from prototypes, cropping, overlap, run-length encoding.

Shape legend:

    n, m     masks of one image
    mh, mw   height and width of a mask grid that spans the whole network input
    q        prototypes

The functions on run-length encodings run on the host, in numpy and pycocotools; an
encoding is COCO's dict of 'size' [h, w] and 'counts', a string.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped
from pycocotools import mask as coco

from detjax.ops import resize as resize_ops
from detjax.types import Array

Rle = dict[str, Any]


def assemble(
    prototypes: Float[Array, "mh mw q"], coefficients: Float[Array, "n q"]
) -> Float[Array, "n mh mw"]:
    """Logits of each mask: prototypes combined by the coefficients of a detection.

    Bolya et al. 2019 (YOLACT), equation 1.
    """
    return jnp.einsum(
        "hwq,nq->nhw", prototypes, coefficients, precision=jax.lax.Precision.HIGHEST
    )


def crop(
    masks: Float[Array, "n mh mw"],
    boxes: Float[Array, "n 4"],
    size: tuple[int, int],
    padding: int | float = 1,
) -> Float[Array, "n mh mw"]:
    """The masks, 0 outside their boxes.

    Boxes are pixels of a network input of `size` (h, w). Scaled to the mask grid and
    widened by `padding` cells, a box keeps the cells j with x1 <= j < x2. Crossed
    sides are swapped.

    Bolya et al. 2019 (YOLACT), section 3.2, with the rounding of the authors' code.
    """
    keep_rows, keep_columns = crop_cells(boxes, size, masks.shape[1:], padding)
    return jnp.where(keep_rows[:, :, None] & keep_columns[:, None], masks, 0)


def crop_cells(
    boxes: Float[Array, "n 4"],
    size: tuple[int, int],
    mask_size: tuple[int, ...],
    padding: int | float = 1,
) -> tuple[Bool[Array, "n mh"], Bool[Array, "n mw"]]:
    """Rows and columns of the mask grid that `crop` keeps of each box."""

    # numpy's boxes stay on the host, where their number differs from image to image.
    xp = boxes.__array_namespace__()

    def kept(ends, length, cells):
        ends = ends / length * cells
        low = xp.maximum(ends.min(1) - padding, 0)
        high = xp.minimum(ends.max(1) + padding, cells)
        cell = xp.arange(cells)
        return (cell >= low[:, None]) & (cell < high[:, None])

    return (
        kept(boxes[:, 1::2], size[0], mask_size[0]),
        kept(boxes[:, ::2], size[1], mask_size[1]),
    )


def resize(
    masks: Float[Array, "n mh mw"], size: tuple[int, int]
) -> Float[Array, "n h w"]:
    """The masks at `size` (h, w), bilinear; see `resize.bilinear`."""
    return jax.vmap(lambda mask: resize_ops.bilinear(mask[..., None], size)[..., 0])(
        masks
    )


def mask_iou(
    a: Shaped[Array, "n h w"], b: Shaped[Array, "m h w"]
) -> Float[Array, "n m"]:
    """Intersection over union of every pair of binary masks; 0 for an empty union."""
    a = jnp.asarray(a, jnp.float32).reshape(a.shape[0], math.prod(a.shape[1:]))
    b = jnp.asarray(b, jnp.float32).reshape(b.shape[0], math.prod(b.shape[1:]))
    inter = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    union = a.sum(1)[:, None] + b.sum(1) - inter
    return jnp.where(union > 0, inter / jnp.where(union > 0, union, 1), 0)


def encode_rle(mask: Shaped[np.ndarray, "h w"]) -> Rle:
    """The encoding of a binary mask [h w]; everything but 0 is foreground."""
    rle = coco.encode(np.asfortranarray(mask != 0, np.uint8))
    return _as_text(rle)


def decode_rle(rle: Rle) -> Bool[np.ndarray, "h w"]:
    """The mask [h w] of an encoding, whose counts may be a string, bytes or a list."""
    return coco.decode(_compressed(rle)).astype(bool)


def _as_text(rle: Rle) -> Rle:
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _compressed(rle: Rle) -> Rle:
    if isinstance(rle["counts"], str | bytes):
        return rle
    return coco.frPyObjects(rle, *rle["size"])
