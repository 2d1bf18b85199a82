"""Schedules at their corners; decay and freezing by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from detjax import optim, parameters
from detjax.errors import UserError

PARAMS = {"bn1": {"scale": jnp.ones(2)}, "conv": {"kernel": jnp.ones(2)}}


def updates(gradient=0.5, steps=1, **kwargs):
    """How far each parameter has moved after equal gradients."""
    transform, _ = optim.make(
        steps=10, schedule={"peak": 0.1, "decay": "constant"}, **kwargs
    )
    state = transform.init(PARAMS)
    g = {k: {n: jnp.full(2, gradient) for n in v} for k, v in PARAMS.items()}
    for _ in range(steps):
        u, state = transform.update(g, state, PARAMS)
    return {
        "scale": float(u["bn1"]["scale"][0]),
        "kernel": float(u["conv"]["kernel"][0]),
    }


def test_sgd_is_torchs():
    # g = 0.5 + 0.2 * 1; v = g, then 0.9 v + g; p -= 0.1 v
    assert updates(weight_decay=0.2)["kernel"] == pytest.approx(-0.07)
    assert updates(weight_decay=0.2, steps=2)["kernel"] == pytest.approx(-0.133)


def test_decay_spares_what_it_is_told_to():
    moved = updates(weight_decay=0.2, no_decay=r"\.scale$")
    assert moved["scale"] == pytest.approx(-0.05)
    assert moved["kernel"] == pytest.approx(-0.07)


def test_adamw_decays_apart_from_the_gradient():
    assert updates(name="adamw", weight_decay=0.2)["kernel"] == pytest.approx(
        -0.12, rel=1e-4
    )


def test_frozen_parameters_do_not_move_and_do_not_count_for_clipping():
    moved = updates(freeze=r"^bn1\.", weight_decay=0.2, clip_norm=0.1, gradient=3.0)
    assert moved["scale"] == 0
    # Only the kernel's two elements share the norm of 0.1; decay comes after.
    assert moved["kernel"] == pytest.approx(-0.1 * (0.1 / np.sqrt(2) + 0.2), rel=1e-5)


def test_parameters_are_divided_by_what_is_frozen():
    rate = {"steps": 10, "schedule": {"peak": 0.1}}
    some, _ = optim.make(freeze="norm", groups={"norm": r"^bn1\."}, **rate)
    learnt, frozen = optim.split_frozen(some, PARAMS)
    assert learnt == {"bn1": {"scale": None}, "conv": PARAMS["conv"]}
    assert frozen == {"bn1": PARAMS["bn1"], "conv": {"kernel": None}}
    assert optim.joined(learnt, frozen) == PARAMS
    for whole in (optim.make(**rate)[0], optax.sgd(0.1)):
        learnt, frozen = optim.split_frozen(whole, PARAMS)
        assert learnt == optim.joined(learnt, frozen) == PARAMS
        assert not jax.tree.leaves(frozen)


def test_an_optimizer_is_one_of_optaxs():
    own, _ = optim.make(steps=10, schedule={"peak": 0.1}, freeze="scale")
    chained = optax.chain(own, optax.scale(2.0))
    g = jax.tree.map(jnp.ones_like, PARAMS)
    once, _ = own.update(g, own.init(PARAMS), PARAMS)
    twice, _ = chained.update(g, chained.init(PARAMS), PARAMS)
    assert twice["conv"]["kernel"][0] == 2 * once["conv"]["kernel"][0] != 0


def test_rates_multiply_what_they_name():
    plain = updates(weight_decay=0.2)
    slowed = updates(
        weight_decay=0.2, rates={"norm": 0.25, "kernel$": 2}, groups={"norm": r"^bn1\."}
    )
    assert slowed["scale"] == 0.25 * plain["scale"]
    assert slowed["kernel"] == 2 * plain["kernel"]
    both = updates(weight_decay=0.2, rates={"bn1": 0.5, "scale": 0.5})
    assert both["scale"] == 0.25 * plain["scale"]
    assert updates(rates={"bn1": 0.0})["scale"] == 0


def test_freezing_and_decay_take_names_of_groups():
    groups = {"norm": r"^bn1\.", "layers": r"^conv\."}
    assert updates(freeze=("norm",), groups=groups)["scale"] == 0
    assert updates(freeze="norm", groups=groups)["kernel"] != 0
    assert updates(freeze=("norm", "^conv"), groups=groups) == {"scale": 0, "kernel": 0}
    spared = updates(weight_decay=0.2, no_decay=("norm",), groups=groups)
    assert spared == updates(weight_decay=0.2, no_decay=r"\.scale$")


@pytest.mark.parametrize(
    "settings, words",
    [
        (
            {"freeze": "backbon3"},
            "optimizer.freeze='backbon3' names 'backbon3', which matches no parameter; "
            "groups are norm, parameters are called 'bn1.scale' and so on",
        ),
        ({"freeze": ("norm", "^b2")}, "optimizer.freeze=('norm', '^b2') names '^b2'"),
        ({"no_decay": r"\.bias$"}, "optimizer.no_decay="),
        ({"rates": {"norm": 1, "backbone": 0.1}}, "names 'backbone'"),
    ],
)
def test_names_of_nothing_are_a_sentence(settings, words):
    groups = {"norm": r"^bn1\."}
    with pytest.raises(UserError) as caught:
        parameters.check_names(PARAMS, groups, **settings)
    assert words in str(caught.value)
    parameters.check_names(PARAMS, groups, freeze=".*", rates={"norm": 2}, momentum=0.9)


def test_schedules():
    rate = optim.learning_rate(
        peak=1.0, steps=100, decay="steps", boundaries=(50, 80), warmup_steps=10
    )
    values = [float(rate(i)) for i in (0, 5, 10, 49, 51, 81)]
    np.testing.assert_allclose(values, [0, 0.5, 1, 1, 0.1, 0.01], rtol=1e-6)
    rate = optim.learning_rate(peak=2.0, steps=100)
    values = [float(rate(i)) for i in (0, 50, 100)]
    np.testing.assert_allclose(values, [2, 1, 0], atol=1e-6)


def test_unknown_names_are_errors():
    with pytest.raises(UserError, match="'linear'"):
        optim.learning_rate(peak=1, steps=1, decay="linear")
    with pytest.raises(UserError, match=r"schedule\.boundaries"):
        optim.learning_rate(peak=1, steps=1, decay="steps")
    with pytest.raises(ValueError, match="'lamb'"):
        updates(name="lamb")
