"""Stages: what is still frozen is inert, and begins as it would in a run of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import TINY

from detjax import models, optim, parameters, sharding, train
from detjax.errors import UserError
from detjax.types import Batch, Inputs, Label, View

GROUPS = {"backbone": r"^body\.", "head": r"^fc\."}
PARAMS = {
    "body": {"low": jnp.full(2, 3.0), "top": jnp.full(2, 2.0)},
    "fc": {"kernel": jnp.ones(2)},
}
STAGES = ((2, r"\.top$"), (4, "all"))


def made(**settings):
    options = {
        "steps": 9,
        "schedule": {"peak": 0.1, "decay": "constant"},
        "weight_decay": 0.1,
        "groups": GROUPS,
        **settings,
    }
    return optim.make(**options)[0]


def run(optimizer, params, steps, state=None, gradient=0.5):
    state = optimizer.init(params) if state is None else state
    found = [params]
    for _ in range(steps):
        g = jax.tree.map(lambda x: jnp.full_like(x, gradient), params)
        updates, state = optimizer.update(g, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append(params)
    return found, state


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_stage_begins_as_in_a_run_of_its_own(name):
    """Without decay or moments of earlier steps; bias corrections are its own."""
    staged = made(name=name, freeze="all but head", unfreeze=STAGES)
    found, _ = run(staged, PARAMS, 6)
    alone, _ = run(made(name=name), PARAMS, 6)
    for leaf, start in (("top", 2), ("low", 4)):
        for i, params in enumerate(found):
            expected = alone[max(i - start, 0)]["body"][leaf]
            np.testing.assert_allclose(params["body"][leaf], expected, rtol=1e-6)
    for params, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(
            params["fc"]["kernel"], expected["fc"]["kernel"], rtol=1e-6
        )


def test_what_sleeps_does_not_count_for_clipping():
    staged = made(freeze="backbone", unfreeze=STAGES, clip_norm=0.1, weight_decay=0)
    found, _ = run(staged, PARAMS, 1)
    moved = found[1]["fc"]["kernel"] - PARAMS["fc"]["kernel"]
    np.testing.assert_allclose(moved, -0.1 * 0.1 / np.sqrt(2), rtol=1e-5)


def test_a_staged_run_goes_on_where_it_was():
    staged = made(name="adamw", freeze="backbone", unfreeze=STAGES)
    whole, _ = run(staged, PARAMS, 6)
    first, state = run(staged, PARAMS, 3)
    rest, _ = run(staged, first[-1], 3, jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, whole[-1], rest[-1])


def test_what_is_never_set_free_stays():
    staged = made(freeze="backbone", unfreeze=((1, r"\.top$"),))
    found, _ = run(staged, PARAMS, 3)
    np.testing.assert_array_equal(found[-1]["body"]["low"], 3.0)
    assert staged.frozen(PARAMS, 0)["body"] == {"low": True, "top": True}
    assert staged.frozen(PARAMS, 1)["body"] == {"low": True, "top": False}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"unfreeze": STAGES}, "set optimizer.freeze too"),
        ({"freeze": "all", "unfreeze": STAGES[::-1]}, "4, 2, do not rise"),
        ({"freeze": "all", "unfreeze": ((3, "a"), (3, "b"))}, "each step once"),
        ({"freeze": "all", "unfreeze": ((9, "all"),)}, "at step 9.*never comes to"),
    ],
)
def test_stages_that_do_not_follow_are_a_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        made(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"freeze": "all but haed"}, "names 'all but haed', which matches no"),
        ({"freeze": "head", "unfreeze": ((1, "nose"),)}, "unfreeze: 1='nose'"),
        ({"freeze": "head", "unfreeze": ((1, "backbone"),)}, "nothing is frozen"),
        ({"freeze": "all", "unfreeze": ((1, "all"), (2, "head"))}, "at step 2"),
    ],
)
def test_names_of_nothing_are_a_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        parameters.check_names(PARAMS, GROUPS, **settings)
    parameters.check_names(PARAMS, GROUPS, freeze="all but head", unfreeze=STAGES)


def test_all_but_the_head_is_the_backbone_of_every_model():
    named = parameters.matching("all but head", PARAMS, GROUPS)
    assert named == {"body": {"low": True, "top": True}, "fc": {"kernel": False}}
    # A detector has no group of that name: its head is all but the backbone.
    model = models.make(**TINY["retinanet"])
    shapes, _ = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8)
    )
    frozen = parameters.matching("all but head", shapes, model.spec.groups)
    assert frozen == parameters.matching("backbone", shapes, model.spec.groups)
    assert all(jax.tree.leaves(parameters.matching("all", PARAMS)))


def classified():
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    view = View(np.zeros((4, 2, 3), "f"), np.full((4, 2), 32), np.ones(4, bool))
    weights = np.eye(3, dtype="f")[[0, 1, 2, 0]]
    return Batch(Inputs(images, view), Label(weights), np.arange(4))


@pytest.mark.parametrize(
    ("statistics", "taken", "still"),
    [("frozen", 0, True), ("running", 0, False), ("frozen", 1, False)],
)
def test_frozen_norms_keep_their_statistics(statistics, taken, still):
    body = {"name": "resnet10", "width": 8}
    model = models.make("classifier", num_classes=3, backbone=body)
    optimizer = made(
        groups=model.spec.groups,
        freeze="all but head",
        unfreeze=((1, "all"),),
        statistics=statistics,
    )
    layout = sharding.make(devices=jax.devices()[:1])
    images = classified().inputs.images
    state = jax.jit(train.create, static_argnums=(0, 1, 3))(
        model.init, optimizer, images, 0
    )
    step = train.make_step(model, optimizer, layout, steps_taken=taken)
    after, metrics = jax.jit(step)(state, classified(), 1)
    same = jax.tree.map(lambda a, b: (a == b).all(), state.state, after.state)
    assert all(jax.tree.leaves(same)) == still
    if still:
        # As a network has it that is made with norms of that kind.
        frozen = models.make(
            "classifier", num_classes=3, backbone={**body, "norm": "frozen"}
        )
        value, _ = jax.jit(frozen.loss)(
            state.params, state.state, classified(), jax.random.key(0)
        )
        np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
