"""Training of the classifiers from LeNet-5 on: every parameter, auxiliary losses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_backbones
from flax import traverse_util
from test_classifier import batch

from detjax import models
from detjax.errors import UserError
from detjax.models import classifier
from detjax.models.classifier import Backbone, Loss
from detjax.types import Label

# Width and the side of images.
NETS = {
    "lenet5": (6, 32),
    "lenet_caffe": (4, 32),
    "nin_imagenet": (12, 64),
    "nin_cifar10": (24, 32),
    "googlenet": (8, 32),
    "inception_v3": (4, 75),
    "inception_resnet_v2": (2, 75),
    "xception": (2, 48),
    "densenet121": (8, 32),
}
AUXILIARY = ("googlenet", "inception_v3")
# The others take a minute of compilation.
QUICK = ("lenet5", "lenet_caffe", "nin_imagenet", "nin_cifar10")


def made(name, **kwargs):
    width, side = NETS[name]
    settings = {"name": name, "width": width, "auxiliary": name in AUXILIARY}
    model = models.make("classifier", num_classes=3, backbone=settings, **kwargs)
    return model, batch(side=side)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NETS],
)
def test_a_training_step_reaches_every_parameter(name):
    model, data = made(name)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, data.inputs.images.shape).astype(np.uint8)
    data = data.replace(inputs=data.inputs.replace(images=images))
    params, state = tiny_backbones.draw(
        jax.eval_shape(model.init, jax.random.key(0), images)
    )
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (total, (updated, metrics)), gradients = step(
        params, state, data, jax.random.key(1)
    )
    assert np.isfinite(total)
    assert jax.tree.structure(updated) == jax.tree.structure(state)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
    # A few ReLUs of a narrow net may be off for all images.
    some = [np.abs(gradient).max() > 0 for gradient in jax.tree.leaves(gradients)]
    assert np.mean(some) > 0.9
    if name in AUXILIARY:
        weight = {"googlenet": 0.3, "inception_v3": 0.4}[name]
        expected = metrics["class"] + weight * metrics["auxiliary"]
        np.testing.assert_allclose(total, expected, rtol=1e-5)
    else:
        assert "auxiliary" not in metrics
    if "batch_stats" in state:
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, state, updated)
        assert all(jax.tree.leaves(moved))
    else:
        # LeNet-5's codes are no parameters.
        jax.tree.map(np.testing.assert_array_equal, updated, state)


def test_auxiliary_losses_have_the_weight_that_is_asked_for():
    class Three(classifier.linen.Module):
        auxiliary_weight = 0.3
        head = r"bias"

        @classifier.linen.compact
        def __call__(self, x, train=False):
            bias = self.param("bias", classifier.linen.initializers.ones, (3, 3))
            found = tuple(jnp.tile(b, (len(x), 1)) * jnp.arange(3.0) for b in bias)
            return found if train else found[0]

    class Fixed(Backbone):
        def module(self, num_classes, dtype):
            return Three()

    data = batch()
    totals = {}
    for weight in (None, 0.0, 1.0):
        model = classifier.classifier(
            num_classes=3, backbone=Fixed(), loss=Loss(auxiliary=weight)
        )
        params, state = model.init(jax.random.key(0), data.inputs.images)
        totals[weight], (_, metrics) = model.loss(
            params, state, data, jax.random.key(0)
        )
        assert metrics["auxiliary"] == pytest.approx(2 * metrics["class"])
        # What predicts is the last layer alone.
        scores = model.predict(params, state, data.inputs).scores
        assert scores.shape == (len(data.index), 3)
    for weight, factor in ((None, 1.6), (0.0, 1.0), (1.0, 3.0)):
        assert totals[weight] == pytest.approx(factor * metrics["class"])


def test_auxiliary_classifiers_that_a_network_lacks_are_refused():
    with pytest.raises(UserError, match="resnet10 has no auxiliary classifiers"):
        Backbone("resnet10", auxiliary=True).module(3, jnp.float32)


def test_a_class_of_rubbish_is_lenets_equation_9():
    distances = np.float32([[3, 1, 4], [0.5, 2, 2]])
    weights = np.eye(3, dtype=np.float32)[[1, 0]]
    got = Loss(rubbish=0.1)(-distances, Label(weights))
    right = np.float32([1, 0.5])
    expected = right + np.log(np.exp(-0.1) + np.exp(-distances).sum(axis=1))
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    got = Loss(competition=False)(-distances, Label(weights))
    np.testing.assert_allclose(got, right, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("nin_cifar10", ["cccp6"]),
        ("googlenet", ["aux1.fc2", "aux2.fc2", "fc"]),
        ("inception_resnet_v2", ["classif"]),
        ("densenet121", ["classifier"]),
    ],
)
def test_groups_are_the_backbone_and_its_head(name, head):
    model, data = made(name)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), data.inputs.images)
    paths = [".".join(path) for path in traverse_util.flatten_dict(params)]
    groups = model.spec.groups
    found = {p for p in paths if re.search(groups["head"], p)}
    assert found == {
        f"backbone.{h}.{leaf}" for h in head for leaf in ("kernel", "bias")
    }
    rest = {p for p in paths if re.search(groups["backbone"], p)}
    assert rest == {*paths} - found
