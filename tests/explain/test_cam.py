"""Class activation maps, by loops and by hand."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import batch, model, variables
from flax import linen

from detjax import tasks
from detjax.errors import UserError
from detjax.explain import cam, layers
from detjax.explain.cam import classic, default, eigen, gradients, score
from detjax.nn.observe import IMAGES, site
from detjax.types import Inputs, Model, Scores, Spec

A = np.float32([[[1, 0], [2, 3]], [[0, 1], [4, 0]]])  # [2 2 2]
G = np.float32([[[1, -1], [0, 2]], [[-2, 1], [1, 0]]])


def test_grad_cam_by_hand():
    """Channel 0 has the mean gradient 0, channel 1 .5."""
    found = gradients.grad_cam(A, G)
    np.testing.assert_allclose(found.weights, [0, 0.5])
    np.testing.assert_allclose(found.raw, [[0, 1.5], [0.5, 0]])


def test_hires_and_layer_cam_by_hand():
    np.testing.assert_allclose(gradients.hires_cam(A, G).raw, [[1, 6], [1, 4]])
    np.testing.assert_allclose(gradients.layer_cam(A, G).raw, [[1, 6], [1, 4]])
    turned = -G
    np.testing.assert_allclose(gradients.hires_cam(A, turned).raw, [[-1, -6], [-1, -4]])
    np.testing.assert_allclose(gradients.layer_cam(A, turned).raw, [[0, 0], [0, 0]])


def test_weights_of_the_others_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    values = np.maximum(rng.standard_normal((3, 4, 5)), 0)
    slope = rng.standard_normal((3, 4, 5)) * (rng.random((3, 4, 5)) > 0.3)
    plus, cross = np.zeros(5), np.zeros(5)
    for k in range(5):
        total = values[..., k].sum()
        for i in range(3):
            for j in range(4):
                g, a = slope[i, j, k], values[i, j, k]
                if g:
                    alpha = g**2 / (2 * g**2 + total * g**3 + 1e-6)
                    plus[k] += alpha * max(g, 0)
                cross[k] += g * a / (total + 1e-7)
    given = jnp.float32(values), jnp.float32(slope)
    for method, weights in (
        (gradients.grad_cam_plus_plus, plus),
        (gradients.xgrad_cam, cross),
    ):
        found = method(*given)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.raw, values @ weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", gradients.METHODS)
def test_a_map_without_gradient_or_activation_is_zero_and_finite(method):
    zero = jnp.zeros((2, 3, 4))
    for given in ((zero, zero), (zero, zero + 1), (zero + 1, zero)):
        found = gradients.METHODS[method](*given)
        assert not np.asarray(found.raw).any()
        joined = np.asarray(cam.joined({"a": found.raw}, (4, 6)))
        assert np.isfinite(joined).all()


def test_several_layers_are_scaled_resized_and_averaged():
    rng = np.random.default_rng(1)
    raw = {"a": rng.standard_normal((2, 3, 4)), "b": rng.standard_normal((2, 5, 7))}
    found = np.asarray(cam.joined({k: jnp.float32(x) for k, x in raw.items()}, (9, 12)))
    for i in range(2):
        total = np.zeros((9, 12))
        for x in raw.values():
            one = np.maximum(x[i], 0)
            one = (one - one.min()) / (1e-7 + (one - one.min()).max())
            total += cv2.resize(np.float32(one), (12, 9)) / 2
        total = (total - total.min()) / (1e-7 + (total - total.min()).max())
        np.testing.assert_allclose(found[i], total, atol=1e-5)


def test_eigen_cam_is_the_first_singular_vector():
    rng = np.random.default_rng(2)
    values = rng.standard_normal((4, 5, 6)).astype("f")
    flat = values.reshape(20, 6) - values.reshape(20, 6).mean(axis=0)
    _, _, rows = np.linalg.svd(flat.astype(np.float64))
    expected = (flat @ rows[0]).reshape(4, 5)
    found = np.asarray(eigen.eigen_cam(values))
    sign = np.sign((found * expected).sum())
    np.testing.assert_allclose(found, sign * expected, atol=1e-4)
    # High where channels are high, whatever the solver's sign.
    assert (found * values.sum(axis=-1)).sum() > 0
    np.testing.assert_allclose(eigen.eigen_cam(jnp.ones((3, 3, 2))), 0, atol=1e-5)


class Tiny(linen.Module):
    """A convolution, the mean over places, a linear layer."""

    flat: bool = False  # every place has weights of its own

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (3, 3), (2, 2), name="conv")(x)
        x = linen.relu(site("map", x))
        x = x[:, 0, 0] * 2 if self.flat else x.mean(axis=(1, 2))
        return linen.Dense(3, name="fc")(x)


@functools.cache
def tiny(flat=False):
    """A classifier, its weights and two images."""
    net = Tiny(flat)
    images = np.random.default_rng(3).standard_normal((2, 8, 10, 3)).astype("f")
    variables = net.init(jax.random.key(0), images)

    def predict(params, state, inputs):
        seen = site(IMAGES, jnp.asarray(inputs.images))
        logits = net.apply({"params": params}, seen)
        return Scores(jax.nn.softmax(logits), logits)

    spec = Spec("classification", 3, groups={"head": r"^fc\."})
    made = Model(spec, net.init, None, predict, net)
    return made, variables["params"], {}, Inputs(images)


def of_class(answers, label=1):
    return answers.logits[:, label, None]


def test_score_cam_is_a_loop_over_channels():
    made, params, state, inputs = tiny()
    found = jax.jit(score.maps(made.predict, ["conv"], of_class, chunk=3))(
        params, state, inputs
    )
    _, held = layers.seen(made.predict, ["conv"])(params, state, inputs)
    values = np.asarray(held["conv"])
    for i, image in enumerate(inputs.images):
        scores = []
        for k in range(4):
            mask = np.asarray(layers_resized(values[i, ..., k], (8, 10)))
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
            seen = Inputs(image[None] * mask[None, ..., None])
            scores.append(of_class(made.predict(params, state, seen))[0, 0])
        weights = np.asarray(jax.nn.softmax(jnp.stack(scores)))
        np.testing.assert_allclose(found.weights["conv"][i, 0], weights, rtol=1e-4)
        np.testing.assert_allclose(
            found.raw["conv"][i, 0], values[i] @ weights, rtol=1e-4, atol=1e-5
        )


def layers_resized(x, size):
    """`x` [h w] between its outermost centres, bilinearly."""
    ys, xs = (np.linspace(0, n - 1, m) for n, m in zip(x.shape, size, strict=True))
    rows = np.stack([np.interp(xs, np.arange(x.shape[1]), row) for row in x])
    return np.stack([np.interp(ys, np.arange(len(x)), c) for c in rows.T], axis=1)


def test_classic_cam_finds_its_map_and_is_what_gradients_say():
    """Of a mean and a linear layer the gradient of a place is the weight over n."""
    made, params, state, inputs = tiny()
    found = classic.pooled(made, params, state, inputs)
    assert found == classic.Pooled("map", "relu", ("fc",))
    labels = np.array([[1, 2], [0, 1]])
    maps = jax.jit(classic.maps(made.predict, found, labels))(params, state, inputs)
    kernel, bias = (np.asarray(params["fc"][k]) for k in ("kernel", "bias"))
    logits = made.predict(params, state, inputs).logits
    for i, row in enumerate(labels):
        for j, label in enumerate(row):
            mean = maps.raw["map"][i, j].mean() + bias[label]
            np.testing.assert_allclose(mean, logits[i, label], rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(maps.weights["map"][i, j], kernel[:, label])
    call = gradients.maps(
        made.predict, ["map"], of_class, gradients.hires_cam, after="relu"
    )
    by = jax.jit(call)(params, state, inputs)
    places = maps.raw["map"][0, 0].size
    np.testing.assert_allclose(
        by.raw["map"][0, 0] * places, maps.raw["map"][0, 0], rtol=1e-4, atol=1e-5
    )


def test_nets_that_end_otherwise_have_no_classic_cam():
    with pytest.raises(UserError, match="does not read the mean"):
        classic.pooled(*tiny(flat=True))
    data = batch(name="yolact")
    with pytest.raises(UserError, match="classifiers that end in a mean"):
        classic.pooled(model("yolact"), *variables("yolact"), data.inputs)


def test_layers_that_are_not_there_or_have_no_map_are_named():
    made, params, state, inputs = tiny()
    call = gradients.maps(made.predict, ["convolution"], of_class)
    with pytest.raises(UserError, match=r"no layer called 'convolution'.*conv"):
        call(params, state, inputs)
    with pytest.raises(UserError, match=r"'fc' returns \(2, 3\)"):
        gradients.maps(made.predict, ["fc"], of_class)(params, state, inputs)


def test_all_detections_at_once_are_those_of_a_loop():
    """And in chunks."""
    made, weights, inputs = model("yolact"), variables("yolact"), batch().inputs
    of = tasks.TASKS["detection"].quantities["score"]
    names = ["backbone:2", "fpn:0"]
    whole, some = (
        jax.jit(gradients.maps(made.predict, names, of, chunk=chunk))(*weights, inputs)
        for chunk in (None, 4)
    )
    assert whole.maps.shape == (2, 10, 64, 64)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        *(x.replace(maps=None) for x in (whole, some)),
    )

    @jax.jit
    @jax.grad
    def slope_of(added, place):
        seen = layers.changed(made.predict, {"fpn:0": lambda x: x + added})
        return seen(*weights, inputs).scores[1, place]

    for place in (0, 7):
        slope = slope_of(jnp.zeros((2, 8, 8, 8)), place)[1]
        expected = slope.mean(axis=(0, 1))
        np.testing.assert_allclose(
            whole.weights["fpn:0"][1, place], expected, rtol=1e-3, atol=1e-7
        )
    assert np.abs(whole.raw["backbone:2"]).max() > 0


def test_what_a_prototype_rests_on():
    """A quantity of a unit of a layer: the mean of a map that masks are made of."""
    made, weights, inputs = model("yolact"), variables("yolact"), batch().inputs
    name = "proto_net.10"

    def of_prototypes(answers):
        _, held = answers
        return held[name].mean(axis=(1, 2))

    call = gradients.maps(
        layers.seen(made.predict, [name]), ["proto_net.4"], of_prototypes
    )
    found = jax.jit(call)(*weights, inputs)
    assert found.quantities.shape == (2, 4)
    assert found.maps.shape == (2, 4, 64, 64)
    assert (np.abs(found.raw["proto_net.4"]).sum(axis=(2, 3)) > 0).all()


def shapes_of(**found):
    return {
        name.replace("__", ":"): jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        for name, shape in found.items()
    }


def test_the_usual_layer_is_the_coarsest_of_the_backbone_that_is_a_map():
    known = shapes_of(
        images=(300, 300, 3),
        backbone__0=(38, 38, 512),
        backbone__1=(10, 10, 512),
        backbone__2=(5, 5, 256),
        head=(1, 8),
    )
    # Cells of 60 pixels are too coarse for a picture.
    assert default.usual(known, (300, 300)) == ["backbone:1"]
    # Nothing leads from SSD's coarser levels to what is found on the finer ones.
    known |= shapes_of(**{"backbone.extra.0": (10, 10, 256)})
    assert default.usual(known, (300, 300)) == ["backbone:0", "backbone:1"]
    known = shapes_of(images=(64, 64, 3), fc=(10,))
    with pytest.raises(UserError, match="no layer of this model"):
        default.usual(known, (64, 64))
