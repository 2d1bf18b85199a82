"""Exponential moving averages of weights, for any model."""

from typing import Any

import jax
import jax.numpy as jnp

from detjax.errors import UserError
from detjax.types import Model, Params, State

# The collection of a model's state that holds the average.
EMA = "ema"


def ema(model: Model, decay: float) -> Model:
    """`model`, predicting with the moving average of its parameters and statistics.

    After update t, from 0, average += (1 - d) * (weights - average), where d is
    min(`decay`, t / (t + 10)): the average begins as a copy of the weights and its
    memory grows with the run. It is a part of the state, in float32, so checkpoints
    have it. Losses and gradients are those of the weights themselves.

    Raises UserError for a model that solves for parameters after gradient descent.
    """
    if model.solve is not None:
        raise UserError(
            "model.ema cannot be set for a model that solves for its last parameters "
            "after gradient descent; leave it out"
        )

    def init(key: jax.Array, images: Any) -> tuple[Params, State]:
        params, state = model.init(key, images)
        copy = jax.tree.map(jnp.copy, {"params": params, "state": state})
        return params, {**state, EMA: {"updates": jnp.zeros(()), **copy}}

    def loss(params: Params, state: State, batch: Any, key: jax.Array) -> Any:
        value, (after, metrics) = model.loss(params, own(state), batch, key)
        return value, ({**after, EMA: state[EMA]}, metrics)

    def updated(params: Params, state: State) -> State:
        held = state[EMA]
        t = held["updates"]
        rest = 1 - jnp.minimum(decay, t / (t + 10))
        now = {"params": params, "state": own(state)}
        before = {name: held[name] for name in now}
        mean = jax.tree.map(lambda a, x: a + rest * (x - a), before, now)
        return {**state, EMA: {"updates": t + 1, **mean}}

    def predict(params: Params, state: State, inputs: Any) -> Any:
        return model.predict(*weights(params, state), inputs)

    return model._replace(init=init, loss=loss, predict=predict, updated=updated)


def own(state: State) -> State:
    """`state` without an average."""
    return {name: value for name, value in state.items() if name != EMA}


def weights(params: Params, state: State) -> tuple[Params, State]:
    """The parameters and state to predict with: their average where there is one."""
    held = state.get(EMA)
    # Checkpoints leave empty dicts out.
    return (held["params"], held.get("state") or {}) if held else (params, state)
