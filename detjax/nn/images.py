"""Pixels into activations."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from detjax.errors import UserError
from detjax.nn.observe import IMAGES, site
from detjax.ops import boxes, masks
from detjax.types import Array, Inputs

# (mean, std) on a 0..255 scale, by the kind of weights that were trained with them:
# torchvision's, YOLACT's for ResNets (from the days of Caffe), SSD's, Darknet's, and
# Inception's and LeNet's.
STATISTICS = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "yolact": ((123.68, 116.78, 103.94), (58.40, 57.12, 57.38)),
    # torchvision's SSD, whose VGG is Caffe's: pixels less their mean.
    "caffe": ((122.99925, 116.9991, 103.9992), (1.0, 1.0, 1.0)),
    # Caffe's own, of the first per-pixel networks: FCN, HED.
    "fcn": ((122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0)),
    # To 0..1: darknet's.
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    # To -1..1: Google's networks (torchvision's `transform_input`).
    "inception": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    # CornerNet's, of COCO.
    "cornernet": (
        (119.91659, 114.03422, 104.01362),
        (70.91508, 69.89082, 73.60276),
    ),
    # To -0.1..1.175: LeNet-5's.
    "lenet": ((20.0, 20.0, 20.0), (200.0, 200.0, 200.0)),
}
# The kind whose images are floats that are normalised already.
NORMALIZED = "normalized"
Pixels = Literal[
    "imagenet",
    "yolact",
    "caffe",
    "fcn",
    "unit",
    "inception",
    "lenet",
    "cornernet",
    "normalized",
]


def normalize(images: Array, kind: str = "imagenet", dtype: Any = jnp.float32):
    """(images - mean) / std in `dtype`, or the images as they are if `NORMALIZED`.

    `images` [... 3] RGB; uint8 arrives on the device as it is and is turned into floats
    here, which is a quarter of the bytes to move.

    Raises UserError where `kind` is neither that nor a key of `STATISTICS`, and for
    float images of another kind, whose scale nobody could tell.
    """
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if kind != NORMALIZED and kind not in STATISTICS:
        raise UserError(
            f"model.pixels={kind!r} is not known; choose one of "
            f"{[*STATISTICS, NORMALIZED]}"
        )
    if floats != (kind == NORMALIZED):
        raise UserError(
            f"images are {images.dtype} and the model was made with pixels={kind!r}; "
            "give uint8 images in 0..255, or make the model with "
            f"pixels={NORMALIZED!r} for floats that are normalised already"
        )
    if floats:
        return site(IMAGES, jnp.asarray(images, dtype))
    mean, std = (jnp.asarray(s, jnp.float32) for s in STATISTICS[kind])
    return site(IMAGES, ((images.astype(jnp.float32) - mean) / std).astype(dtype))


def check_size(images: Array, smallest: int, name: str) -> None:
    """Raises UserError for images [b h w .] that the network `name` cannot classify.

    Maps of networks without padding would be empty.
    """
    h, w = images.shape[1:3]
    if min(h, w) < smallest:
        raise UserError(
            f"images are {h} x {w}; {name} classifies images of at least {smallest} x "
            f"{smallest}: give larger ones, with data.size"
        )


def windows(inputs: Inputs) -> Array:
    """The boxes [b 4] of the pictures inside their inputs: all of them, without a view.

    What is found is clipped to these, so that nothing is found in padding.
    """
    size = inputs.images.shape[1:3]
    if inputs.view is None:
        return jnp.tile(boxes.full_window(size), (inputs.images.shape[0], 1))
    window = functools.partial(boxes.window, network_size=size)
    return jax.vmap(window)(inputs.view.affine, inputs.view.sizes)


def shown(inputs: Inputs, size: tuple[int, int]) -> Array:
    """Which cells [b h w] of a grid over the inputs, `size` (h, w), show the pictures.

    Those whose centre is in no padding; all of them without a view.
    """
    h, w = inputs.images.shape[1:3]
    scale = jnp.array([size[1] / w, size[0] / h] * 2)
    around = (windows(inputs) * scale)[:, None]
    return masks.of_boxes(around, jnp.ones(around.shape[:2], bool), size)
