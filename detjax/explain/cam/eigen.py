"""Eigen-CAM (Muhammad and Yeasin 2020): what a layer's channels say together.

It asks for no class: a map is where channels differ most from their means.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from detjax.explain import layers
from detjax.explain.cam.scaled import After, Maps, check, joined, size_of, values_of
from detjax.ops import resize
from detjax.types import Array, Inputs

TOGETHER = "together"  # the name of the map of several layers


def eigen_cam(values: Array) -> Array:
    """Channels [h w c], less their means, projected on their first singular vector.

    [h w]. Its sign, which is arbitrary, is that by which the map is high where channels
    are, in sum.
    """
    h, w, channels = values.shape
    flat = values.reshape(-1, channels)
    centred = flat - flat.mean(axis=0)
    u, s, _ = jnp.linalg.svd(centred, full_matrices=False)
    found = u[:, 0] * s[0]
    loud = centred.sum(axis=-1)
    return (found * jnp.where(found @ loud < 0, -1.0, 1.0)).reshape(h, w)


def side_by_side(levels: Mapping[str, Array]) -> Array:
    """Absolute values of maps [b h w c] of several sizes as the channels of one.

    Resized, bilinearly with pixels' centres at (.5, .5), to the smallest of them, as
    pytorch-grad-cam sees feature pyramids.
    """
    size = min((x.shape[1:3] for x in levels.values()), key=lambda s: s[0] * s[1])
    shrink = jax.vmap(lambda x: resize.bilinear(x, size))
    return jnp.concatenate([shrink(jnp.abs(x)) for x in levels.values()], axis=-1)


def maps(
    predict: layers.Predict,
    names: Sequence[str],
    *,
    size: tuple[int, int] | None = None,
    after: After = "",
    together: bool = False,
) -> Callable[[Any, Any, Inputs], Maps]:
    """(params, state, inputs) -> `Maps`, with q of 1.

    together: one map of the channels of all layers `side_by_side`, and not the mean of
        their maps. Other arguments are those of `gradients.maps`.

    Raises UserError for a layer that is not there or has no map.
    """

    def call(params: Any, state: Any, inputs: Inputs) -> Maps:
        check(predict, params, state, inputs, *names)
        _, held = layers.seen(predict, names)(params, state, inputs)
        values = {name: values_of(x, after) for name, x in held.items()}
        if together:
            values = {TOGETHER: side_by_side(values)}
        raw = {k: jax.vmap(eigen_cam)(x)[:, None] for k, x in values.items()}
        return Maps(joined(raw, size_of(inputs, size)), raw, {})

    return call
