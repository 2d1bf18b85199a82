"""Rematerialisation: the same numbers under the same names, in less memory."""

import json

import jax
import numpy as np
import pytest
from families import TINY, batch, key

from detjax import backbones, experiment, models, resume
from detjax.types import Label

FAMILIES = {
    "resnet18": {"width": 8},
    "resnet50": {"width": 8, "norm": "frozen", "stages": 2},
    "vgg11_bn": {"width": 8},
    "darknet53": {"width": 4, "blocks": (1, 1, 2, 1, 1)},
    "alexnet": {"width": 8, "norm": None},
}


def gradient(net, variables, images):
    """The squares' sum of the features, its gradient and the statistics."""
    params, state = variables["params"], {**variables}
    del state["params"]

    def loss(params):
        found, updated = net.apply(
            {"params": params, **state},
            images,
            train=True,
            mutable=[*state],
            rngs={"dropout": jax.random.key(3)},
        )
        return sum((x**2).mean() for x in jax.tree.leaves(found)), updated

    return jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params).compile()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_backbone_has_the_same_gradients_under_the_same_names(name):
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    plain, remat = (
        backbones.make(name, **FAMILIES[name], remat=again) for again in (False, True)
    )
    first, second = (
        jax.jit(net.init)(jax.random.key(0), images) for net in (plain, remat)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)
    (ours, our_state), our_slope = gradient(plain, first, images)(first["params"])
    (theirs, state), slope = gradient(remat, first, images)(first["params"])
    near = {"rtol": 1e-5, "atol": 1e-6}
    for one, other in ((ours, theirs), (our_state, state), (our_slope, slope)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **near), one, other)


def kept(net, images):
    """Bytes of the maps that the forward pass keeps for the backward pass."""
    held = jax.eval_shape(net.init, jax.random.key(0), images)

    def residuals(variables, images):
        def loss(params):
            found = net.apply({**variables, "params": params}, images)
            return sum((x**2).mean() for x in jax.tree.leaves(found))

        return jax.vjp(loss, variables["params"])[1]

    leaves = jax.tree.leaves(jax.eval_shape(residuals, held, images))
    # Kernels have 1, 3, 7 or 11 rows.
    maps = [x for x in leaves if x.ndim == 4 and x.shape[0] == 2 and x.shape[3] != 3]
    return sum(x.size * x.dtype.itemsize for x in maps)


MANY = {
    "resnet50": {"width": 8},
    "darknet53": {"width": 8},
    "vgg16_bn": {"width": 8},
    "alexnet": {"width": 8},
}


@pytest.mark.parametrize("name", MANY)
def test_less_is_kept_for_the_backward_pass(name):
    """XLA may merge what is equal again, as it does on CPUs; see the next test."""
    images = jax.ShapeDtypeStruct((2, 128, 128, 3), "float32")
    norm = {} if name == "alexnet" else {"norm": "frozen"}
    plain, remat = (
        kept(backbones.make(name, **MANY[name], **norm, remat=again), images)
        for again in (False, True)
    )
    assert remat < 0.5 * plain


def barriers(config, remat):
    """The places in the program of a gradient where XLA must compute again."""
    config = {**config, "backbone": {**config["backbone"], "remat": remat}}
    made, data = models.make(**config), batch()
    params, state = jax.eval_shape(made.init, key(), data.inputs.images)

    def loss(params, state):
        return made.loss(params, state, data, key())[0]

    # Programs of other devices cannot be run here, but made.
    traced = jax.jit(jax.grad(loss)).trace(params, state)
    return traced.lower(lowering_platforms=("cuda",)).as_text().count("barrier")


@pytest.mark.parametrize(
    # A block a stage and what is before them; the last stage of C4 is its head.
    ("name", "blocks"),
    [("yolact-boxes", 4), ("faster_rcnn_c4", 5), ("fast_rcnn", 5), ("rcnn", 5)],
)
def test_every_family_has_it(name, blocks):
    # RoIPool has one of its own, whatever the backbone does.
    own = int(name == "fast_rcnn")
    assert barriers(TINY[name], False) == own
    assert barriers(TINY[name], True) == blocks + own


def test_a_classifier_learns_as_without():
    def made(remat):
        backbone = {"name": "resnet10", "width": 8, "remat": remat}
        return models.make("classifier", num_classes=3, backbone=backbone)

    data = batch()
    data = data.replace(target=Label(np.eye(3, dtype=np.float32)[:2]))
    params, state = jax.jit(made(False).init)(key(), data.inputs.images)
    found = [
        jax.jit(jax.value_and_grad(made(remat).loss, has_aux=True))(
            params, state, data, key()
        )
        for remat in (False, True)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found
    )


def test_a_run_may_change_it():
    from configs import quickstart

    held = experiment.resolve(quickstart.get_config())
    before = experiment.complete(held)
    held["model"]["backbone"] = {**held["model"]["backbone"], "remat": True}
    now = experiment.complete(held)
    assert [*experiment.changes(before, now)] == ["model.backbone.remat"]
    described = (json.loads(json.dumps(held)) for held in (before, now))
    resume.compare(*described, "workdir", step=1)
