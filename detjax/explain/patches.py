"""The patches of a data set to which units of a layer answer most.

    b        images of a batch
    u        units: channels of a layer
    k        patches that are kept of each unit, of as many images

Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014, section
4.1; Zhou et al., "Object detectors emerge in deep scene CNNs", 2015. However large the
data set is, no more than the k best of each unit are held.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from detjax.errors import UserError
from detjax.explain import layers
from detjax.types import Array, Inputs


@struct.dataclass
class Patches:
    """The best places of each unit, by falling answer."""

    answers: Array  # [u k] float32; -inf where there were fewer images
    images: Array  # [u k] int32: numbers of images, -1 where there were fewer
    places: Array  # [u k 2] int32: row and column in the layer's map


def nothing(units: int, count: int) -> Patches:
    """The patches of no image."""
    return Patches(
        jnp.full((units, count), -jnp.inf),
        jnp.full((units, count), -1, jnp.int32),
        jnp.zeros((units, count, 2), jnp.int32),
    )


def strongest(
    predict: layers.Predict, layer: str
) -> Callable[[Any, Any, Inputs, Array, Array, Patches], Patches]:
    """(params, state, inputs, units [u], numbers [b], held) -> `Patches`.

    held: those of the images before. numbers: of the images in the data set; -1 of
    rows that are none. An image has one place for each unit, the best. To be jitted
    once and called with every batch.
    """
    watched = layers.seen(predict, [layer])

    def call(
        params: Any, state: Any, inputs: Inputs, units: Array, numbers: Array, held: Any
    ) -> Patches:
        _, found = watched(params, state, inputs)
        x = found[layer].astype(jnp.float32)[..., units]
        if x.ndim not in (2, 4) or len(x) != len(numbers):
            raise UserError(
                f"the layer {layer!r} returns {found[layer].shape} of {len(numbers)} "
                "images and no map of channels of each; choose another"
            )
        width = x.shape[2] if x.ndim == 4 else 1
        x = x.reshape(len(x), -1, len(units))
        best, at = x.max(axis=1).T, x.argmax(axis=1).T  # [u b]
        best = jnp.where(numbers >= 0, best, -jnp.inf)
        new = Patches(
            best,
            jnp.where(numbers >= 0, jnp.broadcast_to(numbers, best.shape), -1),
            jnp.stack([at // width, at % width], axis=-1),
        )
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), held, new)
        answers, order = jax.lax.top_k(both.answers, held.answers.shape[1])
        return Patches(
            answers,
            jnp.take_along_axis(both.images, order, axis=1),
            jnp.take_along_axis(both.places, order[..., None], axis=1),
        )

    return call


def receptive(
    predict: layers.Predict, layer: str, size: tuple[int, int]
) -> Callable[[Any, Any, Inputs, Array], Array]:
    """(params, state, inputs, place [2]) -> the box [4] of the input that a place sees.

    xyxy pixels of the input, of the first image: where the gradient of any channel at
    `place` of the layer's map (`size` rows and columns) is not zero. The images should
    be noise, under which few gradients are zero by chance. Networks that pool the whole
    map see everything.
    """

    def call(params: Any, state: Any, inputs: Inputs, place: Array) -> Array:
        def measured(answers: tuple[Any, dict[str, Array]]) -> Array:
            x = answers[1][layer].astype(jnp.float32)
            x = x.reshape(len(x), *size, -1)[:, place[0], place[1]]
            # Squares, so that channels do not cancel each other.
            return (x**2).sum(axis=-1)[:, None]

        seen = layers.seen(predict, [layer])
        slopes = layers.slopes(seen, [layers.IMAGES], measured)
        found = slopes(params, state, inputs).gradients[layers.IMAGES][0, 0]
        hit = (found != 0).any(axis=-1)
        rows, columns = hit.any(axis=1), hit.any(axis=0)
        h, w = hit.shape
        return jnp.array(
            [
                jnp.argmax(columns),
                jnp.argmax(rows),
                w - jnp.argmax(columns[::-1]),
                h - jnp.argmax(rows[::-1]),
            ]
        )

    return call
