"""Schedules, weight decay and freezing by name, composed from optax."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import optax

from detjax.errors import UserError


def learning_rate(
    *,
    peak: float,
    steps: int,
    decay: str = "cosine",
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
    boundaries: tuple[int, ...] = (),
    factor: float = 0.1,
) -> optax.Schedule:
    """Learning rate by step: linear warm-up from `warmup_start` to `peak`, `decay`.

    cosine     to zero at `steps`
    steps      multiplied by `factor` at each of `boundaries`
    constant   as it says

    Raises UserError for any other `decay`.
    """
    if decay == "cosine":
        main = optax.cosine_decay_schedule(peak, max(steps - warmup_steps, 1))
    elif decay == "steps":
        scales = {b - warmup_steps: factor for b in boundaries}
        main = optax.piecewise_constant_schedule(peak, scales)
    elif decay == "constant":
        main = optax.constant_schedule(peak)
    else:
        raise UserError(f"decay={decay!r} is not 'cosine', 'steps' or 'constant'")
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(warmup_start, peak, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def names(params: Any) -> Any:
    """The dotted name of every leaf, in a tree like `params`: 'fpn.p6.kernel'."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: ".".join(str(p.key) for p in path), params
    )


def matching(pattern: str, params: Any) -> Any:
    """True for every leaf of `params` in whose dotted name `pattern` is found."""
    return jax.tree.map(lambda name: bool(re.search(pattern, name)), names(params))


def make(
    *,
    steps: int,
    schedule: Mapping[str, Any],
    name: str = "sgd",
    momentum: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
    no_decay: str | None = None,
    freeze: str | None = None,
    clip_norm: float | None = None,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """SGD with momentum, or AdamW, and its learning rate by step.

    `schedule` holds the keywords of `learning_rate` for a run of `steps`.

    `weight_decay` is L2 added to the gradient for SGD, as in the papers' own training,
    and decoupled for AdamW. `no_decay` and `freeze` are regular expressions over dotted
    parameter names. `clip_norm` bounds the global norm of the gradient.

    Raises UserError for any other `name`.
    """
    rate = learning_rate(steps=steps, **schedule)
    decay_mask = None
    if no_decay:

        def decay_mask(params):
            return jax.tree.map(lambda hit: not hit, matching(no_decay, params))

    decayed = optax.add_decayed_weights(weight_decay, decay_mask)
    if name == "sgd":
        parts = [decayed, optax.trace(momentum)]
    elif name == "adamw":
        parts = [optax.scale_by_adam(b1=momentum, b2=b2), decayed]
    else:
        raise UserError(f"optimizer name={name!r} is not 'sgd' or 'adamw'")
    parts.append(optax.scale_by_learning_rate(rate))
    if clip_norm:
        parts.insert(0, optax.clip_by_global_norm(clip_norm))
    if freeze:
        frozen = lambda params: matching(freeze, params)  # noqa: E731
        # Zeroed on both sides: frozen gradients do not count for clipping, and decay
        # does not move frozen weights.
        zero = optax.masked(optax.set_to_zero(), frozen)
        parts = [zero, *parts, zero]
    return optax.chain(*parts), rate
