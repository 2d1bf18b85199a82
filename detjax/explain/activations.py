"""What layers return, as pictures: channels of a map, and kernels of the first layer.

h, w     height and width of a layer's map
c        its channels
"""

import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain.pictures import grid
from detjax.types import Array

GAP = 1  # pixels between tiles
SHARE = 0.995  # of values that are not brighter than the brightest colour
SIDE = 96  # pixels of the longer side of a tile, at least


def maps_of(x: Array, name: str) -> Array:
    """One image's map [h w c] of what a layer returns of it: [h w c] or [c].

    Vectors are maps of one place. Raises UserError for anything else.
    """
    if x.ndim == 1:
        return x[None, None]
    if x.ndim != 3:
        raise UserError(
            f"the layer {name!r} returns {tuple(x.shape)} of an image and no map of "
            "channels; choose another"
        )
    return x


def busiest(x: Array, count: int) -> tuple[Array, Array]:
    """The `count` channels of [h w c] with the largest mean magnitude, and these."""
    busy = jnp.abs(x.astype(jnp.float32)).mean(axis=(0, 1))
    order = jnp.argsort(-busy)[:count]
    return order, busy[order]


def channels(x: np.ndarray, which: np.ndarray) -> list[np.ndarray]:
    """Channels `which` of [h w c] as pictures [h w 3] uint8 on one scale.

    Black is 0, and the brightest what one value in 200 exceeds: a few large ones, as
    at borders, leave the rest visible. Of maps with negative values red is above, blue
    below.
    """
    chosen = np.asarray(x, np.float32)[..., which]
    # The largest of few values.
    top = np.quantile(np.abs(chosen), SHARE, method="higher") or 1.0
    part = np.clip(chosen / top, -1, 1)
    if (chosen < 0).any():
        panes = np.stack([np.maximum(part, 0), 0 * part, np.maximum(-part, 0)], -1)
    else:
        panes = np.repeat(part[..., None], 3, axis=-1)
    return [*np.round(255 * panes).astype(np.uint8).transpose(2, 0, 1, 3)]


def sheet(x: np.ndarray, which: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Channels `which` of [h w c] in rows, each under its number, uint8."""
    columns = max(int(np.ceil(np.sqrt(1.5 * len(which)))), 1)
    return grid(channels(x, which), [str(i) for i in which], columns, side)


def filters(kernel: np.ndarray) -> np.ndarray:
    """Kernels [kh kw 3 o] of colours as pictures [o kh kw 3] uint8.

    Grey is 0; each is scaled by its largest weight.

    Raises UserError for kernels of something else than three colours.
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.ndim != 4 or kernel.shape[2] != 3:
        raise UserError(
            f"the kernel is {kernel.shape}; filters are drawn of layers that see "
            "colours, [height, width, 3, channels]"
        )
    each = kernel.transpose(3, 0, 1, 2)
    top = np.abs(each).max(axis=(1, 2, 3), keepdims=True)
    scaled = 127.5 + 127.5 * each / np.where(top > 0, top, 1)
    return np.round(scaled).astype(np.uint8)
