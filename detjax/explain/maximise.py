"""Pictures that units of a network answer to most, by ascent from noise.

    u        units, each with a picture of its own
    h, w     height and width of the network's input

Erhan et al., "Visualizing higher-layer features of a deep network", 2009; Simonyan et
al. 2014; Olah et al. 2017. One program climbs for all units: as many at a time as
`chunk` says are a batch of the network.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from detjax.explain import layers, smooth
from detjax.explain.canvas import CANVASES, Kind, repeated, span
from detjax.explain.goals import Goal
from detjax.settings import Count, Fraction, NonNegative, Positive, Whole
from detjax.types import Array, Inputs

# (params, state, inputs of one image, units [u], key) -> pictures [u h w 3] in 0..1
# and how much of its goal each of them has, [u]
Maximise = Callable[[Any, Any, Inputs, Array, jax.Array], tuple[Array, Array]]


def maximise(
    predict: layers.Predict,
    goal: Goal,
    *,
    canvas: Kind = "spectrum",
    steps: Count = 256,
    rate: Positive | None = None,
    jitter: Whole = 8,
    scale: NonNegative = 0.1,
    blur: NonNegative = 0.0,
    decay: Fraction = 0.0,
    variation: NonNegative = 0.0,
    chunk: Count = 8,
) -> Maximise:
    """A function (params, state, inputs, units [u], key) -> pictures, amounts.

    The pictures [u h w 3] are float32 from 0, black, to 1, white, and are all that
    files can hold: the network sees no others while they are climbed. The amounts [u]
    are those of the pictures as they are returned. A unit's picture depends on `key`
    and not on the units beside it. Of `inputs`, one image, only the
    size matters, and what the model needs beside images.

    canvas: "spectrum" climbs a Fourier spectrum of decorrelated colours by Adam,
        "pixels" the pixels by equal steps.
    steps: of the ascent.
    rate: the length of a step; 0.05 of a spectrum, 0.02 of pixels if None.
    jitter: pixels by which a picture is shifted at random before each step.
    scale: the share by which it is made larger or smaller at random, too.
    blur: the deviation, in pixels, of a Gaussian over what each step has made, falling
        to 0 at the last; of pixels only.
    decay: the share of the picture that fades to grey at each step.
    variation: the weight of total variation, which is taken off the goal.
    chunk: units that are a batch of the network, which bounds the memory.
    """

    def call(
        params: Any, state: Any, inputs: Inputs, units: Array, key: jax.Array
    ) -> tuple[Array, Array]:
        size = inputs.images.shape[1:3]
        made = CANVASES[canvas](size)
        low, high = span(predict, params, state, inputs)
        optimizer = optax.adam(made.rate if rate is None else rate)
        if canvas == "pixels":
            optimizer = optax.sgd(made.rate if rate is None else rate)

        def amounts(pictures: Array, units: Array) -> Array:
            shown = low + (high - low) * pictures
            see = layers.changed(predict, {layers.IMAGES: lambda x: shown})
            many = repeated(inputs, len(units))
            answers, held = layers.seen(see, goal.layers)(params, state, many)
            return goal.amount(answers, held, units)

        def climbed(units: Array, keys: Array) -> tuple[Array, Array]:
            def loss(numbers: Array, keys: jax.Array) -> Array:
                pictures = jax.vmap(made.picture)(numbers)
                rough = jax.vmap(smooth.variation)(pictures)
                seen = jax.vmap(lambda x, key: smooth.moved(x, key, jitter, scale))(
                    pictures, keys
                )
                return (variation * rough - amounts(seen, units)).sum()

            def step(held: Any, number: Array) -> tuple[Any, None]:
                numbers, memory = held
                left = 1 - (number + 1) / steps
                moves = jax.vmap(jax.random.fold_in, (0, None))(keys, number + 1)
                gradient = jax.vmap(smooth.unit)(jax.grad(loss)(numbers, moves))
                change, memory = optimizer.update(gradient, memory)
                numbers = (numbers + change) * (1 - decay)
                if canvas == "pixels":
                    if blur:
                        numbers = jax.vmap(smooth.blurred, (0, None))(
                            numbers, blur * left
                        )
                    # Beyond the range there is no gradient that would lead back.
                    numbers = jnp.clip(numbers, -0.5, 0.5)
                return (numbers, memory), None

            numbers = jax.vmap(made.start)(keys)
            (numbers, _), _ = jax.lax.scan(
                step, (numbers, optimizer.init(numbers)), jnp.arange(steps)
            )
            pictures = jax.vmap(made.picture)(numbers)
            return pictures, amounts(pictures, units)

        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, units)
        return chunked(climbed, chunk, units, keys)

    return call


def chunked(function: Callable[..., Any], chunk: int, units: Array, keys: Array) -> Any:
    """`function` of at most `chunk` rows at a time, one lot after the other."""
    count = len(units)
    lots = -(-count // chunk)
    each = -(-count // lots)
    # The last lot is filled up with units that were there before.
    which = jnp.arange(lots * each) % count
    rows = (jnp.asarray(units)[which], keys[which])
    rows = jax.tree.map(lambda x: x.reshape(lots, each, *x.shape[1:]), rows)
    found = jax.lax.map(lambda row: function(*row), rows)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)
