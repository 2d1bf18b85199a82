"""Modulated deformable convolution (Zhu et al., CVPR 2019, "DCNv2") in plain XLA.

Every tap of the kernel reads its input where an offset moves it to, bilinearly, and
weighs what it reads. It is a gather and a matrix product; nothing is compiled by hand.
"""

import jax.numpy as jnp
from jaxtyping import Float

from detjax.types import Array


def conv(
    x: Float[Array, "h w c"],
    offsets: Float[Array, "oh ow k 2"],
    weights: Float[Array, "oh ow k"],
    kernel: Float[Array, "kh kw c o"],
    *,
    stride: int = 1,
    padding: int = 1,
) -> Float[Array, "oh ow o"]:
    """The convolution of one image whose k = kh * kw taps are displaced and weighed.

    `offsets` are (dy, dx) in input pixels, added to each tap's regular place; outside
    the image there are zeros. Offsets of 0 and weights of 1 give an ordinary
    convolution. Taps are counted along the kernel's rows.
    """
    kh, kw, c, o = kernel.shape
    oh, ow = offsets.shape[:2]
    ky, kx = jnp.divmod(jnp.arange(kh * kw), kw)
    y = (jnp.arange(oh) * stride - padding)[:, None, None] + ky + offsets[..., 0]
    x_ = (jnp.arange(ow) * stride - padding)[None, :, None] + kx + offsets[..., 1]
    read = sample(x, y, x_) * weights[..., None]
    return jnp.einsum("ijkc,kco->ijo", read, kernel.reshape(kh * kw, c, o))


def sample(
    x: Float[Array, "h w c"],
    rows: Float[Array, "*at"],
    columns: Float[Array, "*at"],
) -> Float[Array, "*at c"]:
    """`x` read bilinearly at pixel centres (row, column); zeros lie around it."""
    h, w, c = x.shape
    flat = x.reshape(h * w, c)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = rows - top, columns - left
    total = jnp.zeros((*rows.shape, c), x.dtype)
    for dy, row_weight in ((0, 1 - down), (1, down)):
        for dx, column_weight in ((0, 1 - right), (1, right)):
            i, j = top + dy, left + dx
            inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
            # Clipped, since an index far outside may not fit an integer.
            i = jnp.clip(i, 0, h - 1).astype(jnp.int32)
            j = jnp.clip(j, 0, w - 1).astype(jnp.int32)
            weight = jnp.where(inside, row_weight * column_weight, 0)
            total = total + flat[i * w + j] * weight[..., None].astype(x.dtype)
    return total
