"""Class activation mapping (Zhou et al. 2016), of nets that end in a mean and a layer.

A classifier whose logits are one linear layer of the mean over places of its last map
has a logit of each place: there is nothing to differentiate.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax import embedding
from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.cam.scaled import (
    ACTIVATIONS,
    After,
    Maps,
    joined,
    size_of,
    values_of,
)
from detjax.types import Array, Inputs, Model

CLOSE = 1e-4  # of the pooled map's deviation: how far the last layer may read from it


class Pooled(NamedTuple):
    """The map whose mean over places the last layer of a classifier reads."""

    name: str  # of the layer that returns it
    after: After  # the activation between
    head: tuple[str, ...]  # the path of the last layer's parameters


def pooled(model: Model, params: Any, state: Any, inputs: Inputs) -> Pooled:
    """The map that `model` averages, which is looked for while it sees `inputs`.

    Raises UserError for a model that ends otherwise.
    """
    head = embedding.last_layer(model, params)
    if head is None:
        raise UserError(
            "the classic CAM is of classifiers that end in a mean over places and one "
            "linear layer, which this model does not; take method grad-cam, "
            "hires-cam, layer-cam, score-cam or eigen-cam"
        )

    @jax.jit
    def errors(params: Any, state: Any, inputs: Inputs) -> dict[str, Any]:
        read: list[Array] = []

        def call(known: Any, given: tuple, named: dict, context: Any) -> Any:
            if context.method_name == "__call__" and context.module.path == head:
                read.append(given[0])
            return known(*given, **named)

        with linen.intercept_methods(call):
            _, held = layers.seen(model.predict, names)(params, state, inputs)
        expected = read[-1].astype(jnp.float32)
        spread = expected.std() + 1e-12

        def far(x: Array, after: After) -> Array:
            mean = values_of(x, after).mean(axis=(1, 2))
            if mean.size != expected.size:
                return jnp.float32(jnp.inf)
            return jnp.abs(mean - expected.reshape(mean.shape)).max() / spread

        return {k: {a: far(x, a) for a in ACTIVATIONS} for k, x in held.items()}

    width = _kernel(params, head).shape[-2]
    names = [
        name
        for name, x in layers.shapes(model.predict, params, state, inputs).items()
        if len(x.shape) == 4 and x.shape[-1] == width and name != layers.IMAGES
    ]
    found = jax.device_get(errors(params, state, inputs)) if names else {}
    # The last of those that are alike, as it is if that will do.
    for name, apart in reversed(found.items()):
        for after in ACTIVATIONS:
            if apart[after] < CLOSE:
                return Pooled(name, after, head)
    raise UserError(
        f"the last layer {'.'.join(head)} of this model does not read the mean over "
        "places of a layer's map, which the classic CAM is made of; take method "
        "grad-cam, hires-cam, layer-cam, score-cam or eigen-cam"
    )


def maps(
    predict: layers.Predict,
    found: Pooled,
    labels: Array,
    *,
    size: tuple[int, int] | None = None,
) -> Callable[[Any, Any, Inputs], Maps]:
    """(params, state, inputs) -> `Maps` of the classes `labels` [b q].

    Section 2, equations 1 and 2, without the bias. `quantities` are None.
    """

    def call(params: Any, state: Any, inputs: Inputs) -> Maps:
        _, held = layers.seen(predict, [found.name])(params, state, inputs)
        values = values_of(held[found.name], found.after)
        weights = _kernel(params, found.head).T[jnp.asarray(labels)]  # [b q c]
        raw = {found.name: jnp.einsum("bhwc,bqc->bqhw", values, weights)}
        return Maps(joined(raw, size_of(inputs, size)), raw, {found.name: weights})

    return call


def _kernel(params: Mapping[str, Any], path: tuple[str, ...]) -> Array:
    """The weights [c classes] of a linear layer, or of a convolution of 1 x 1."""
    for name in path:
        params = params[name]
    kernel = params["kernel"]
    if np.prod(kernel.shape[:-2], dtype=int) != 1:
        raise UserError(
            f"the last layer {'.'.join(path)} is a convolution of {kernel.shape[:-2]} "
            "cells and no linear layer; take method grad-cam"
        )
    return kernel.reshape(kernel.shape[-2:]).astype(jnp.float32)
