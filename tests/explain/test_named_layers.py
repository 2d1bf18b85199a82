"""Layers by name: what they return, what changes when they do, what depends on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import batch, everything, key, model, variables

from detjax import models
from detjax.errors import UserError
from detjax.explain import layers
from detjax.tasks import classification
from detjax.types import Inputs

TINY = {"num_classes": 3, "backbone": {"name": "resnet10", "width": 8}}
NAMES = ["images", "backbone.layer2.0", "backbone.layer4.0"]
LABELS = np.array([[0, 1, 2]] * 2)
SCORE = functools.partial(classification.TASK.quantities["score"], labels=LABELS)


@pytest.fixture(scope="module")
def net():
    """A classifier of normalised images: predict, its weights and inputs of two."""
    made = models.make("classifier", **TINY, pixels="normalized")
    images = np.float32(np.random.default_rng(0).normal(size=(2, 48, 64, 3)))
    return made.predict, *made.init(key(), images), Inputs(images)


def test_answers_are_those_of_the_model(net):
    predict, *given = net
    answers, found = jax.jit(layers.seen(predict, NAMES))(*given)
    expected = jax.jit(predict)(*given)
    np.testing.assert_allclose(answers.scores, expected.scores, rtol=1e-6)
    np.testing.assert_array_equal(found["images"], given[-1].images)
    shapes = layers.shapes(*net)
    assert {k: (x.shape, x.dtype) for k, x in found.items()} == {
        k: (shapes[k].shape, shapes[k].dtype) for k in NAMES
    }
    assert list(layers.shapes(*net, pattern=r"layer4\.0$")) == ["backbone.layer4.0"]


def test_the_slope_of_images_is_the_gradient_of_what_is_put_in(net):
    predict, params, state, inputs = net
    found = jax.jit(layers.slopes(predict, NAMES, SCORE))(params, state, inputs)

    def scores(images):
        return SCORE(predict(params, state, Inputs(images))).sum(axis=0)

    # [q b h w 3]: an image's scores depend on that image alone.
    expected = jax.jit(jax.jacrev(scores))(inputs.images)
    np.testing.assert_allclose(found.gradients["images"], expected, atol=1e-6)
    np.testing.assert_allclose(
        found.quantities, SCORE(predict(params, state, inputs)), rtol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_slope_is_what_a_small_change_of_the_layer_does(net, name):
    predict, *given = net
    found = jax.jit(layers.slopes(predict, NAMES, SCORE))(*given)
    way = np.random.default_rng(1).normal(size=found.values[name].shape)
    way, step = way / np.linalg.norm(way), 1e-2

    @jax.jit
    def moved(by):
        change = {name: lambda x: x + by * way}
        return SCORE(layers.changed(predict, change)(*given))

    slope = (moved(step) - moved(-step)) / (2 * step)
    axes = tuple(range(2, found.gradients[name].ndim))
    expected = (found.gradients[name] * way).sum(axis=axes).T
    np.testing.assert_allclose(slope, expected, rtol=0.02, atol=1e-4)


def test_few_at_once_are_all_at_once(net):
    predict, *given = net
    whole = jax.jit(layers.slopes(predict, NAMES, SCORE))(*given)
    parts = jax.jit(layers.slopes(predict, NAMES, SCORE, chunk=2))(*given)
    for name in NAMES:
        np.testing.assert_allclose(
            parts.gradients[name], whole.gradients[name], atol=1e-6
        )


def test_other_images_in_their_place_are_other_inputs(net):
    predict, params, state, inputs = net
    other = inputs.images[::-1] + 1
    change = {layers.IMAGES: lambda _: other}
    found = jax.jit(layers.changed(predict, change))(params, state, inputs)
    expected = jax.jit(predict)(params, state, Inputs(other))
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-6)


def test_uint8_images_are_seen_as_the_network_sees_them():
    name = next(iter(everything()))
    inputs = batch(name=name).inputs
    predict = model(name).predict
    found = layers.seen(predict, [layers.IMAGES])(*variables(name), inputs)[1]
    values = np.asarray(found[layers.IMAGES])
    assert values.dtype == np.float32
    low, high = inputs.images.min(axis=(0, 1, 2)), inputs.images.max(axis=(0, 1, 2))
    for c in range(3):  # a scale and an offset for each channel
        scale = (values[..., c].max() - values[..., c].min()) / (high - low)[c]
        again = (values[..., c] - values[..., c].min()) / scale + low[c]
        np.testing.assert_allclose(again, inputs.images[..., c], atol=1e-2)


def test_a_module_called_several_times_is_several_layers():
    given = model("retinanet").predict, *variables("retinanet")
    found = layers.shapes(*given, batch(name="retinanet").inputs, r"cls_logits")
    names = list(found)
    assert names == [names[0], *(f"{names[0]}#{i}" for i in range(2, len(names) + 1))]
    sides = [found[name].shape[1] for name in names]
    assert sides == sorted(sides, reverse=True) and len(set(sides)) == len(sides) > 1


def test_layers_that_are_computed_again_have_no_value_outside():
    """And the network is as it was."""
    settings = {**TINY, "backbone": {**TINY["backbone"], "remat": True}}
    made = models.make("classifier", **settings, pixels="normalized")
    images = np.float32(np.random.default_rng(2).normal(size=(1, 32, 32, 3)))
    given = made.predict, *made.init(key(), images), Inputs(images)
    found = layers.shapes(*given)
    assert [*found] == ["images", "backbone.fc", "backbone"]
    score = classification.TASK.quantities["score"]
    slopes = jax.jit(layers.slopes(made.predict, [*found], score))(*given[1:])
    assert np.abs(slopes.gradients["images"]).max() > 0


def test_a_name_that_is_none_has_the_nearest_named(net):
    assert layers.find(*net, "backbone.layer4.0").shape == (2, 2, 2, 64)
    with pytest.raises(UserError, match=r"nearest are .*backbone\.layer4"):
        layers.find(*net, "backbone.layer4.9")


def test_without_labels_the_most_probable_class_is_explained(net):
    predict, *given = net
    answers = predict(*given)
    found = classification.TASK.quantities["score"](answers)
    np.testing.assert_array_equal(found[:, 0], jnp.max(answers.logits, axis=-1))
