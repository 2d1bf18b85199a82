"""Batch norms whose statistics stay as they are in training, in any network."""

import contextlib
from collections.abc import Callable, Container, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen


@contextlib.contextmanager
def frozen_statistics(layers: Container[str]) -> Iterator[None]:
    """Context in which the batch norms called `layers` use their running statistics.

    Names are dotted, as those of parameters. Such a layer answers in training as in
    prediction, and its statistics are not updated: what a frozen network needs, whose
    next layers have learnt with these. Others are as they are.
    """

    def call(
        known: Callable[..., Any], given: tuple, named: dict, context: Any
    ) -> jax.Array:
        module = context.module
        held = module.variables.get("batch_stats", {}) if module.scope else {}
        own = "mean" in held and context.method_name == "__call__"
        if not own or ".".join(module.path) not in layers:
            return known(*given, **named)
        if isinstance(module, linen.BatchNorm):
            return normalised(module, held, given[0])
        # Norms of our own, whose last argument is whether they train.
        if "train" in named:
            return known(*given, **{**named, "train": False})
        return known(*given[:-1], False, **named)

    with linen.intercept_methods(call):
        yield


def normalised(module: linen.BatchNorm, held: Any, x: jax.Array) -> jax.Array:
    """`x` [... c] by the statistics `held`, float32, in the dtype of the layer."""
    params = module.variables.get("params", {})
    factor = jax.lax.rsqrt(held["var"] + module.epsilon) * params.get("scale", 1.0)
    moved = (x.astype(jnp.float32) - held["mean"]) * factor + params.get("bias", 0.0)
    return moved.astype(module.dtype or x.dtype)
