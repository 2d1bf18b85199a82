"""The units of a layer that matter, what they look at, and whether they suffice.

b c    images, channels of the layer (its last axis): a unit is a channel
q m    quantities, sets of units that are tried
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.attribution import Through
from detjax.explain.layers import IMAGES, Predict
from detjax.types import Array, Inputs


def by_channel(found: Array) -> Array:
    """The influence [... c] of channels: that of [... h w c] summed over places.

    `found` [q b h w c], or [q b c] where a layer has no places.
    """
    return found.sum(axis=(-3, -2)) if found.ndim > 3 else found


def ranks(order: Array) -> np.ndarray:
    """The rank [c] of every channel, 0 for the first of `order` [c]."""
    return np.argsort(np.asarray(order), kind="stable")


class Looks(NamedTuple):
    """What units look at in each image."""

    places: Array  # [q b 2] int32: row and column where each answers most
    values: Array  # [q b]: what it answers there
    gradients: Array  # [q b h w 3]: of that to the normalised pixels


def looks(
    predict: Predict, layer: str, through: Through | None = None
) -> Callable[[Any, Any, Inputs, Array], Looks]:
    """(params, state, inputs, channels [q]) -> `Looks`: where they answer most."""
    watched = layers.seen(predict, [layer])

    def call(params: Any, state: Any, inputs: Inputs, channels: Array) -> Looks:
        shape = layers.find(predict, params, state, inputs, layer).shape
        width = shape[2] if len(shape) == 4 else 1

        def most(answers: tuple[Any, dict[str, Array]]) -> tuple[Array, Array]:
            maps = answers[1][layer].astype(jnp.float32)
            maps = maps.reshape(len(maps), -1, maps.shape[-1])[..., channels]
            places = jax.lax.stop_gradient(maps).argmax(axis=1)  # [b q]
            return jnp.take_along_axis(maps, places[:, None], axis=1)[:, 0], places

        known = layers.slopes(watched, [IMAGES], lambda x: most(x)[0], through=through)
        found = known(params, state, inputs)
        _, places = most(watched(params, state, inputs))
        return Looks(
            jnp.stack([places // width, places % width], axis=-1).swapaxes(0, 1),
            found.quantities.T,
            found.gradients[IMAGES],
        )

    return call


def kept(predict: Predict, layer: str) -> Callable[[Any, Any, Inputs, Array], Any]:
    """(params, state, inputs, mask [c]) -> answers with the other channels zeroed.

    The mask is an argument: a program serves every set of units.
    """

    def call(params: Any, state: Any, inputs: Inputs, mask: Array) -> Any:
        return layers.changed(predict, {layer: lambda x: x * mask})(
            params, state, inputs
        )

    return call


class Sufficiency(NamedTuple):
    """How well a class is told from the others by few units, by the order of them."""

    counts: np.ndarray  # [k]: units that are kept
    # [k] by order: the part of its images that are found, and of the others that are
    # not taken for it, the mean of both, at the score that divides them best
    accuracy: dict[str, np.ndarray]
    # [k] by order: the part of pairs, an image of the class and another, of which the
    # first has the higher score; the area under the ROC curve
    pairs: dict[str, np.ndarray]


def sufficient(
    predict: Predict,
    layer: str,
    params: Any,
    state: Any,
    batches: Iterable[tuple[Inputs, Array]],
    label: int,
    orders: Mapping[str, Array],
    counts: Sequence[int],
    score: Callable[[Any], Array],
    chunk: int = 1,
) -> Sufficiency:
    """Whether the first units of an order suffice to tell a class from the others.

    Leino et al. 2018, section 4.3: all but the first k units of `layer` are zeroed, and
    the network is a detector of one class.

    batches: inputs, and the class [b] of each image, -1 for those that do not count.
    label: the class.
    orders: channels [c] by falling importance, by name: `ranked`.
    counts: the k that are tried; 0 to all.
    score: answers -> [b], how much an image is of the class.
    chunk: sets of units that are looked at at a time.

    Raises UserError unless there are images of the class and of others.
    """
    rows = jnp.asarray(np.stack([ranks(order) for order in orders.values()]))
    limits = jnp.asarray(counts)
    masked = kept(predict, layer)

    @jax.jit
    def scored(
        params: Any, state: Any, inputs: Inputs, rows: Array, limits: Array
    ) -> Array:
        sets = (rows[:, None] < limits[:, None]).reshape(-1, rows.shape[1])

        def each(mask: Array) -> Array:
            return score(masked(params, state, inputs, mask.astype(jnp.float32)))

        return jax.lax.map(each, sets, batch_size=chunk)  # [m b]

    held, classes = [], []
    for inputs, labels in batches:
        held.append(np.asarray(scored(params, state, inputs, rows, limits)))
        classes.append(np.asarray(labels))
    scores, labels = np.concatenate(held, axis=1), np.concatenate(classes)
    own, others = (
        scores[:, labels == label],
        scores[:, (labels != label) & (labels >= 0)],
    )
    if not own.shape[1] or not others.shape[1]:
        raise UserError(
            f"there are {own.shape[1]} images of the class and {others.shape[1]} of "
            "others; give a split, or a larger part of it, that has both"
        )
    shape = len(rows), len(limits)
    found = [
        np.array([f(*x) for x in zip(own, others, strict=True)]).reshape(shape)
        for f in (_divided, _ordered)
    ]
    accuracy, pairs = (dict(zip(orders, x, strict=True)) for x in found)
    return Sufficiency(np.asarray(counts), accuracy, pairs)


def _divided(own: np.ndarray, others: np.ndarray) -> float:
    """The best mean of the parts at least, and below, one score: `accuracy`."""
    limits = np.append(np.unique(own), np.inf)
    found = 1 - np.searchsorted(np.sort(own), limits) / len(own)
    return float(
        (found + np.searchsorted(np.sort(others), limits) / len(others)).max() / 2
    )


def _ordered(own: np.ndarray, others: np.ndarray) -> float:
    """The part of pairs in the right order, equal ones half: `pairs`."""
    other = np.sort(others)
    below = np.searchsorted(other, own) + np.searchsorted(other, own, side="right")
    return float(below.mean() / (2 * len(other)))


def ranked(amounts: Array) -> np.ndarray:
    """Channels [c] by falling `amounts` [c]."""
    return np.argsort(-np.asarray(amounts), kind="stable")
