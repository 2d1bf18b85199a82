"""Attributions by gradients: what each input, or a unit within, adds to a quantity.

    q b    quantities of each image, images
    s      noisy copies of an image

Every function takes the name of a layer: `layers.IMAGES` attributes to pixels, another
one to the units of that layer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from detjax.explain import layers
from detjax.explain.layers import IMAGES, Predict, Quantity
from detjax.types import Array, Inputs

# (params, state, inputs) -> [q b ...], of the layer's shape
Attribution = Callable[[Any, Any, Inputs], Array]
Through = Callable[[Callable[..., Any]], Callable[..., Any]]


def gradient(
    predict: Predict,
    quantity: Quantity,
    layer: str = IMAGES,
    through: Through | None = None,
) -> Attribution:
    """The gradient of each quantity (saliency: Simonyan et al. 2013).

    `through` as in `layers.slopes`: `rectified.guided` and `rectified.deconvnet` make
    guided backpropagation and the deconvnet of it.
    """
    known = layers.slopes(predict, [layer], quantity, through=through)

    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        return known(params, state, inputs).gradients[layer]

    return call


def times_input(
    predict: Predict, quantity: Quantity, layer: str = IMAGES
) -> Attribution:
    """The gradient times what the layer holds (Shrikumar et al. 2016)."""
    known = layers.slopes(predict, [layer], quantity)

    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        found = known(params, state, inputs)
        return found.gradients[layer] * found.values[layer]

    return call


def grad_cam(predict: Predict, quantity: Quantity, layer: str) -> Attribution:
    """The layer's maps [q b h w], weighted by their mean gradients, without ReLU.

    Selvaraju et al. 2017, eq. 2 before its ReLU.
    """
    known = layers.slopes(predict, [layer], quantity)

    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        found = known(params, state, inputs)
        weights = found.gradients[layer].mean(axis=(-3, -2), keepdims=True)
        return jnp.sum(weights * found.values[layer], axis=-1)

    return call


class Smoothed(NamedTuple):
    """Moments of the gradients of noisy copies, each of the layer's shape."""

    mean: Array  # SmoothGrad (Smilkov et al. 2017)
    absolute: Array  # the mean of magnitudes
    squared: Array  # SmoothGrad squared (Hooker et al. 2019)
    variance: Array  # VarGrad (Adebayo et al. 2018)


def smoothed(
    predict: Predict,
    quantity: Quantity,
    layer: str = IMAGES,
    attribution: Callable[..., Attribution] = gradient,
) -> Callable[[Any, Any, Inputs, Array], Smoothed]:
    """(params, state, inputs, noise) -> moments of the gradients [q b ...].

    noise: [s b h w 3], added to the normalised images; see `drawn`. Copies follow each
    other, so that memory does not grow with their number.
    attribution: what is computed of each copy, in place of the gradient.
    """

    def call(params: Any, state: Any, inputs: Inputs, noise: Array) -> Smoothed:
        def each(noise: Array) -> Array:
            noisy = layers.changed(predict, {IMAGES: lambda x: x + noise})
            return attribution(noisy, quantity, layer)(params, state, inputs)

        shape = jax.eval_shape(each, noise[0])
        zeros = jnp.zeros(shape.shape, jnp.float32)

        # Welford's sums: a variance far below the squared mean is not lost.
        def add(sums: tuple[Array, ...], given: tuple[Array, Array]) -> Any:
            (mean, absolute, apart), (n, noise) = sums, given
            found = each(noise).astype(jnp.float32)
            middle = mean + (found - mean) / n
            apart = apart + (found - mean) * (found - middle)
            return (middle, absolute + jnp.abs(found), apart), None

        numbers = jnp.arange(1, len(noise) + 1, dtype=jnp.float32)
        sums, _ = jax.lax.scan(add, (zeros,) * 3, (numbers, noise))
        mean, absolute, apart = sums[0], sums[1] / len(noise), sums[2] / len(noise)
        return Smoothed(mean, absolute, apart + mean**2, apart)

    return call


def drawn(key: jax.Array, count: int, images: Array, share: float = 0.15) -> jax.Array:
    """Noise [s b h w 3] for `count` copies of normalised `images` [b h w 3].

    Its deviation is `share` of the range of each image's values (Smilkov et al.,
    section 3.2).
    """
    images = jnp.asarray(images, jnp.float32)
    span = jnp.ptp(images.reshape(len(images), -1), axis=1)
    shape = (count, *images.shape)
    return share * span[:, None, None, None] * jax.random.normal(key, shape)
