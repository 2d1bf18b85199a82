"""Gradients along the straight line from a baseline to an image, and their sums.

    q b    quantities of each image, images
    m      points of the line

A baseline is a normalised image, or what `jnp.broadcast_to` makes one of: 0.0 is the
mean of all pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.layers import IMAGES, Predict, Quantity
from detjax.types import Array, Inputs

Rule = Literal[
    "gausslegendre",
    "riemann_left",
    "riemann_right",
    "riemann_middle",
    "riemann_trapezoid",
]


class Quadrature(NamedTuple):
    """Points of the unit interval, and what each counts in an integral."""

    points: np.ndarray  # [m]
    weights: np.ndarray  # [m]


def quadrature(rule: Rule = "gausslegendre", steps: int = 50) -> Quadrature:
    """An integral from 0 to 1 as a sum over `steps` points.

    The trapezoid's weights sum to 1 - 1 / steps, as captum's do: its points are
    `steps`, the intervals between them one fewer, and their width is taken as 1 / steps
    nevertheless.

    Raises UserError for another rule, and fewer than 1 step (2 of the trapezoid).
    """
    if rule not in get_args(Rule):
        raise UserError(
            f"the quadrature {rule!r} is not known; choose one of "
            f"{', '.join(get_args(Rule))}"
        )
    least = 2 if rule == "riemann_trapezoid" else 1
    if steps < least:
        raise UserError(f"{rule} has {steps} steps; give {least} or more")
    if rule == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return Quadrature((1 + nodes) / 2, weights / 2)
    weights = np.full(steps, 1 / steps)
    if rule == "riemann_trapezoid":
        weights[[0, -1]] /= 2
        return Quadrature(np.linspace(0, 1, steps), weights)
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return Quadrature((np.arange(steps) + offset) / steps, weights)


def at(predict: Predict, baseline: Array | float, point: Array) -> Predict:
    """`predict` of the image that lies at `point` of the line from the baseline."""

    def between(x: Array) -> Array:
        return baseline + point * (x - baseline)

    return layers.changed(predict, {IMAGES: between})


def moved(
    predict: Predict, quantity: Quantity, layer: str, start: Array, end: Array
) -> Callable[[Any, Any, Inputs, Array], Array]:
    """(params, state, inputs, point) -> gradients [q b ...] of `layer`.

    They are those where the layer returns `start` + `point` (`end` - `start`).
    """

    def call(params: Any, state: Any, inputs: Inputs, point: Array) -> Array:
        there = layers.changed(
            predict, {layer: lambda _: start + point * (end - start)}
        )
        found = layers.slopes(there, [layer], quantity)(params, state, inputs)
        return found.gradients[layer]

    return call


def integrated(
    predict: Predict,
    quantity: Quantity,
    layer: str = IMAGES,
    rule: Rule = "gausslegendre",
    steps: int = 50,
    chunk: int = 1,
) -> Callable[..., Array]:
    """Integrated gradients of a layer (Sundararajan et al. 2017, eq. 1).

    (params, state, inputs, baseline=0.0) -> [q b ...]: what the layer's values owe to
    their distance from those of the baseline, on the straight line between them. Of an
    exact integral the sum is the difference of the quantities. Gradients of `chunk`
    points are computed at a time.
    """
    line = quadrature(rule, steps)

    def call(
        params: Any, state: Any, inputs: Inputs, baseline: Array | float = 0.0
    ) -> Array:
        look = layers.seen(predict, [layer])
        end = look(params, state, inputs)[1][layer]
        if layer == IMAGES:
            start = jnp.broadcast_to(jnp.asarray(baseline, end.dtype), end.shape)
        else:
            from_it = layers.changed(predict, {IMAGES: lambda _: baseline})
            look = layers.seen(from_it, [layer])
            start = look(params, state, inputs)[1][layer]
        gradients = moved(predict, quantity, layer, start, end)
        mean = weighted(
            lambda point: gradients(params, state, inputs, point), line, chunk
        )
        return mean * (end - start)

    return call


def weighted(each: Callable[[Array], Array], line: Quadrature, chunk: int = 1) -> Array:
    """The sum of `each`(point) times the point's weight, float32.

    `chunk` points at a time, so that memory does not grow with their number.
    """
    points, weights = (jnp.asarray(x, jnp.float32) for x in line)
    count = -(-len(points) // chunk) * chunk
    # Points that fill up the last chunk count nothing.
    points = jnp.pad(points, (0, count - len(points)), mode="edge").reshape(-1, chunk)
    weights = jnp.pad(weights, (0, count - len(weights))).reshape(-1, chunk)

    def add(total: Array, some: tuple[Array, Array]) -> tuple[Array, None]:
        if chunk == 1:
            return total + some[1][0] * each(some[0][0]), None
        return total + jnp.tensordot(some[1], jax.vmap(each)(some[0]), 1), None

    shape = jax.eval_shape(each, points[0, 0])
    total, _ = jax.lax.scan(add, jnp.zeros(shape.shape), (points, weights))
    return total


def along(
    predict: Predict, names: Sequence[str], quantity: Quantity, line: Quadrature
) -> Callable[..., layers.Slopes]:
    """(params, state, inputs, baseline=0.0) -> `Slopes` at every point [m ...].

    All of them are held at once: what is only summed up goes through `weighted`.
    """

    def call(
        params: Any, state: Any, inputs: Inputs, baseline: Array | float = 0.0
    ) -> layers.Slopes:
        def each(point: Array) -> layers.Slopes:
            there = at(predict, baseline, point)
            return layers.slopes(there, names, quantity)(params, state, inputs)

        return jax.lax.map(each, jnp.asarray(line.points, jnp.float32))

    return call
