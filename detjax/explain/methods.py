"""The methods that can be compared: maps as large as the network's input, by name.

q b h w    quantities, images, rows and columns of the network's input
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from detjax.explain import attribution, cam, layers, occlusion, paths, rectified
from detjax.explain.attribution import Attribution
from detjax.explain.layers import IMAGES, Predict, Quantity
from detjax.types import Array, Inputs

# (predict, quantity) -> (params, state, inputs) -> maps [q b h w]
Method = Callable[[Predict, Quantity], Attribution]
# Copies of SmoothGrad, and steps of integrated gradients.
COPIES, STEPS = 16, 25
# Windows of occlusion along a side of the input.
WINDOWS = 8


def signed(found: Attribution) -> Attribution:
    """The sum over channels: positive where it is for a quantity, else against it."""
    return lambda *args: found(*args).sum(axis=-1)


def largest(found: Attribution) -> Attribution:
    """The largest magnitude of the channels (Simonyan et al. 2013, section 3.1).

    The gradient of a pixel has no sign that says for or against.
    """
    return lambda *args: jnp.abs(found(*args)).max(axis=-1)


def _gradient(predict: Predict, quantity: Quantity) -> Attribution:
    return largest(attribution.gradient(predict, quantity))


def _times_input(predict: Predict, quantity: Quantity) -> Attribution:
    return signed(attribution.times_input(predict, quantity))


def _integrated(predict: Predict, quantity: Quantity) -> Attribution:
    return signed(paths.integrated(predict, quantity, steps=STEPS))


def _smooth(predict: Predict, quantity: Quantity) -> Attribution:
    moments = attribution.smoothed(predict, quantity)

    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        images = layers.seen(predict, [IMAGES])(params, state, inputs)[1][IMAGES]
        noise = attribution.drawn(jax.random.key(0), COPIES, images)
        return moments(params, state, inputs, noise).mean

    return largest(call)


def _guided(predict: Predict, quantity: Quantity) -> Attribution:
    return largest(attribution.gradient(predict, quantity, through=rectified.guided))


def _deconvnet(predict: Predict, quantity: Quantity) -> Attribution:
    return largest(attribution.gradient(predict, quantity, through=rectified.deconvnet))


def _occlusion(predict: Predict, quantity: Quantity) -> Attribution:
    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        h, w = inputs.images.shape[1:3]
        window = max(2 * h // WINDOWS, 1), max(2 * w // WINDOWS, 1)
        stride = max(h // WINDOWS, 1), max(w // WINDOWS, 1)
        covered = occlusion.occlusion(predict, quantity, window, stride, chunk=1)
        return covered(params, state, inputs)

    # Channels are covered together: each has the same.
    return lambda *args: call(*args).mean(axis=-1)


def _mapped(method: str) -> Method:
    """A class activation map of the layers that are the usual ones."""

    def of(predict: Predict, quantity: Quantity) -> Attribution:
        def call(params: Any, state: Any, inputs: Inputs) -> Array:
            known = layers.shapes(predict, params, state, inputs)
            h, w = inputs.images.shape[1:3]
            kind = cam.gradients.METHODS[method]
            maps = cam.gradients.maps(predict, cam.usual(known, (h, w)), quantity, kind)
            return maps(params, state, inputs).maps.swapaxes(0, 1)

        return call

    return of


def _edges(predict: Predict, quantity: Quantity) -> Attribution:
    """How fast pixels change: what knows nothing of the network, to compare with."""
    look = layers.seen(predict, [IMAGES])

    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        answers, held = look(params, state, inputs)
        y, x = jnp.gradient(held[IMAGES].astype(jnp.float32).mean(axis=-1), axis=(1, 2))
        found = jnp.sqrt(y**2 + x**2)
        return jnp.broadcast_to(found, (quantity(answers).shape[1], *found.shape))

    return call


def _noise(predict: Predict, quantity: Quantity) -> Attribution:
    """A map of chance, to compare with."""

    def call(params: Any, state: Any, inputs: Inputs) -> Array:
        q = quantity(predict(params, state, inputs)).shape[1]
        shape = q, *inputs.images.shape[:3]
        return jax.random.uniform(jax.random.key(0), shape)

    return call


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "gradient": _gradient,
        "gradient_x_input": _times_input,
        "integrated_gradients": _integrated,
        "smoothgrad": _smooth,
        "guided_backprop": _guided,
        "deconvnet": _deconvnet,
        "occlusion": _occlusion,
        **{name: _mapped(name) for name in cam.gradients.METHODS},
        "edges": _edges,
        "chance": _noise,
    }
)
