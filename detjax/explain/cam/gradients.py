"""Class activation maps from gradients: Grad-CAM and what followed it.

    A   [h w c]  what a layer returns of an image
    G   [h w c]  the gradient of a quantity, such as a class's logit, with respect to A

Each method is a function (A, G) -> `Terms` of one image and one quantity.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from detjax.explain import layers
from detjax.explain.cam.scaled import After, Maps, check, joined, size_of, values_of
from detjax.types import Array, Inputs


class Terms(NamedTuple):
    """The map of a layer, and the weights of its channels where there are such."""

    raw: Array  # [h w], signed
    weights: Array | None = None  # [c]


def grad_cam(values: Array, gradients: Array) -> Terms:
    """Channels by their mean gradient (Selvaraju et al. 2017, eq. 1 and 2)."""
    return weighed(values, gradients.mean(axis=(0, 1)))


def grad_cam_plus_plus(values: Array, gradients: Array) -> Terms:
    """Channels by positive gradients, each by its alpha.

    Chattopadhyay et al. 2018, eq. 11 and 19, where the quantity is the logarithm of
    what is differentiated twice and three times: with powers of the first gradient.
    """
    square = gradients**2
    below = 2 * square + values.sum(axis=(0, 1)) * square * gradients + 1e-6
    # The published formula has no guard where it is about to divide by 0.
    alpha = jnp.where(gradients != 0, square / jnp.where(below == 0, 1.0, below), 0.0)
    return weighed(values, (jax.nn.relu(gradients) * alpha).sum(axis=(0, 1)))


def xgrad_cam(values: Array, gradients: Array) -> Terms:
    """Channels by gradients weighed with their activations (Fu et al. 2020, eq. 8)."""
    below = values.sum(axis=(0, 1)) + 1e-7
    share = values / jnp.where(below == 0, 1.0, below)
    return weighed(values, (gradients * share).sum(axis=(0, 1)))


def hires_cam(values: Array, gradients: Array) -> Terms:
    """The product of both, place by place (Draelos and Carin 2020, eq. 3)."""
    return Terms((values * gradients).sum(axis=-1))


def layer_cam(values: Array, gradients: Array) -> Terms:
    """The same with positive gradients alone (Jiang et al. 2021, eq. 5 and 6)."""
    return Terms((values * jax.nn.relu(gradients)).sum(axis=-1))


METHODS: Mapping[str, Callable[[Array, Array], Terms]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "xgrad-cam": xgrad_cam,
    "hires-cam": hires_cam,
    "layer-cam": layer_cam,
}


def weighed(values: Array, weights: Array) -> Terms:
    """The sum of channels [h w c] by `weights` [c]."""
    return Terms((values * weights).sum(axis=-1), weights)


def of_batch(
    method: Callable[[Array, Array], Terms], values: Array, gradients: Array
) -> Terms:
    """`Terms` [b q ...] of values [b h w c] and gradients [q b h w c]."""
    of_image = jax.vmap(method, in_axes=(None, 0))
    return jax.vmap(of_image, in_axes=(0, 1))(values, gradients)


def maps(
    predict: layers.Predict,
    names: Sequence[str],
    quantity: layers.Quantity,
    method: Callable[[Array, Array], Terms] = grad_cam,
    *,
    size: tuple[int, int] | None = None,
    after: After = "",
    chunk: int | None = None,
) -> Callable[[Any, Any, Inputs], Maps]:
    """(params, state, inputs) -> `Maps` of all quantities, in one pass forward.

    names: of layers, the mean of whose maps is shown.
    method: one of the values of `METHODS`.
    size: (H, W) of the maps, the inputs' if None.
    after: the activation that follows the layers, if what it leaves is weighed;
        gradients are those of before it.
    chunk: quantities whose passes backward are done at once, all if None.

    Raises UserError for a layer that is not there or has no map.
    """

    def call(params: Any, state: Any, inputs: Inputs) -> Maps:
        check(predict, params, state, inputs, *names)
        found = layers.slopes(predict, names, quantity, chunk=chunk)(
            params, state, inputs
        )
        terms = {
            name: of_batch(
                method,
                values_of(found.values[name], after),
                found.gradients[name].astype(jnp.float32),
            )
            for name in names
        }
        raw = {name: term.raw for name, term in terms.items()}
        weights = {k: t.weights for k, t in terms.items() if t.weights is not None}
        return Maps(joined(raw, size_of(inputs, size)), raw, weights, found.quantities)

    return call
