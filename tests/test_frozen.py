"""Steps of a network that is frozen in part: what they move, count and cost."""

import jax
import numpy as np
import optax
import pytest
from families import TINY, batch, variables

from detjax import models, optim, sharding, train

MODEL = models.make(**TINY["yolact-frozen-norm"])
LAYOUT = sharding.make(devices=jax.devices()[:1])
BACKBONE, ALL = ("backbone",), ("backbone", "fpn", "box", "mask")


def optimizer(freeze, **settings):
    schedule = {"peak": 0.01, "decay": "constant"}
    options = {"weight_decay": 0.1, "groups": MODEL.spec.groups, **settings}
    return optim.make(steps=9, schedule=schedule, freeze=freeze, **options)[0]


def step(made, accumulate=1):
    """The jitted step and a run to start it from."""
    params, state = variables("yolact-frozen-norm")
    run = train.TrainState(
        step=np.int32(0),
        params=params,
        state=state,
        opt_state=made.init(params),
        key=jax.random.key_data(jax.random.key(0)),
    )
    return jax.jit(train.make_step(MODEL, made, LAYOUT, accumulate)), run


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_step_moves_and_counts_what_learns(accumulate):
    """Exactly as much as a step that computes the other gradients too."""
    taken, run = step(optimizer(BACKBONE, clip_norm=0.5), accumulate)
    after, metrics = taken(run, batch(), 1)
    # One that nothing knows to be frozen, since it is not one of `optim`.
    plain = optimizer(BACKBONE, clip_norm=0.5)
    plain = optax.GradientTransformation(plain.init, plain.update)
    taken, run = step(plain, accumulate)
    expected, whole = taken(run, batch(), 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        after,
        expected,
    )
    jax.tree.map(
        np.testing.assert_array_equal, after.params["backbone"], run.params["backbone"]
    )
    assert metrics["loss"] == pytest.approx(float(whole["loss"]), rel=1e-6)
    assert 0 < metrics["grad_norm"] < whole["grad_norm"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_of_what_is_all_frozen_moves_nothing(accumulate):
    taken, run = step(optimizer(ALL), accumulate)
    after, metrics = taken(run, batch(), 1)
    jax.tree.map(np.testing.assert_array_equal, after.params, run.params)
    assert metrics["grad_norm"] == metrics["update_norm"] == 0
    assert metrics["loss"] > 0 and after.step == 1


def test_what_is_frozen_costs_no_backward_pass():
    """The backbone is more than half of the work; its activations are not kept."""

    def cost(freeze):
        taken, run = step(optimizer(freeze))
        compiled = taken.lower(run, batch(16), 1).compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        return compiled.cost_analysis()["flops"], memory

    (all_flops, all_memory), (flops, memory) = cost(None), cost(BACKBONE)
    assert flops < 0.75 * all_flops
    assert memory < 0.75 * all_memory
    print(flops / all_flops, memory / all_memory)
