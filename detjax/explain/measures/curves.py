"""Insertion and deletion: how a quantity goes with the pixels that a map puts first.

Petsiuk et al. 2018 (RISE), section 4.2.

    b    images
    s    steps: parts of the pixels that are there, or gone
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from detjax.explain import layers
from detjax.explain.layers import IMAGES, Predict, Quantity
from detjax.types import Array, Inputs


class Curves(NamedTuple):
    """The first quantity of images with 0, 1/s .. all of their pixels, s + 1 each."""

    insertion: Array  # [b s+1]: into a blurred image; high areas are good
    deletion: Array  # [b s+1]: put to zero, the mean of pixels; low areas are good

    def areas(self) -> tuple[Array, Array]:
        """The areas [b] under both curves, of which the abscissa is 0 to 1."""
        return area(self.insertion), area(self.deletion)


def area(curves: Array) -> Array:
    """The area [...] under `curves` [... s+1] by trapezoids."""
    return (curves[..., 1:] + curves[..., :-1]).mean(axis=-1) / 2


def curves(
    predict: Predict,
    quantity: Quantity,
    steps: int = 32,
    sigma: float = 5.0,
    chunk: int = 4,
) -> Callable[[Any, Any, Inputs, Array], Curves]:
    """(params, state, inputs, maps [b h w]) -> `Curves`.

    Pixels go by falling value of the map, in `steps` parts of equal number; equal ones
    from the upper left. Only the quantity's first column counts. Images of `chunk`
    steps are looked at at a time.

    sigma: deviation of the blur, in pixels of the network's input. The paper has 5 at
        224, which hides textures; what is told by its outline needs more.
    """

    def call(params: Any, state: Any, inputs: Inputs, maps: Array) -> Curves:
        look = layers.seen(predict, [IMAGES])
        images = look(params, state, inputs)[1][IMAGES]
        early = places(maps)[..., None]  # [b h w 1], between 0 and 1
        blurred = blur(images, sigma)

        def measured(shown: Array) -> Array:
            there = layers.changed(predict, {IMAGES: lambda _: shown})
            return quantity(there(params, state, inputs))[:, 0]

        def each(part: Array) -> tuple[Array, Array]:
            first = early < part
            with_them = jnp.where(first, images, blurred)
            without = jnp.where(first, 0.0, images)
            return measured(with_them), measured(without)

        parts = jnp.linspace(0.0, 1.0, steps + 1)
        inserted, deleted = jax.lax.map(each, parts, batch_size=chunk)
        return Curves(inserted.T, deleted.T)

    return call


def places(maps: Array) -> Array:
    """The part [b h w] of the pixels that comes before each by falling value."""
    flat = maps.reshape(len(maps), -1)
    order = jnp.argsort(-flat, axis=1, stable=True)
    rank = jnp.argsort(order, axis=1, stable=True)
    return (rank / flat.shape[1]).reshape(maps.shape)


def blur(images: Array, sigma: float) -> Array:
    """`images` [b h w c] under a Gaussian of deviation `sigma` pixels.

    Edge pixels go on beyond the border; the Gaussian ends at 3 deviations. Of a
    deviation of 0 they are as they were.
    """
    if sigma == 0:
        return images
    reach = max(int(3 * sigma + 0.5), 1)
    kernel = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (reach, reach)
        padded = jnp.moveaxis(jnp.pad(images, pad, mode="edge"), axis, -1)
        flat = padded.reshape(-1, 1, padded.shape[-1])
        found = jax.lax.conv_general_dilated(
            flat,
            kernel[None, None].astype(flat.dtype),
            (1,),
            "VALID",
            precision=jax.lax.Precision.HIGHEST,
        )
        images = jnp.moveaxis(found.reshape(*padded.shape[:-1], -1), -1, axis)
    return images
