"""The sanity check by randomised weights: a map that stays says nothing of the network.

Adebayo et al. 2018, "Sanity checks for saliency maps".

    b    images
    n    layers that are tried
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.attribution import Attribution
from detjax.explain.layers import Predict
from detjax.types import Array, Inputs

# The collection of what normalisations have averaged.
STATISTICS = "batch_stats"


def weighted_layers(
    predict: Predict, params: Any, state: Any, inputs: Inputs
) -> list[str]:
    """The names of the layers that have parameters of their own, the last first."""
    own = {_name(path) for path in traverse_util.flatten_dict(params)}
    found = layers.shapes(predict, params, state, inputs)
    return [name for name in reversed(found) if name in own]


def spread(names: Sequence[str], params: Any, most: int) -> list[int]:
    """At most `most` places of `names` from the first to the last, of kernels.

    A new draw of a normalisation is a scale of 1, which is no other network.
    """
    kernels = {
        _name(path)
        for path, x in traverse_util.flatten_dict(params).items()
        if x.ndim > 1
    }
    places = [i for i, name in enumerate(names) if name in kernels]
    chosen = np.linspace(0, len(places) - 1, min(len(places), most))
    return sorted({places[round(i)] for i in chosen})


def correlations(
    attribution: Attribution,
    names: Sequence[str],
    places: Sequence[int] | None = None,
    cascade: bool = True,
) -> Callable[..., Array]:
    """(params, state, fresh, inputs) -> how alike maps stay, [n b] from -1 to 1.

    The rank correlation of magnitudes of the trained network's map with that of a
    network whose layers are partly `fresh`, another draw of its (params, state): those
    of `names` at each of n `places`, all if None, and, where it is a `cascade`, all
    layers that are named before it.

    attribution: -> maps, of which the first quantity's counts.
    """
    number = {name: i for i, name in enumerate(names)}

    def mixed(held: Any, other: Any, upto: Array) -> Any:
        held, other = (traverse_util.flatten_dict(x) for x in (held, other))
        # Later than all where a layer is not named.
        of = {path: number.get(_name(path), len(names)) for path in held}
        return traverse_util.unflatten_dict(
            {
                path: jnp.where(
                    of[path] <= upto if cascade else of[path] == upto, other[path], x
                )
                for path, x in held.items()
            }
        )

    def call(params: Any, state: Any, fresh: tuple[Any, Any], inputs: Inputs) -> Array:
        own = {_name(path) for path in traverse_util.flatten_dict(params)}
        if missing := {*names} - own:
            raise UserError(
                f"the layers {', '.join(sorted(missing))} have no weights; "
                "give those of `weighted_layers`"
            )

        def magnitudes(params: Any, state: Any) -> Array:
            found = jnp.abs(attribution(params, state, inputs)[0])
            return found.reshape(len(found), -1)

        trained = magnitudes(params, state)

        def each(upto: Array) -> Array:
            drawn = mixed(params, fresh[0], upto), mixed(state, fresh[1], upto)
            return spearman(trained, magnitudes(*drawn))

        tried = range(len(names)) if places is None else places
        return jax.lax.map(each, jnp.array([*tried]))

    return call


def _name(path: Sequence[str]) -> str:
    """The layer of a parameter, or of an entry of the collection of statistics."""
    return ".".join(path[:-1]).removeprefix(f"{STATISTICS}.")


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
