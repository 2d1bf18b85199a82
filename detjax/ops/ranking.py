"""The best of many, by the kernels that are fast on each device."""

import functools
import inspect

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Int, Num, Shaped

from detjax.types import Array


def top_k(
    x: Num[Array, "*batch n"], k: int
) -> tuple[Shaped[Array, "*batch k"], Int[Array, "*batch k"]]:
    """The `k` largest along the last axis, by falling value, and their indices.

    `lax.top_k`. Ties go to the lower index on a CPU and a TPU, to any on a GPU, whose
    fast kernel is not stable (where this version of JAX can ask for it). Numbers of 16
    bits or less are ranked as float32, the only type that is fast on a CPU, and
    returned in their own.
    """
    x = jnp.asarray(x)
    wide = jnp.finfo if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo
    if wide(x.dtype).bits <= 16:
        best, index = _top_k()(x.astype(jnp.float32), k)
        return best.astype(x.dtype), index
    best, index = _top_k()(x, k)
    return best, index


@functools.cache
def _top_k():
    unstable = "is_stable" in inspect.signature(lax.top_k).parameters
    if unstable and jax.default_backend() == "gpu":
        # Versions before 0.11 do not have it.
        return functools.partial(lax.top_k, is_stable=False)  # type: ignore[call-arg]
    return lax.top_k
