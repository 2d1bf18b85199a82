"""Schedules, weight decay, freezing and learning rates by name, on top of optax."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import optax

from detjax.errors import UserError
from detjax.settings import Count, Fraction, NonNegative, Pattern, Positive, Whole


class Optimizer(NamedTuple):
    """An optax transformation, and which parameters it leaves as they are."""

    init: optax.TransformInitFn
    update: optax.TransformUpdateExtraArgsFn
    # (params) -> True for every leaf that never moves
    frozen: Callable[[Any], Any]


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


def names(params: Any) -> Any:
    """The dotted name of every leaf, in a tree like `params`: 'fpn.p6.kernel'."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: ".".join(str(p.key) for p in path), params
    )


def matching(
    said: str | Iterable[str], params: Any, groups: Mapping[str, str] | None = None
) -> Any:
    """True for every leaf of `params` that `said` names; see `patterns`."""
    parts = patterns(said, groups or {}).values()
    return jax.tree.map(
        lambda name: any(re.search(part, name) for part in parts), names(params)
    )


def make(
    *,
    steps: Whole,
    schedule: Mapping[str, Any],
    name: Literal["sgd", "adamw"] = "sgd",
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    b2: Fraction = 0.999,
    weight_decay: NonNegative = 0.0,
    no_decay: Pattern | tuple[Pattern, ...] | None = None,
    freeze: Pattern | tuple[Pattern, ...] | None = None,
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
    rates: factors of the learning rate for the parameters that they name, such as 10
        for new heads, cumulatively.
    clip_norm: a bound on the global norm of the gradient.

    Parameters are named by the model's `groups` (`types.Spec`) or by regular
    expressions over dotted names.

    Raises UserError for any other `name`.
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
        parts = [decayed, optax.trace(momentum, nesterov)]
    elif name == "adamw":
        parts = [optax.scale_by_adam(b1=momentum, b2=b2, nesterov=nesterov), decayed]
    else:
        raise UserError(f"optimizer.name={name!r} is not 'sgd' or 'adamw'")
    parts.append(optax.scale_by_learning_rate(rate))
    for said, factor in (rates or {}).items():
        parts.append(optax.masked(optax.scale(factor), named(said)))
    if clip_norm:
        parts.insert(0, optax.clip_by_global_norm(clip_norm))
    if freeze:
        # Zeroed on both sides: frozen gradients do not count for clipping, and decay
        # does not move frozen weights.
        zero = optax.masked(optax.set_to_zero(), named(freeze))
        parts = [zero, *parts, zero]
    chain = optax.chain(*parts)
    return Optimizer(chain.init, chain.update, named(freeze or ())), rate


def divided(optimizer: Any, params: Any) -> tuple[Any, Any]:
    """`params` that the optimizer moves, and those it does not; None for the others.

    One of optax's own moves all.
    """
    if not isinstance(optimizer, Optimizer):
        return params, jax.tree.map(lambda x: None, params)
    still = optimizer.frozen(params)
    return (
        jax.tree.map(lambda x, frozen: None if frozen else x, params, still),
        jax.tree.map(lambda x, frozen: x if frozen else None, params, still),
    )


def joined(one: Any, other: Any) -> Any:
    """The whole of two trees that `divided` has made."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, one, other, is_leaf=lambda x: x is None
    )


def patterns(said: str | Iterable[str], groups: Mapping[str, str]) -> dict[str, str]:
    """A regular expression for each of `said`: names of groups, or expressions."""
    parts = [said] if isinstance(said, str) else said
    return {part: groups.get(part, part) for part in parts}


def check_names(
    params: Any,
    groups: Mapping[str, str],
    *,
    no_decay: str | Iterable[str] | None = None,
    freeze: str | Iterable[str] | None = None,
    rates: Mapping[str, float] | None = None,
    **_: Any,
) -> None:
    """Raises UserError if a setting of `make` matches none of `params`.

    These are arrays or shapes, as `jax.eval_shape` of a model's init gives them.
    """
    known = jax.tree.leaves(names(params))
    settings = {"no_decay": no_decay, "freeze": freeze, "rates": rates}
    for key, said in settings.items():
        for part, pattern in patterns(said or (), groups).items():
            if not any(re.search(pattern, name) for name in known):
                raise UserError(
                    f"optimizer.{key}={said!r} names {part!r}, which matches no "
                    f"parameter; groups are {', '.join(groups) or 'none'}, parameters "
                    f"are called {known[0]!r} and so on"
                )
