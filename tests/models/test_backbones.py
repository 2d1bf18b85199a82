"""Every backbone in a detector and in an instance segmenter, at its narrowest."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import RETINANET, YOLACT, batch

from detjax import backbones, models
from detjax.backbones import darknet
from detjax.backbones.pyramid import FPN, Backbone
from detjax.errors import UserError

# A member of each family and its narrowest width.
MEMBERS = {
    "alexnet": 2,
    "vgg11_bn": 1,
    "resnet10": 2,
    "resnext50_32x4d": 16,
    "darknet53": 1,
    "darknet19": 2,
    "cspdarknet53": 2,
    "mobilenet_v1": 1,
    "mobilenet_v2": 1,
    "mobilenet_v3_small": 1,
    "squeezenet1_1": 32,
    "shufflenet_v1_g3": 3,
    "shufflenet_v2_x0_5": 2,
    "lenet5": 6,
    "lenet_caffe": 4,
    "nin_imagenet": 6,
    "nin_cifar10": 6,
    "googlenet": 4,
    "inception_v3": 1,
    "inception_resnet_v2": 1,
    "xception": 1,
    "xception_aligned": 1,
    "densenet121": 4,
    "dla34": 1,
}
# Built in six seconds.
LARGE = ("inception_v3", "inception_resnet_v2", "xception", "xception_aligned")
RUN = ("squeezenet1_1", "alexnet")
# Of a minute each; with DETJAX_EVERY_BACKBONE all others run too.
SAMPLED = ("mobilenet_v3_small", "googlenet", "densenet121", "nin_cifar10")


def tiny(family, name):
    """The settings of a tiny detector on the backbone called `name`."""
    width = MEMBERS[name]
    backbone = {"name": name, "width": width, "norm": "frozen", "levels": (3, 4)}
    return {**family, "backbone": backbone}


def parts(made):
    """Variables, a batch and what is differentiated."""
    data = batch()
    variables = jax.eval_shape(made.init, jax.random.key(0), data.inputs.images)

    def gradient(params, state, data, key):
        return jax.value_and_grad(made.loss, has_aux=True)(params, state, data, key)

    return variables, data, gradient


def pairs():
    """Each backbone with each of both; a quarter, of nets soon built, every day."""
    for i, name in enumerate(MEMBERS):
        for j, family in enumerate((RETINANET, YOLACT)):
            slow = (2 * i + j) % 4 or name in LARGE
            marks = [pytest.mark.slow] * bool(slow)
            yield pytest.param(name, family, id=f"{name}-{family['name']}", marks=marks)


@pytest.mark.parametrize(("name", "family"), [*pairs()])
def test_every_backbone_fits_a_detector_and_a_segmenter(name, family):
    made = models.make(**tiny(family, name))
    (params, state), data, gradient = parts(made)
    (loss, _), gradients = jax.eval_shape(
        gradient, params, state, data, jax.random.key(0)
    )
    assert loss.shape == ()
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)
    assert any("backbone" in key or "body" in key for key in params)
    found = jax.eval_shape(made.predict, params, state, data.inputs)
    assert found.boxes.shape[-1] == 4
    assert (found.masks is not None) == (family is YOLACT)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in RUN))
        for name in MEMBERS
        if name in RUN + SAMPLED or "DETJAX_EVERY_BACKBONE" in os.environ
    ],
)
def test_every_backbone_learns_in_a_detector(name):
    """All of its layers up to the levels that are read have a gradient."""
    made = models.make(**tiny(RETINANET, name))
    _, data, gradient = parts(made)
    params, state = jax.jit(made.init)(jax.random.key(0), data.inputs.images)
    (loss, _), gradients = jax.jit(gradient)(params, state, data, jax.random.key(0))
    assert np.isfinite(loss)
    flat = jax.tree_util.tree_leaves_with_path(gradients)
    assert all(np.isfinite(x).all() for _, x in flat)
    body = [(p, x) for p, x in flat if "kernel" in str(p) and "body" in str(p)]
    moved = [float(np.abs(x).max()) > 0 for _, x in body]
    # Of nets of one channel some ReLUs are dead.
    assert np.mean(moved) > 0.5


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE))
        for name in MEMBERS
    ],
)
def test_features_are_not_dropped(name):
    """Detectors train without random numbers, up to the coarsest level."""
    images = batch().inputs.images
    net = backbones.make(name, width=MEMBERS[name], norm="frozen")

    def found(key):
        return net.apply(net.init(key, images), images, train=True)

    assert len(jax.eval_shape(found, jax.random.key(0))) == 4


@pytest.mark.parametrize(
    ("name", "own"), [("mobilenet_v3_small", 1e-3), ("resnet10", 1e-5)]
)
def test_norms_have_the_familys_epsilon_unless_another_is_set(name, own):
    assert Backbone(name).body(jnp.float32).norm_eps == own
    for epsilon in (0.0, 1e-5, 1e-2):
        backbone = Backbone(name, norm_eps=epsilon)
        assert backbone.body(jnp.float32).norm_eps == epsilon
        head = FPN(norm="batch").module(backbone.others_eps, jnp.float32)
        assert head.norm_eps == epsilon


@pytest.mark.parametrize("name", MEMBERS)
def test_every_backbone_has_an_epsilon_or_leaves_it_to_the_others(name):
    body = Backbone(name, norm_eps=1e-2).body(jnp.float32)
    assert getattr(body, "norm_eps", 1e-2) == 1e-2


def test_an_epsilon_reaches_darknets_norms():
    images = jnp.ones((1, 32, 32, 3))
    few, many = (
        darknet.DarkNet((1, 1), 2, stages=1, norm_eps=epsilon) for epsilon in (0.0, 1.0)
    )
    variables = few.init(jax.random.key(0), images)
    assert not np.allclose(*(net.apply(variables, images)[0] for net in (few, many)))


def test_every_family_has_a_member_here():
    here = {backbones.FAMILIES[name] for name in MEMBERS}
    assert here == {*backbones.FAMILIES.values()}


def test_a_setting_that_a_family_lacks_is_named():
    with pytest.raises(UserError, match="darknet53 has no setting dropout"):
        backbones.make("darknet53", dropout=0.1)
