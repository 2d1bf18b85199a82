"""The sanity check by randomised weights: a map that stays says nothing of the network.

Adebayo et al. 2018, "Sanity checks for saliency maps".

    b    images
    n    layers with weights
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.attribution import Attribution
from detjax.explain.layers import Predict
from detjax.types import Array, Inputs


def weighted_layers(
    predict: Predict, params: Any, state: Any, inputs: Inputs
) -> list[str]:
    """The names of the layers that have weights of their own, the last first."""
    own = {".".join(path[:-1]) for path in traverse_util.flatten_dict(params)}
    found = layers.shapes(predict, params, state, inputs)
    return [name for name in reversed(found) if name in own]


def correlations(
    attribution: Attribution, names: Sequence[str], cascade: bool = True
) -> Callable[[Any, Any, Any, Inputs], Array]:
    """(params, fresh, state, inputs) -> how alike maps stay, [n b] from -1 to 1.

    The rank correlation of magnitudes of the trained network's map with that of a
    network whose layers are partly `fresh`, another draw of its parameters: one after
    the other from the first of `names`, all before it too where it is a `cascade`.

    attribution: -> maps, of which the first quantity's counts.
    """

    def call(params: Any, fresh: Any, state: Any, inputs: Inputs) -> Array:
        held = traverse_util.flatten_dict(params)
        other = traverse_util.flatten_dict(fresh)
        number = {name: i for i, name in enumerate(names)}
        of = {path: number.get(".".join(path[:-1]), len(names)) for path in held}
        if missing := {*names} - {".".join(path[:-1]) for path in held}:
            raise UserError(
                f"the layers {', '.join(sorted(missing))} have no weights; "
                "give those of `weighted_layers`"
            )

        def magnitudes(params: Any) -> Array:
            found = jnp.abs(attribution(params, state, inputs)[0])
            return found.reshape(len(found), -1)

        trained = magnitudes(params)

        def each(upto: Array) -> Array:
            mixed: Mapping[Any, Array] = {
                path: jnp.where(
                    of[path] <= upto if cascade else of[path] == upto, other[path], x
                )
                for path, x in held.items()
            }
            return spearman(trained, magnitudes(traverse_util.unflatten_dict(mixed)))

        return jax.lax.map(each, jnp.arange(len(names)))

    return call


def spearman(one: Array, other: Array) -> Array:
    """The rank correlation [...] of values [... n]; 0 where all of one are equal."""
    a, b = ranks(one), ranks(other)
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    spread = jnp.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return (a * b).sum(axis=-1) / jnp.where(spread > 0, spread, 1.0)


def ranks(values: Array) -> Array:
    """The rank of each of `values` [... n], of 0 to 1; equal ones share a rank."""
    flat = values.reshape(-1, values.shape[-1])

    def each(row: Array) -> Array:
        ordered = jnp.sort(row)
        below = jnp.searchsorted(ordered, row, side="left", method="sort")
        upto = jnp.searchsorted(ordered, row, side="right", method="sort")
        return (below + upto) / (2 * len(row))

    return jax.vmap(each)(flat).reshape(values.shape)
