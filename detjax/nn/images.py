"""Pixels into activations."""

from typing import Any

import jax.numpy as jnp

from detjax.types import Array

# ImageNet's, on a 0..255 scale. The second pair is the Caffe-era one that YOLACT uses.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
YOLACT = ((123.68, 116.78, 103.94), (58.40, 57.12, 57.38))


def normalize(images: Array, statistics=IMAGENET, dtype: Any = jnp.float32):
    """(images - mean) / std in `dtype`; float images pass, they are normalised already.

    `images` [... 3] RGB; uint8 arrives on the device as it is and is turned into floats
    here, which is a quarter of the bytes to move.
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return jnp.asarray(images, dtype)
    mean, std = (jnp.asarray(s, jnp.float32) for s in statistics)
    return ((images.astype(jnp.float32) - mean) / std).astype(dtype)
