"""Crops of one image, stretched to one size.

Shape legend:

    p        boxes of the image
    s        side of a crop in pixels
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from detjax.types import Array


def warp(
    image: Float[Array, "h w d"],
    boxes: Float[Array, "p 4"],
    windows: Float[Array, "p 4"],
    size: int,
    padding: int = 0,
) -> Float[Array, "p s s d"]:
    """What lies in and around each box, stretched to `size` x `size` pixels.

    The box fills the crop but for `padding` pixels on each side, which show what is
    around it at the same stretch. Bilinear without antialiasing; whatever is outside
    the box's window, the part of `image` that holds its picture, is 0.

    Girshick et al. 2014 (R-CNN), appendix A: "warp", with context.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = (boxes[:, 2:] - boxes[:, :2]) * (size / (size - 2 * padding))
    places = (jnp.arange(size) + 0.5) / size - 0.5
    at = centre[..., None] + side[..., None] * places  # [p 2 s]: x, y of pixel centres
    low, high = windows[:, :2, None], windows[:, 2:, None]
    inside = (at >= low) & (at <= high)
    limit = jnp.array(image.shape[1::-1])[:, None]
    first = jnp.clip(jnp.floor(low).astype(int), 0, limit - 1)
    last = jnp.clip(jnp.ceil(high).astype(int) - 1, first, limit - 1)
    # They are in order already, but what is sorted is computed once. Where a compiler
    # computes places again for each reader, rounding may part a pixel from its weight.
    at = jnp.sort(jnp.clip(at - 0.5, first, last))
    below = jnp.floor(at).astype(int)
    return jax.vmap(_crop, in_axes=(None, 0, 0, 0, 0))(
        jnp.asarray(image), below, jnp.minimum(below + 1, last), at - below, inside
    )


def _crop(image, below, above, weight, inside):
    """One crop [s s d] from the pixels below and above each place, [2 s] x and y."""
    wx, wy = weight[0][None, :, None], weight[1][:, None, None]

    def rows(y):
        # Row and column in one gather: of two in turn XLA splits the first wrongly over
        # a mesh of two axes.
        y = y[:, None]
        return image[y, below[0]] * (1 - wx) + image[y, above[0]] * wx

    crop = rows(below[1]) * (1 - wy) + rows(above[1]) * wy
    return jnp.where((inside[1][:, None] & inside[0])[..., None], crop, 0)
