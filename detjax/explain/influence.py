"""Influence of what lies within a network on what it answers.

Leino et al. 2018, "Influence-directed explanations for deep convolutional networks".
Three choices make one: a slice, the name of a layer; a quantity of interest, a function
of the answers; a distribution of interest, which images, or a line between images.

    q b    quantities of each image, images
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain import layers, paths
from detjax.explain.attribution import Attribution, gradient
from detjax.explain.layers import IMAGES, Predict, Quantity
from detjax.types import Array, Inputs


def difference(quantity: Quantity) -> Quantity:
    """The first of two quantities less the second, [b 1]: why this and not that."""

    def call(answers: Any) -> Array:
        found = quantity(answers)
        if found.shape[-1] != 2:
            raise UserError(
                f"a difference is of 2 quantities, and there are {found.shape[-1]}; "
                "give two classes"
            )
        return found[:, :1] - found[:, 1:]

    return call


def internal(
    predict: Predict,
    quantity: Quantity,
    layer: str,
    rule: paths.Rule = "gausslegendre",
    steps: int = 50,
    chunk: int = 1,
) -> Callable[..., Array]:
    """Internal influence [q b ...] with images of the line from a baseline.

    (params, state, inputs, baseline=0.0) -> the mean gradient of `layer` over the line
    (Leino et al. eq. 1), with nothing multiplied. Of one image it is
    `attribution.gradient`, of many `over`.
    """
    line = paths.quadrature(rule, steps)

    def call(
        params: Any, state: Any, inputs: Inputs, baseline: Array | float = 0.0
    ) -> Array:
        def each(point: Array) -> Array:
            there = paths.at(predict, baseline, point)
            return gradient(there, quantity, layer)(params, state, inputs)

        return paths.weighted(each, line, chunk)

    return call


def conductance(
    predict: Predict,
    quantity: Quantity,
    layer: str,
    rule: paths.Rule = "gausslegendre",
    steps: int = 50,
) -> Callable[..., Array]:
    """Conductance [q b ...] of a layer's units (Dhamdhere et al. 2018, eq. 2).

    (params, state, inputs, baseline=0.0) -> what flows through each unit on the line
    from the baseline to the image: the sum over the `steps` intervals between the
    rule's `steps` + 1 points of the gradient at the first end times the change of the
    unit. The rule's weights are not used, as in captum, so that the intervals are those
    of its points.
    """
    line = paths.quadrature(rule, steps + 1)

    def call(
        params: Any, state: Any, inputs: Inputs, baseline: Array | float = 0.0
    ) -> Array:
        def each(point: Array) -> layers.Slopes:
            there = paths.at(predict, baseline, point)
            return layers.slopes(there, [layer], quantity)(params, state, inputs)

        def add(held: tuple[Array, ...], point: Array) -> tuple[Any, None]:
            total, value, slope = held
            found = each(point)
            here = found.values[layer].astype(jnp.float32)
            total = total + slope * (here - value)
            return (total, here, found.gradients[layer].astype(jnp.float32)), None

        points = jnp.asarray(line.points, jnp.float32)
        first = each(points[0])
        start = (
            first.values[layer].astype(jnp.float32),
            first.gradients[layer].astype(jnp.float32),
        )
        zeros = jnp.zeros(start[1].shape)
        (total, *_), _ = jax.lax.scan(add, (zeros, *start), points[1:])
        return total

    return call


def unit(layer: str, place: Sequence[Any]) -> Quantity:
    """The unit of `layer` at `place`, [b 1], of what `layers.seen` returns.

    place: as arrays are indexed without the axis of images: (y, x, channel) of a map.
    """

    def call(answers: tuple[Any, dict[str, Array]]) -> Array:
        return answers[1][layer][(slice(None), *place)].astype(jnp.float32)[:, None]

    return call


def of_unit(
    predict: Predict, layer: str, place: Sequence[Any], through: Any = None
) -> Attribution:
    """The gradient [1 b h w 3] of a unit to pixels; see `unit`."""
    return gradient(layers.seen(predict, [layer]), unit(layer, place), IMAGES, through)


def through_unit(
    predict: Predict,
    quantity: Quantity,
    layer: str,
    place: Sequence[Any],
    rule: paths.Rule = "riemann_trapezoid",
    steps: int = 50,
    chunk: int = 1,
) -> Callable[..., Array]:
    """What quantities owe to pixels through one unit, [q b h w 3] (eq. 3 of the same).

    (params, state, inputs, baseline=0.0) -> the integral over the line of the
    quantity's slope by the unit times the unit's slope by pixels, times the distance
    of the image from the baseline.
    """
    line = paths.quadrature(rule, steps)

    def call(
        params: Any, state: Any, inputs: Inputs, baseline: Array | float = 0.0
    ) -> Array:
        def each(point: Array) -> Array:
            there = paths.at(predict, baseline, point)
            by_unit = gradient(there, quantity, layer)(params, state, inputs)
            by_unit = by_unit[(slice(None), slice(None), *place)]
            by_pixels = of_unit(there, layer, place)(params, state, inputs)
            return by_unit[..., None, None, None] * by_pixels

        mean = paths.weighted(each, line, chunk)
        look = layers.seen(predict, [IMAGES])
        images = look(params, state, inputs)[1][IMAGES]
        return mean * (images - baseline)

    return call


def over(
    attribution: Attribution, params: Any, state: Any, batches: Iterable[Inputs]
) -> np.ndarray:
    """The mean of `attribution` [q ...] over all images of `batches`.

    The distribution of interest of a class is its images. Images that only fill up a
    batch count nothing. Raises UserError without an image.
    """

    @jax.jit
    def summed(params: Any, state: Any, inputs: Inputs) -> tuple[Array, Array]:
        found = attribution(params, state, inputs)
        real = jnp.ones(found.shape[1], bool)
        if inputs.view is not None:
            real = jnp.asarray(inputs.view.valid)
        shaped = real.reshape(-1, *[1] * (found.ndim - 2))
        return jnp.where(shaped, found, 0).sum(axis=1), real.sum()

    total: Any = 0.0
    number = 0
    for inputs in batches:
        found, count = jax.device_get(summed(params, state, inputs))
        total, number = total + np.asarray(found, np.float64), number + int(count)
    if not number:
        raise UserError("there is no image to explain; choose another class or split")
    return np.asarray(total / number)
