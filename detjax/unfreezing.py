"""Staged unfreezing: parameters that begin to learn at a step of the run.

From the top to the bottom, as in ULMFiT's gradual unfreezing (Howard and Ruder 2018,
section 3.3).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from detjax.errors import UserError
from detjax.parameters import matching

NEVER = -1
# (params) -> for every leaf the number of updates before its first, or NEVER
Begins = Callable[[Any], Any]
Stages = Sequence[tuple[int, Any]]  # (step, names) of what is set free


def begins(freeze: Any, stages: Stages, groups: Mapping[str, str] | None) -> Begins:
    """A function that returns for every leaf the updates before its first one.

    That is 0 for what is not frozen, `NEVER` for what stays so. Names are those of
    `parameters.patterns`.
    """

    def of(params: Any) -> Any:
        frozen = matching(freeze or (), params, groups)
        found = jax.tree.map(lambda hit: NEVER if hit else 0, frozen)
        for step, said in stages:
            found = jax.tree.map(
                lambda at, hit, step=step: step if at == NEVER and hit else at,
                found,
                matching(said, params, groups),
            )
        return found

    return of


def check_stages(stages: Stages, freeze: Any, steps: int) -> None:
    """Raises UserError for stages out of order, or after the end of the run."""
    if stages and not freeze:
        raise UserError(
            f"optimizer.unfreeze={stages!r} sets free what nothing has frozen; set "
            "optimizer.freeze too"
        )
    at = [step for step, _ in stages]
    if at != sorted(set(at)):
        raise UserError(
            f"the steps of optimizer.unfreeze, {', '.join(map(str, at))}, do not rise; "
            "name the stages in their order, each step once"
        )
    if at and 0 < steps <= at[-1]:
        raise UserError(
            f"optimizer.unfreeze has a stage at step {at[-1]}, which a run of "
            f"train.steps={steps} never comes to; let it begin earlier"
        )


class Asleep(NamedTuple):
    """The state of a transformation that waits."""

    updates: jax.Array  # that it has seen
    inner: Any


def waiting(inner: Any, until: int) -> optax.GradientTransformationExtraArgs:
    """`inner` after `until` updates; before these nothing moves, nor does its state.

    So moments begin, with their bias corrections, where their parameters do.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> Asleep:
        return Asleep(jnp.zeros((), jnp.int32), inner.init(params))

    def update(gradients: Any, state: Asleep, params: Any = None, **extra: Any):
        awake = state.updates >= until
        updates, after = inner.update(gradients, state.inner, params, **extra)
        updates = jax.tree.map(lambda x: jnp.where(awake, x, 0), updates)
        after = jax.tree.map(
            lambda new, old: jnp.where(awake, new, old), after, state.inner
        )
        return updates, Asleep(optax.safe_increment(state.updates), after)

    return optax.GradientTransformationExtraArgs(init, update)


def by_stage(inner: Callable[[], Any], first: Begins, stages: Stages) -> Any:
    """A transformation of each stage's parameters by an `inner` of their own."""
    parts = {str(NEVER): optax.set_to_zero(), "0": inner()}
    parts |= {str(step): waiting(inner(), step) for step, _ in stages}
    return optax.partition(parts, lambda params: jax.tree.map(str, first(params)))
