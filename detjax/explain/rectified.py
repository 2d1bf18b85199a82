"""Rectifiers with other gradients, in any network, without touching its code.

A function is traced, and evaluated again with the derivative of every rectifier
replaced: of ReLU, ReLU6 and leaky ReLU, of jax's functions of these names, wherever
they stand: in functions that are jitted, checkpointed, scanned, or chosen by `cond`.
SiLU, hard swish and other gates are no rectifiers, and keep their derivatives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from detjax.errors import UserError
from detjax.types import Array

NAMES = ("relu", "relu6", "leaky_relu")
# Made of a rectifier without being one.
GATES = ("hard_sigmoid", "hard_swish", "hard_silu", "hard_tanh")
# (the rectifier's own function back, what arrives at its output) -> at its input
Rule = Callable[[Callable[[Array], Array], Array], Array]


def guided(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` whose rectifiers let only positive gradients pass (guided backprop).

    Of these what their own derivatives let pass (Springenberg et al. 2015, section 3).
    Raises UserError when called where there is no rectifier.
    """
    return replaced(call, lambda back, slope: back(jax.nn.relu(slope)))


def deconvnet(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` whose rectifiers let positive gradients pass, whatever their inputs were.

    Zeiler and Fergus 2014, section 2.1. Raises UserError when called where there is no
    rectifier.
    """
    return replaced(call, lambda back, slope: jax.nn.relu(slope))


def replaced(call: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """`call` with the derivatives of its rectifiers by `rule`; values are the same."""

    def changed(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(call, return_shape=True)(*args)
        if not count(closed.jaxpr):
            raise UserError(
                "the network has no rectifier (relu, relu6 or leaky_relu), so that "
                "guided backpropagation and the deconvnet would be its plain gradient; "
                "choose another method"
            )
        flat = jax.tree.leaves(args)
        found = _evaluated(closed.jaxpr, closed.consts, flat, rule)
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return changed


def count(jaxpr: Any) -> int:
    """How many rectifiers a program has; those of a loop's body count once."""
    total = 0
    for equation in jaxpr.eqns:
        if _is_rectifier(equation):
            total += 1
        else:
            total += sum(count(inner) for inner in _inside(equation))
    return total


def rectifiers(call: Callable[..., Any], *args: Any) -> int:
    """How many rectifiers `call` has that `guided` and `deconvnet` replace."""
    return count(jax.make_jaxpr(call)(*args).jaxpr)


def _is_rectifier(equation: Any) -> bool:
    return equation.params.get("name") in NAMES and len(equation.outvars) == 1


def _inside(equation: Any) -> list[Any]:
    """The programs that an equation calls, without those of its derivatives."""
    found: list[Any] = []
    if equation.params.get("name") in GATES:
        return found
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                found.append(each.jaxpr)
            elif isinstance(each, core.Jaxpr):
                found.append(each)
    return found


def _evaluated(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], rule: Rule
) -> list[Any]:
    """What `jaxpr` computes of `args`."""
    held = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else held[variable]

    for equation in jaxpr.eqns:
        given = [read(v) for v in equation.invars]
        if _is_rectifier(equation):
            found = _rectified(equation, given, rule)
        elif any(map(count, _inside(equation))):
            found = _opened(equation, given, rule)
        else:
            found = _bound(equation, given)
        held.update(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _bound(equation: Any, given: Sequence[Any]) -> list[Any]:
    """What an equation computes as it stands."""
    params = equation.primitive.get_bind_params(equation.params)
    # Earlier versions of JAX have the functions of a call apart.
    functions, params = params if isinstance(params, tuple) else ((), params)
    found = equation.primitive.bind(*functions, *given, **params)
    return [*found] if equation.primitive.multiple_results else [found]


def _rectified(equation: Any, given: Sequence[Any], rule: Rule) -> list[Any]:
    """A rectifier, of which only the first input has a derivative."""
    first, *rest = given

    def own(x: Array) -> Array:
        return _bound(equation, [x, *rest])[0]

    @jax.custom_vjp
    def call(x: Array) -> Array:
        return own(x)

    def backward(x: Array, slope: Array) -> tuple[Array]:
        return (rule(lambda arrived: jax.vjp(own, x)[1](arrived)[0], slope),)

    call.defvjp(lambda x: (own(x), x), backward)
    return [call(first)]


def _opened(equation: Any, given: Sequence[Any], rule: Rule) -> list[Any]:
    """What an equation that calls programs with rectifiers computes.

    Derivatives that such a function has of its own are lost.
    """
    kind, params = equation.primitive.name, equation.params
    if kind == "scan":
        return _scanned(params, given, rule)
    if kind == "cond":
        branches = [_function(each, rule) for each in params["branches"]]
        return [*jax.lax.switch(given[0], branches, *given[1:])]
    if kind == "while":
        raise UserError(
            "a rectifier stands in a loop of unknown length, through which there is no "
            "gradient; choose another method"
        )
    inner = next(
        each
        for key in ("jaxpr", "call_jaxpr", "fun_jaxpr")
        if (each := params.get(key)) is not None
    )
    # All of a custom derivative's inputs are the function's own, so `given` fits.
    call = _function(inner, rule)
    if kind in ("checkpoint", "remat2", "remat"):
        call = jax.checkpoint(
            call,
            policy=params.get("policy"),
            prevent_cse=params.get("prevent_cse", True),
        )
    return [*call(*given)]


def _function(program: Any, rule: Rule) -> Callable[..., list[Any]]:
    """A function of a program, with rectifiers as `rule` says."""
    closed = isinstance(program, core.ClosedJaxpr)
    jaxpr, consts = (program.jaxpr, program.consts) if closed else (program, ())
    return lambda *args: _evaluated(jaxpr, consts, args, rule)


def _scanned(params: Any, given: Sequence[Any], rule: Rule) -> list[Any]:
    """A scan whose body has rectifiers."""
    body = _function(params["jaxpr"], rule)
    fixed, carried = params["num_consts"], params["num_carry"]
    consts, start, rows = (
        given[:fixed],
        given[fixed : fixed + carried],
        given[fixed + carried :],
    )

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        found = body(*consts, *carry, *row)
        kept = [jnp.asarray(x, c.dtype) for x, c in zip(found, carry, strict=False)]
        return kept, found[carried:]

    end, each = jax.lax.scan(
        step,
        [jnp.asarray(x) for x in start],
        [*rows],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*end, *each]
