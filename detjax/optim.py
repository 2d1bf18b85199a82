"""Schedules, weight decay, freezing and learning rates by name, on top of optax."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import optax

from detjax import unfreezing
from detjax.errors import UserError
from detjax.parameters import matching, names
from detjax.settings import Count, Fraction, NonNegative, Pattern, Positive, Whole

Names = Pattern | tuple[Pattern, ...]


class Optimizer(NamedTuple):
    """An optax transformation, and which parameters it leaves as they are."""

    init: optax.TransformInitFn
    update: optax.TransformUpdateExtraArgsFn
    # (params) -> for every leaf the updates before its first, `unfreezing.NEVER`
    begins: unfreezing.Begins
    # The updates after which fewer parameters are frozen, rising.
    stages: tuple[int, ...] = ()
    # Whether frozen batch norms use and keep their running statistics.
    frozen_statistics: bool = True

    def frozen(self, params: Any, step: int = 0) -> Any:
        """True for every leaf that update `step`, from 0, does not move."""
        return jax.tree.map(
            lambda at: at == unfreezing.NEVER or at > step, self.begins(params)
        )


def learning_rate(
    *,
    peak: NonNegative,
    steps: Whole,
    decay: Literal["cosine", "polynomial", "steps", "constant"] = "cosine",
    warmup_steps: Whole = 0,
    warmup_start: NonNegative = 0.0,
    boundaries: tuple[Count, ...] = (),
    factor: NonNegative = 0.1,
    power: Positive = 0.9,
) -> optax.Schedule:
    """Learning rate by step: a linear warm-up, then a decay to the end of the run.

    peak: the rate after the warm-up.
    decay: "cosine", "polynomial", "steps" or "constant", as below.
    warmup_steps, warmup_start: the length of the warm-up, and the rate it begins with.
    boundaries: of "steps", the steps at which the rate falls.
    factor: of "steps", what the rate is multiplied by.
    power: of "polynomial", the exponent; 0.9 is DeepLab's (Chen et al. 2016, sec. 4.1),
        1 is linear.

    cosine      to zero at `steps`
    polynomial  to zero at `steps`, as (1 - step / steps) ** `power`
    steps       multiplied by `factor` at each of `boundaries`
    constant    as it says

    Raises UserError for any other `decay`, and for "steps" without boundaries.
    """
    if decay == "cosine":
        main = optax.cosine_decay_schedule(peak, max(steps - warmup_steps, 1))
    elif decay == "polynomial":
        main = optax.polynomial_schedule(peak, 0.0, power, max(steps - warmup_steps, 1))
    elif decay == "steps":
        if not boundaries:
            raise UserError(
                "optimizer.schedule.decay='steps' needs the steps at which the rate "
                "falls; set optimizer.schedule.boundaries"
            )
        scales = {b - warmup_steps: factor for b in boundaries}
        main = optax.piecewise_constant_schedule(peak, scales)
    elif decay == "constant":
        main = optax.constant_schedule(peak)
    else:
        raise UserError(
            f"decay={decay!r} is not 'cosine', 'polynomial', 'steps' or 'constant'"
        )
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(warmup_start, peak, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def make(
    *,
    steps: Whole,
    schedule: Mapping[str, Any],
    name: Literal["sgd", "adamw"] = "sgd",
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    b2: Fraction = 0.999,
    weight_decay: NonNegative = 0.0,
    no_decay: Names | None = None,
    freeze: Names | None = None,
    unfreeze: tuple[tuple[Count, Names], ...] = (),
    statistics: Literal["frozen", "running"] = "frozen",
    rates: Mapping[str, NonNegative] | None = None,
    clip_norm: Positive | None = None,
    groups: Mapping[str, str] | None = None,
) -> tuple[Optimizer, optax.Schedule]:
    """SGD with momentum, or AdamW, and its learning rate by step.

    schedule: the keywords of `learning_rate`, for a run of `steps`.
    name: of the algorithm.
    momentum: of SGD; for AdamW the decay of the first moment.
    nesterov: looks ahead along the momentum: for SGD as torch does it (Sutskever et al.
        2013, in the form of Bengio et al. 2013), for AdamW after Dozat 2016.
    b2: for AdamW the decay of the second moment.
    weight_decay: L2 added to the gradient for SGD, as in the papers' own training;
        decoupled for AdamW.
    no_decay: parameters that are not decayed.
    freeze: parameters that are not updated; a step computes no gradient of them.
        "all but head" extracts features.
    unfreeze: pairs of a step and of frozen parameters that learn once so many steps are
        taken, such as ((200, r"\\.layer4"), (400, "backbone")): from the top. Until
        then they neither move nor decay, nor count for clipping, nor gather momentum.
    statistics: of the batch norms that are frozen: "frozen" ones are used and stay as
        they are, "running" ones follow the batches.
    rates: factors of the learning rate for the parameters that they name, such as 10
        for new heads, cumulatively.
    clip_norm: a bound on the global norm of the gradient.

    Parameters are named by the model's `groups` (`types.Spec`), by regular expressions
    over dotted names, by "all", or by "all but" a group or an expression; "head" is
    what is not of the backbone, where a model has no group of that name.

    Raises UserError for any other `name`, and for stages that do not follow each other.
    """
    rate = learning_rate(steps=steps, **schedule)

    def named(said: str | Iterable[str]) -> Callable[[Any], Any]:
        return lambda params: matching(said, params, groups)

    decay_mask = None
    if no_decay:

        def decay_mask(params):
            return jax.tree.map(lambda hit: not hit, named(no_decay)(params))

    decayed = optax.add_decayed_weights(weight_decay, decay_mask)
    if name == "sgd":
        core = [decayed, optax.trace(momentum, nesterov)]
    elif name == "adamw":
        core = [optax.scale_by_adam(b1=momentum, b2=b2, nesterov=nesterov), decayed]
    else:
        raise UserError(f"optimizer.name={name!r} is not 'sgd' or 'adamw'")
    unfreezing.check_stages(unfreeze, freeze, steps)
    first = unfreezing.begins(freeze, unfreeze, groups)
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    rated = [optax.scale_by_learning_rate(rate)]
    for said, factor in (rates or {}).items():
        rated.append(optax.masked(optax.scale(factor), named(said)))
    if unfreeze:
        # Gradients wait too: they do not count for clipping.
        gate = unfreezing.by_stage(optax.identity, first, unfreeze)
        staged = unfreezing.by_stage(lambda: optax.chain(*core), first, unfreeze)
        parts = [gate, *clip, staged, *rated]
    else:
        parts = [*clip, *core, *rated]
    if freeze and not unfreeze:
        # Zeroed on both sides: frozen gradients do not count for clipping, and decay
        # does not move frozen weights.
        zero = optax.masked(optax.set_to_zero(), named(freeze))
        parts = [zero, *parts, zero]
    chain = optax.chain(*parts)
    stages = tuple(step for step, _ in unfreeze)
    made = Optimizer(chain.init, chain.update, first, stages, statistics == "frozen")
    return made, rate


def split_frozen(optimizer: Any, params: Any, step: int = 0) -> tuple[Any, Any]:
    """`params` that update `step` moves, and those it does not; None for the others.

    One of optax's own moves all.
    """
    if not isinstance(optimizer, Optimizer):
        return params, jax.tree.map(lambda x: None, params)
    held = optimizer.frozen(params, step)
    return (
        jax.tree.map(lambda x, frozen: None if frozen else x, params, held),
        jax.tree.map(lambda x, frozen: x if frozen else None, params, held),
    )


def joined(one: Any, other: Any) -> Any:
    """The whole of two trees that `split_frozen` has made."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, one, other, is_leaf=lambda x: x is None
    )


def frozen_norms(optimizer: Any, params: Any, step: int = 0) -> frozenset[str]:
    """The dotted names of the layers whose batch statistics stay at update `step`.

    Those of which every parameter is frozen; none of one of optax's own.
    """
    if not isinstance(optimizer, Optimizer) or not optimizer.frozen_statistics:
        return frozenset()
    layers: dict[str, bool] = {}
    for name, frozen in zip(
        jax.tree.leaves(names(params)),
        jax.tree.leaves(optimizer.frozen(params, step)),
        strict=True,
    ):
        layer = name.rpartition(".")[0]
        layers[layer] = layers.get(layer, True) and frozen
    return frozenset(layer for layer, frozen in layers.items() if frozen)
