"""Corner pooling: running maxima along the rows or the columns of a map.

Shape legend:

    mh, mw   height and width of a map
    c        channels

A corner of a box often lies where nothing is to be seen: the upper left one finds its
object by looking right for the object's upper edge and down for its left edge.

Law and Deng 2018 (CornerNet), section 3.3.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from detjax.types import Array


def top(x: Float[Array, "mh mw c"]) -> Float[Array, "mh mw c"]:
    """The maximum of each cell and of all cells below it.

    Of equal values the lowest has the gradient: the one that is met first by a sweep
    that begins at the far side. The other three are alike.
    """
    return _running_maximum(x, 0, True)


def bottom(x: Float[Array, "mh mw c"]) -> Float[Array, "mh mw c"]:
    """The maximum of each cell and of all cells above it; see `top`."""
    return _running_maximum(x, 0, False)


def left(x: Float[Array, "mh mw c"]) -> Float[Array, "mh mw c"]:
    """The maximum of each cell and of all cells to its right; see `top`."""
    return _running_maximum(x, 1, True)


def right(x: Float[Array, "mh mw c"]) -> Float[Array, "mh mw c"]:
    """The maximum of each cell and of all cells to its left; see `top`."""
    return _running_maximum(x, 1, False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _running_maximum(x: Array, axis: int, reverse: bool) -> jax.Array:
    return _forward(x, axis, reverse)[0]


def _forward(x, axis, reverse):
    """The running maximum, and where it rises: at the cells that have a gradient."""
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    running = _swept(jnp.maximum, x, lowest, axis, reverse)
    edge = [(0, 0, 0)] * x.ndim
    edge[axis] = (-1, 1, 0) if reverse else (1, -1, 0)
    return running, x > lax.pad(running, lowest, edge)


def _backward(axis, reverse, rises, gradient):
    """Each rise has the sum of the gradients from it to the next one."""
    # A sum that goes against the sweep begins anew behind each rise.
    edge = [(0, 0, 0)] * rises.ndim
    edge[axis] = (1, -1, 0) if reverse else (-1, 1, 0)
    fresh = lax.pad(rises, jnp.asarray(True), edge)
    nothing = jnp.zeros((), gradient.dtype), jnp.zeros((), bool)
    sums, _ = _swept(_added, (gradient, fresh), nothing, axis, not reverse)
    return (jnp.where(rises, sums, 0),)


def _added(before, here):
    """The sums of two stretches as one, and whether it began anew within them."""
    (total, first), (value, last) = before, here
    return value + jnp.where(last, 0, total), first | last


def _swept(
    join: Callable[[Any, Any], Any], x: Any, start: Any, axis: int, reverse: bool
) -> Any:
    """What an associative `join` makes of all cells up to each, along an `axis`.

    On a CPU row after row, where that takes half of the time of a scan by halves, which
    accelerators have. `start` changes nothing.
    """
    if jax.default_backend() != "cpu":
        return lax.associative_scan(join, x, reverse=reverse, axis=axis)

    def step(state, here):
        state = join(state, here)
        return state, state

    rows = jax.tree.map(lambda v: jnp.moveaxis(v, axis, 0), x)
    first = jax.tree.map(lambda s, v: jnp.broadcast_to(s, v.shape[1:]), start, rows)
    _, states = lax.scan(step, first, rows, reverse=reverse)
    return jax.tree.map(lambda v: jnp.moveaxis(v, 0, axis), states)


_running_maximum.defvjp(_forward, _backward)
