"""What a picture is climbed for: a channel or neuron of a layer, or a score.

    b    pictures, one a unit
    u    units

A goal is a small function of the answers and of what layers return; goals are added
by `mixed`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from detjax.errors import UserError
from detjax.explain import layers
from detjax.types import Array, Inputs

Where = Literal["mean", "centre"]


class Goal(NamedTuple):
    """An amount of each picture, and the layers that it is read from."""

    layers: tuple[str, ...]
    # (answers, {layer: what it returns}, units [b]) -> amounts [b]
    amount: Callable[[Any, Mapping[str, Array], Array], Array]


def channel(layer: str, where: Where = "mean") -> Goal:
    """A unit of `layer`: the mean of its map, or its value in the centre.

    The first paints the texture that a channel answers to, the second one object.
    """

    def amount(answers: Any, held: Mapping[str, Array], units: Array) -> Array:
        return chosen(held[layer], units, where)

    return Goal((layer,), amount)


def score(quantity: Callable[..., Array]) -> Goal:
    """The score of a class: `quantity` (answers, labels [b 1]) -> [b 1]."""

    def amount(answers: Any, held: Mapping[str, Array], units: Array) -> Array:
        return quantity(answers, units[:, None])[:, 0]

    return Goal((), amount)


def energy(layer: str) -> Goal:
    """The mean square of all that `layer` returns (Mordvintsev et al. 2015)."""

    def amount(answers: Any, held: Mapping[str, Array], units: Array) -> Array:
        x = held[layer].astype(jnp.float32)
        return jnp.mean(x**2, axis=tuple(range(1, x.ndim))) / 2

    return Goal((layer,), amount)


def guided(layer: str, features: Array) -> Goal:
    """What a second picture has: at each place the most like of its features.

    features: [... c] of what `layer` returns of it. The mean over places of the largest
    inner product with any of them (Mordvintsev et al. 2015, "guided dreams").
    """
    others = jnp.asarray(features, jnp.float32).reshape(-1, features.shape[-1])

    def amount(answers: Any, held: Mapping[str, Array], units: Array) -> Array:
        x = held[layer].astype(jnp.float32)
        like = x.reshape(len(x), -1, x.shape[-1]) @ others.T
        return like.max(axis=-1).mean(axis=-1)

    return Goal((layer,), amount)


def mixed(goals: Sequence[Goal], weights: Sequence[float] | None = None) -> Goal:
    """The sum of `goals`, each with its weight; 1 if None.

    Raises UserError for another number of weights than goals.
    """
    given = [1.0] * len(goals) if weights is None else list(weights)
    if len(given) != len(goals):
        raise UserError(
            f"{len(given)} weights are given for {len(goals)} layers; give one for each"
        )

    def amount(answers: Any, held: Mapping[str, Array], units: Array) -> Array:
        return sum(
            by * goal.amount(answers, held, units)
            for goal, by in zip(goals, given, strict=True)
        )

    return Goal(tuple(dict.fromkeys(n for g in goals for n in g.layers)), amount)


def chosen(x: Array, units: Array, where: Where) -> Array:
    """The values [b] of channel `units[i]` of image i, of x [b ... c]."""
    x = x.astype(jnp.float32)
    if x.ndim > 2:
        middle = tuple(n // 2 for n in x.shape[1:-1])
        x = x[:, *middle] if where == "centre" else x.mean(range(1, x.ndim - 1))
    return jnp.take_along_axis(x, units[:, None], axis=1)[:, 0]


def check(
    predict: layers.Predict,
    params: Any,
    state: Any,
    inputs: Inputs,
    goal: Goal,
    units: Sequence[int] = (),
) -> None:
    """Raises UserError for a layer that there is not, or that has no such units."""
    for name in goal.layers:
        shape = layers.find(predict, params, state, inputs, name).shape
        if len(shape) < 2 or shape[0] != len(inputs.images):
            raise UserError(
                f"the layer {name!r} returns {' x '.join(map(str, shape))} numbers for "
                f"{len(inputs.images)} images, and not a row for each; choose another"
            )
        if units and not 0 <= min(units) <= max(units) < shape[-1]:
            raise UserError(
                f"the layer {name!r} has the units 0 to {shape[-1] - 1}; "
                f"{max(units) if min(units) >= 0 else min(units)} is none of them"
            )
