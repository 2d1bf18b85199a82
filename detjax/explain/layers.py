"""The layers of a model by name: what they return, and what depends on it.

    b    images of a batch
    q    quantities of each image, such as the scores of several classes

No model's code knows of this: see `nn.observe` for the names. Functions take and return
functions of (params, state, inputs), as `Model.predict` is one, to be jitted by whoever
calls them.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from detjax.errors import UserError
from detjax.nn.observe import IMAGES, watching
from detjax.types import Array, Inputs

__all__ = ["IMAGES", "Slopes", "changed", "find", "seen", "shapes", "slopes"]

# (params, state, inputs) -> answers of the batch
Predict = Callable[[Any, Any, Inputs], Any]
# answers -> [b q] float32
Quantity = Callable[[Any], Array]


def shapes(
    predict: Predict, params: Any, state: Any, inputs: Inputs, pattern: str = ""
) -> dict[str, jax.ShapeDtypeStruct]:
    """What the layers whose names hold `pattern`, a regular expression, return.

    By name, in the order of computation; nothing is computed.
    """
    held: dict[str, jax.ShapeDtypeStruct] = {}

    def watch(name: str, x: Array) -> Array:
        if re.search(pattern, name):
            held[name] = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return x

    def call(*given: Any) -> Any:  # a new function, which JAX has not traced before
        with watching(watch):
            return predict(*given)

    jax.eval_shape(call, params, state, inputs)
    return held


def find(
    predict: Predict, params: Any, state: Any, inputs: Inputs, name: str
) -> jax.ShapeDtypeStruct:
    """What the layer called `name` returns.

    Raises UserError with the nearest names if there is none.
    """
    found = shapes(predict, params, state, inputs)
    if name not in found:
        near = difflib.get_close_matches(name, found, 3, 0.3)
        raise UserError(
            f"the model has no layer called {name!r}; the nearest are "
            f"{', '.join(near) or 'none'}"
        )
    return found[name]


def seen(predict: Predict, names: Sequence[str]) -> Callable[..., tuple[Any, dict]]:
    """(params, state, inputs) -> answers, and what the layers called `names` return."""

    def call(params: Any, state: Any, inputs: Inputs) -> tuple[Any, dict[str, Array]]:
        held: dict[str, Array] = {}

        def watch(name: str, x: Array) -> Array:
            if name in names:
                held[name] = x
            return x

        with watching(watch):
            answers = predict(params, state, inputs)
        return answers, {name: held[name] for name in names}

    return call


def changed(
    predict: Predict, changes: Mapping[str, Callable[[Array], Array]]
) -> Predict:
    """`predict` whose layers return what `changes` make of it, by name.

    Changes close over what they need, and may be traced with it.
    """

    def call(params: Any, state: Any, inputs: Inputs) -> Any:
        def watch(name: str, x: Array) -> Array:
            if name not in changes:
                return x
            return jnp.broadcast_to(changes[name](x), x.shape).astype(x.dtype)

        with watching(watch):
            return predict(params, state, inputs)

    return call


class Slopes(NamedTuple):
    """Quantities of a batch, and how they change with what layers return."""

    quantities: Array  # [b q]
    values: dict[str, Array]  # [b ...] by layer
    gradients: dict[str, Array]  # [q b ...] by layer


def slopes(
    predict: Predict,
    names: Sequence[str],
    quantity: Quantity,
    chunk: int | None = None,
    through: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> Callable[[Any, Any, Inputs], Slopes]:
    """(params, state, inputs) -> `Slopes`: one pass forward, q backward in one batch.

    Images must not depend on each other, as they do not in prediction. At most `chunk`
    of the q passes are done at once, all if None: each needs memory of its own.
    `through` takes the function that is differentiated and returns one with other
    derivatives, such as `rectified.guided`.
    """

    def call(params: Any, state: Any, inputs: Inputs) -> Slopes:
        found = shapes(predict, params, state, inputs)
        zeros = {
            name: jnp.zeros(found[name].shape, found[name].dtype) for name in names
        }

        def measured(added: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
            held: dict[str, Array] = {}

            def watch(name: str, x: Array) -> Array:
                if name not in added:
                    return x
                held[name] = x
                return x + added[name]

            with watching(watch):
                answers = predict(params, state, inputs)
            return quantity(answers), held

        differentiated = measured if through is None else through(measured)
        amounts, back, values = jax.vjp(differentiated, zeros, has_aux=True)
        each = jnp.eye(amounts.shape[1], dtype=amounts.dtype)
        each = jnp.broadcast_to(each[:, None], (len(each), *amounts.shape))
        if chunk is None or chunk >= len(each):
            (gradients,) = jax.vmap(back)(each)
        else:
            (gradients,) = jax.lax.map(back, each, batch_size=chunk)
        return Slopes(amounts, values, gradients)

    return call
