"""Maps at the size of the network's input, and what of it is picture."""

import jax
import jax.numpy as jnp

from detjax.ops import resize
from detjax.types import Array, Batch


def enlarged(x: Array, size: tuple[int, int], corners: bool = False) -> jax.Array:
    """Maps [b oh ow k] at `size` (h, w), float32; see `ops.resize.bilinear`."""
    x = x.astype(jnp.float32)
    if x.shape[1:3] == size:
        return x
    return jax.vmap(lambda one: resize.bilinear(one, size, corners))(x)


def without_padding(valid: Array, batch: Batch) -> Array:
    """`valid` [b h w] of the images that do not just fill up the batch."""
    return valid & batch.inputs.view.valid[:, None, None]
