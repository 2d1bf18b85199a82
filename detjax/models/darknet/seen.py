"""The images that a network has seen, in its state, as darknet's weight files count.

A state is float32: the number is kept as two, whole multiples of 2^20 and the rest,
which is exact beyond 10^13. Beside it stands the version of the file format.
"""

import jax.numpy as jnp
import numpy as np

from detjax.types import Array, State

NAME = "darknet"  # the collection
VERSION = (0, 2, 0)  # that darknet writes
_STEP = 2**20


def held(seen: int = 0, version: tuple[int, ...] = VERSION) -> dict[str, Array]:
    """The collection of a network that has seen so many images."""
    return {
        "seen": jnp.array(np.array(divmod(seen, _STEP), np.float32)),
        "version": jnp.array(version, jnp.float32),
    }


def after(state: State, count: Array) -> State:
    """The collection of `state` after `count` more images."""
    whole, rest = state[NAME]["seen"]
    rest = rest + count
    more = jnp.floor(rest / _STEP)
    return {**state[NAME], "seen": jnp.stack([whole + more, rest - more * _STEP])}


def number(collection: State) -> Array:
    """How many images they are, a float32; see `exact`."""
    whole, rest = collection["seen"]
    return whole * _STEP + rest


def exact(collection: State) -> int:
    """How many images they are."""
    whole, rest = np.asarray(collection["seen"]).tolist()
    return int(whole) * _STEP + int(rest)


def without(state: State) -> State:
    """`state` without the collection."""
    return {name: value for name, value in state.items() if name != NAME}
