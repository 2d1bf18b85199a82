"""Occlusion: how quantities fall where a window of the image is covered.

Zeiler and Fergus 2014, section 4.1.

    q b    quantities of each image, images
    h w c  rows, columns and channels of the normalised image
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.layers import IMAGES, Predict, Quantity
from detjax.types import Array, Inputs

Window = tuple[int, int] | tuple[int, int, int]


def occlusion(
    predict: Predict,
    quantity: Quantity,
    window: Window,
    stride: Window,
    baseline: Array | float = 0.0,
    chunk: int = 4,
) -> Callable[[Any, Any, Inputs], Array]:
    """(params, state, inputs) -> the mean fall of quantities [q b h w c].

    Windows of `window` (h, w) or (h, w, c), all channels without c, begin at the first
    place and go on by `stride` until one reaches the border, which cuts it (captum's
    rule). What a window covers is replaced by the `baseline`, a normalised image or a
    number. A place gets the mean of quantity(image) - quantity(covered) over the
    windows that cover it. `chunk` windows are looked at at a time.

    Raises UserError for strides beyond their windows, which would leave places out.
    """
    for side, step in zip(window, stride, strict=True):
        if not 0 < step <= side:
            raise UserError(
                f"windows of {window} with strides of {stride} leave places out; give "
                "strides of at least 1 and at most the window's"
            )

    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        *_, h, w, c = layers.find(predict, params, state, inputs, IMAGES).shape
        sides, steps = ((*x, c)[:3] for x in (window, stride))
        axes = [covers(*each) for each in zip((h, w, c), sides, steps, strict=True)]
        rows, columns, channels = (jnp.asarray(x, jnp.float32) for x in axes)
        shape = tuple(len(x) for x in axes)
        places = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)

        def each(place: Array) -> Array:
            y, x, z = place
            over = (
                rows[y][:, None, None]
                * columns[x][None, :, None]
                * channels[z][None, None, :]
            )
            hidden = layers.changed(
                predict, {IMAGES: lambda image: jnp.where(over > 0, baseline, image)}
            )
            return quantity(hidden(params, state, inputs))

        whole = quantity(predict(params, state, inputs))
        found = jax.lax.map(each, jnp.asarray(places), batch_size=chunk)  # [n b q]
        falls = (whole - found).reshape(*shape, *whole.shape)
        total = jnp.einsum(
            "yxzbq,yh,xw,zc->qbhwc",
            falls,
            rows,
            columns,
            channels,
            precision=jax.lax.Precision.HIGHEST,
        )
        times = (x.sum(axis=0) for x in (rows, columns, channels))
        return total / jnp.einsum("h,w,c->hwc", *times)

    return call


def covers(length: int, side: int, step: int) -> np.ndarray:
    """Which places each window covers, [n `length`] bool."""
    count = 1 + max(-(-(length - side) // step), 0)
    starts = step * np.arange(count)[:, None]
    places = np.arange(length)
    return (places >= starts) & (places < starts + side)
