"""Classifiers: losses by their formulas, padding, groups, a tiny overfit."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from detjax import models
from detjax.models.classifier import Loss
from detjax.types import Batch, Inputs, Label, View

BACKBONES = {
    "resnet10": {"name": "resnet10", "width": 8},
    "vgg11_bn": {"name": "vgg11_bn", "width": 4},
    "alexnet": {"name": "alexnet", "width": 2, "dropout": 0.0},
}


def batch(count=4, side=64, classes=3):
    """Pictures of one shade, which is their class."""
    labels = np.arange(count) % classes
    images = np.broadcast_to(
        (60 * labels + 40).astype(np.uint8)[:, None, None, None], (count, side, side, 3)
    ).copy()
    view = View(
        affine=np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
        sizes=np.full((count, 2), side, np.int32),
        valid=np.ones(count, bool),
    )
    weights = np.eye(classes, dtype=np.float32)[labels]
    return Batch(Inputs(images, view), Label(weights), np.arange(count, dtype=np.int32))


def test_the_softmax_loss_is_cross_entropy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 5)
    got = Loss()(logits, Label(np.eye(4, dtype=np.float32)[labels]))
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(got, -log_probs[np.arange(5), labels], rtol=1e-5)


def test_smoothing_is_optaxs():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    weights = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 5)]
    got = Loss(smoothing=0.1)(logits, Label(weights))
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(weights, 0.1))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_several_classes_are_a_question_each():
    logits = np.float32([[2, -1, 0.5]])
    weights = np.float32([[1, 0, 1]])
    got = Loss(several=True)(logits, Label(weights))
    probs = 1 / (1 + np.exp(-logits))
    expected = -(weights * np.log(probs) + (1 - weights) * np.log(1 - probs)).sum()
    np.testing.assert_allclose(got, [expected], rtol=1e-5)
    np.testing.assert_allclose(Loss(several=True).scores(logits), probs, rtol=1e-5)


def test_an_image_without_a_class_has_a_finite_loss():
    got = jax.grad(lambda x: Loss()(x, Label(jnp.zeros((2, 3)))).sum())(
        jnp.ones((2, 3))
    )
    assert np.isfinite(got).all()


@pytest.fixture(scope="module")
def tiny():
    model = models.make("classifier", num_classes=3, backbone=BACKBONES["resnet10"])
    params, state = jax.jit(model.init)(jax.random.key(0), batch().inputs.images)
    return model, params, state


def test_images_that_fill_up_a_batch_reach_neither_loss_nor_gradient(tiny):
    """Under a frozen norm; batch statistics are those of all that is shown."""
    backbone = {**BACKBONES["resnet10"], "norm": "frozen"}
    model = models.make("classifier", num_classes=3, backbone=backbone)
    _, params, state = tiny
    whole = batch(4)
    valid = np.array([True, True, True, False])
    view = dataclasses.replace(whole.inputs.view, valid=valid)
    junk = whole.inputs.images.copy()
    junk[3] = 200
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    found = [
        step(
            params,
            state,
            dataclasses.replace(whole, inputs=Inputs(images, view)),
            jax.random.key(1),
        )
        for images in (whole.inputs.images, junk)
    ]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_every_parameter_is_in_one_group(tiny):
    for name in BACKBONES:
        model = models.make("classifier", num_classes=3, backbone=BACKBONES[name])
        shapes, _ = jax.eval_shape(model.init, jax.random.key(0), batch().inputs.images)
        for path in traverse_util.flatten_dict(shapes):
            dotted = ".".join(path)
            hits = [g for g, p in model.spec.groups.items() if re.search(p, dotted)]
            assert len(hits) == 1, (name, dotted, hits)


def test_shades_are_learnt(tiny):
    model, params, state = tiny
    data = batch(6, side=32)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, memory):
        (_, (state, metrics)), gradient = jax.value_and_grad(model.loss, has_aux=True)(
            params, state, data, jax.random.key(0)
        )
        updates, memory = optimizer.update(gradient, memory)
        return optax.apply_updates(params, updates), state, memory, metrics

    memory = optimizer.init(params)
    for _ in range(40):
        params, state, memory, metrics = step(params, state, memory)
    assert metrics["correct"] == 1
    assert metrics["class"] < 0.1
    scores = jax.jit(model.predict)(params, state, data.inputs).scores
    assert scores.shape == (6, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
