"""Gradients of a batch in several parts, one after the other, to save memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from detjax.errors import UserError
from detjax.sharding import Layout
from detjax.types import Batch

# (params, state, batch, key) -> scalar, (state, metrics)
Loss = Callable[..., tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]


def value_and_grad(loss: Loss, parts: int, layout: Layout) -> Callable[..., Any]:
    """`jax.value_and_grad(loss, has_aux=True)` of the mean over `parts` of a batch.

    Only the activations of one part are held at a time. Every part has its own random
    key, and the statistics that the one before it left. Values and gradients are those
    of the whole batch as far as its loss is the mean of its parts' losses: those of
    detectors are divided by the matches of a part.

    Raises UserError, when traced, for a batch that does not divide.
    """
    whole = jax.value_and_grad(loss, has_aux=True)
    on_cpu = jax.default_backend() == "cpu"
    if parts == 1:
        return whole

    def call(params: Any, state: Any, batch: Batch, key: jax.Array) -> Any:
        def step(carry, one):
            state, total, sums = carry
            i, part = one
            if on_cpu:
                part = _after(part, total)
            (value, (state, metrics)), gradients = whole(
                params, state, part, jax.random.fold_in(key, i)
            )
            total = jax.tree.map(jnp.add, total, gradients)
            sums = jax.tree.map(jnp.add, sums, (value, metrics))
            return (state, total, sums), None

        split = in_parts(batch, parts, layout.shares)
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(loss, params, state, first, key)
        sums = shapes[0], shapes[1][1]
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, sums))
        # In a loop on a CPU convolutions have one thread and take ten times as long:
        # there the parts are written out.
        (state, *totals), _ = jax.lax.scan(
            step, (state, *nothing), (jnp.arange(parts), split), unroll=on_cpu
        )
        gradients, (value, metrics) = jax.tree.map(lambda x: x / parts, totals)
        return (value, (state, metrics)), gradients

    return call


def _after(batch: Batch, gradients: Any) -> Batch:
    """`batch`, whose images can be read only when `gradients` are computed.

    XLA would else compute parts that are written out side by side, and hold the
    activations of all. Where a gradient is not finite the images are wrong, and the
    step is given up in any case.
    """
    wrong = ~jnp.isfinite(optax.tree.norm(gradients))
    images = batch.inputs.images
    inputs = dataclasses.replace(
        batch.inputs, images=images + wrong.astype(images.dtype)
    )
    return dataclasses.replace(batch, inputs=inputs)


def in_parts(batch: Batch, parts: int, shares: int) -> Batch:
    """`batch` with arrays [parts, b / parts, ...]; part i has images i, i + parts, ...

    So every device keeps the images that it has, of a batch in `shares`.
    """
    count = len(batch.index)
    if count % (parts * shares):
        raise UserError(
            f"a batch of {count} images does not divide into train.accumulate={parts} "
            f"parts for {shares} devices; set data.batch_size to a multiple of "
            f"{parts * shares}"
        )
    return jax.tree.map(
        lambda x: x.reshape(count // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )
