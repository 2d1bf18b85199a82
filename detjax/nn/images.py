"""Pixels into activations."""

from typing import Any

import jax.numpy as jnp

from detjax.types import Array

# (mean, std) on a 0..255 scale, by the kind of weights that were trained with them:
# torchvision's, YOLACT's for ResNets (from the days of Caffe), Darknet's.
STATISTICS = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "yolact": ((123.68, 116.78, 103.94), (58.40, 57.12, 57.38)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
}


def normalize(images: Array, kind: str = "imagenet", dtype: Any = jnp.float32):
    """(images - mean) / std in `dtype`; float images pass, they are normalised already.

    `kind` is a key of `STATISTICS`, else there is a ValueError.
    `images` [... 3] RGB; uint8 arrives on the device as it is and is turned into floats
    here, which is a quarter of the bytes to move.
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return jnp.asarray(images, dtype)
    if kind not in STATISTICS:
        raise ValueError(f"pixels={kind!r} is not known; choose one of {[*STATISTICS]}")
    mean, std = (jnp.asarray(s, jnp.float32) for s in STATISTICS[kind])
    return ((images.astype(jnp.float32) - mean) / std).astype(dtype)
