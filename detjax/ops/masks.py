"""Instance masks: assembly from prototypes, cropping, other sizes.

Shape legend:

    n        masks of one image
    mh, mw   height and width of a mask grid that spans the whole network input
    q        prototypes
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from detjax.ops import resize as resize_ops
from detjax.types import Array


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


def of_boxes(
    boxes: Float[Array, "*batch n 4"],
    valid: Bool[Array, "*batch n"],
    size: tuple[int, int],
) -> Bool[Array, "*batch h w"]:
    """Where the valid ones of the boxes are, by pixels' centres; `size` is (h, w)."""
    h, w = size
    y, x = jnp.arange(h)[:, None] + 0.5, jnp.arange(w)[None] + 0.5
    x1, y1, x2, y2 = jnp.moveaxis(jnp.asarray(boxes)[..., None, None, :], -1, 0)
    inside = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    return jnp.any(inside & valid[..., None, None], axis=-3)
