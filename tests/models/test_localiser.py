"""The localiser: boxes by their formulas, padding, two steps, a tiny overfit."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from detjax import models, optim
from detjax.models import localiser
from detjax.models.localiser import Loss
from detjax.types import Batch, Inputs, Objects, View

BACKBONE = {"name": "resnet10", "width": 8, "norm": "group"}
SIDE = 64


def batch(count=4, objects=None, seed=0):
    """Bright boxes on dark pictures; their brightness is their class."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(4, 24, (count, 1, 2))
    boxes = np.concatenate([low, low + rng.uniform(16, 32, low.shape)], -1)
    labels = np.arange(count)[:, None] % 2
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    for image, [box], [label] in zip(images, boxes.astype(int), labels, strict=True):
        image[box[1] : box[3], box[0] : box[2], label] = 255
    view = View(
        affine=np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
        sizes=np.full((count, 2), SIDE, np.int32),
        valid=np.ones(count, bool),
    )
    valid = np.ones((count, 1), bool)
    if objects is not None:
        valid[objects:] = False
    target = Objects(
        boxes.astype(np.float32), labels.astype(np.int32), valid, np.zeros_like(valid)
    )
    return Batch(Inputs(images, view), target, np.arange(count, dtype=np.int32))


def made(**settings):
    return models.make("localiser", num_classes=2, backbone=BACKBONE, **settings)


def begun(model):
    return jax.jit(model.init)(jax.random.key(0), batch().inputs.images)


def test_corners_invert_sides():
    found = np.float32([[3, 4, 20, 10], [0, 0, 40, 30]])
    sides = localiser.to_sides(found, (30, 40))
    np.testing.assert_allclose(sides[1], [0.5, 0.5, 1, 1])
    np.testing.assert_allclose(localiser.to_corners(sides, (30, 40)), found, rtol=1e-5)
    inside_out = localiser.to_corners(jnp.float32([0.5, 0.5, -1, 0.2]), (30, 40))
    np.testing.assert_allclose(inside_out, [20, 12, 20, 18])


@pytest.mark.parametrize(
    ("kind", "expected"), [("l1", 0.7), ("l2", 0.145), ("smooth_l1", 0.6)]
)
def test_losses_of_four_numbers(kind, expected):
    found = jnp.float32([[0.5, 0.2, 0.0, 0.0]])
    got = Loss(kind).box(found, jnp.zeros((1, 4)))
    np.testing.assert_allclose(got, [expected], rtol=1e-6)


@pytest.mark.parametrize("by_class", [False, True])
def test_a_box_is_learnt_of_its_own_class_alone(by_class):
    model, data = made(box={"by_class": by_class, "hidden": 8}), batch()
    params, state = begun(model)

    def loss(params):
        return model.loss(params, state, data, jax.random.key(0))[1][1]["box"]

    last = jax.jit(jax.grad(loss))(params)["box.1"]["kernel"].reshape(8, -1, 4)
    assert last.shape[1] == (2 if by_class else 1)
    assert (np.abs(last).sum(axis=(0, 2)) > 0).all()
    one = data.replace(target=data.target.replace(labels=np.zeros((4, 1), np.int32)))
    data = one
    last = jax.jit(jax.grad(loss))(params)["box.1"]["kernel"].reshape(8, -1, 4)
    moved = np.abs(last).sum(axis=(0, 2)) > 0
    assert moved.tolist() == ([True, False] if by_class else [True])


def test_pictures_without_an_object_reach_neither_loss_nor_gradient():
    model = made()
    params, state = begun(model)
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    whole = batch(objects=2)
    junk = whole.target.replace(
        boxes=whole.target.boxes + np.float32([[[0]], [[0]], [[9]], [[-50]]]),
        labels=np.int32([[0], [1], [1], [1]]),
    )
    found = [
        step(params, state, whole.replace(target=target), jax.random.key(1))
        for target in (whole.target, junk)
    ]
    jax.tree.map(np.testing.assert_array_equal, *found)
    crowd = whole.target.replace(crowd=np.ones((4, 1), bool))
    (nothing, _), gradient = step(
        params, state, whole.replace(target=crowd), jax.random.key(1)
    )
    assert nothing == 0
    assert not any(np.any(x) for x in jax.tree.leaves(gradient))


def test_boxes_stay_in_the_picture_and_have_one_for_each_class():
    model, data = made(), batch()
    params, state = begun(model)
    sizes = np.full((4, 2), SIDE // 2, np.int32)  # the rest is padding
    view = dataclasses.replace(data.inputs.view, sizes=sizes)
    found = jax.jit(model.predict)(
        params, state, dataclasses.replace(data.inputs, view=view)
    )
    assert found.boxes.shape == (4, 2, 4) and found.scores.shape == (4, 2)
    assert found.boxes.min() >= 0 and found.boxes.max() <= SIDE / 2
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-5)


def test_every_parameter_is_in_one_group():
    model = made()
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), batch().inputs.images)
    names = [".".join(path) for path in traverse_util.flatten_dict(shapes)]
    for name in names:
        hits = [g for g, p in model.spec.groups.items() if re.search(p, name)]
        assert len(hits) == 1, (name, hits)


def train(model, params, state, steps, freeze=None):
    data = batch(8)
    optimizer, _ = optim.make(
        steps=steps,
        schedule={"peak": 3e-3, "decay": "constant"},
        name="adamw",
        freeze=freeze,
        groups=model.spec.groups,
    )

    @jax.jit
    def step(params, state, memory):
        (_, (state, metrics)), gradient = jax.value_and_grad(model.loss, has_aux=True)(
            params, state, data, jax.random.key(0)
        )
        updates, memory = optimizer.update(gradient, memory, params)
        return optax.apply_updates(params, updates), state, memory, metrics

    memory = optimizer.init(params)
    for _ in range(steps):
        params, state, memory, metrics = step(params, state, memory)
    return params, state, metrics


@pytest.mark.slow
def test_class_and_place_are_learnt_at_once_and_in_two_steps():
    data = batch(8)
    truth = data.target.boxes[:, 0]

    def overlap(params, state):
        found = jax.jit(model.predict)(params, state, data.inputs)
        best = np.asarray(found.boxes)[np.arange(8), found.scores.argmax(axis=1)]
        low = np.maximum(best[:, :2], truth[:, :2])
        high = np.minimum(best[:, 2:], truth[:, 2:])
        inner = np.clip(high - low, 0, None).prod(axis=1)
        areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (best, truth)]
        return inner / (areas[0] + areas[1] - inner)

    model = made()
    params, state, metrics = train(model, *begun(model), 90)
    assert metrics["correct"] == 1
    assert overlap(params, state).mean() > 0.75
    # Classes first, then boxes on frozen features.
    first = made(loss={"weight": 0.0})
    params, state, metrics = train(first, *begun(first), 40)
    assert metrics["correct"] == 1 and overlap(params, state).mean() < 0.6
    kept = jax.tree.map(np.asarray, params["backbone"])
    params, state, metrics = train(model, params, state, 80, ("backbone", "class"))
    jax.tree.map(np.testing.assert_array_equal, kept, params["backbone"])
    assert metrics["correct"] == 1
    assert overlap(params, state).mean() > 0.7
