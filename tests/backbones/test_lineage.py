"""What holds for every network from LeNet-5 to Inception-ResNet: shapes, dilation."""

import re

import jax
import numpy as np
import pytest
import tiny_backbones as tiny
from tiny_backbones import TINY

from detjax import backbones
from detjax.errors import UserError
from detjax.nn.images import normalize

# Parameters with a last layer of as many classes: the originals' own counts. Those of
# other members come with their goldens.
COUNTS = {
    "lenet5": (10, 60_000),
    "googlenet": (1000, 6_624_904),
    "inception_v3": (1000, 23_834_568),
    "xception_aligned": (1000, 39_916_312),
    "densenet161": (1000, 28_681_000),
    "densenet201": (1000, 20_013_928),
}
CHANNELS = {
    "lenet5": (120,) * 4,
    "lenet_caffe": (50,) * 4,
    "nin_imagenet": (96, 256, 384, 1024),
    "nin_cifar10": (192,) * 4,
    "googlenet": (192, 480, 832, 1024),
    "inception_v3": (192, 288, 768, 2048),
    "inception_resnet_v2": (192, 320, 1088, 1536),
    "xception": (128, 256, 728, 2048),
    "xception_aligned": (128, 256, 728, 2048),
    "densenet121": (256, 512, 1024, 1024),
}


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def shapes(net, h, w):
    """Shapes of what `net` answers for an image, and its parameters."""
    images = np.zeros((1, h, w, 3), np.float32)
    found, made = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    return found, made["params"]


@pytest.mark.parametrize("name", COUNTS)
def test_a_classifier_has_the_originals_number_of_parameters(name):
    classes, expected = COUNTS[name]
    logits, params = shapes(backbones.make(name, num_classes=classes), 224, 224)
    assert (logits.shape, logits.dtype) == ((1, classes), np.float32)
    assert count(params) == expected


@pytest.mark.parametrize("name", CHANNELS)
def test_features_are_every_4th_to_32nd_row(name):
    net = backbones.make(name)
    features, _ = shapes(net, 64, 96)
    assert [x.shape[1:] for x in features] == [
        (64 // s, 96 // s, c)
        for s, c in zip((4, 8, 16, 32), CHANNELS[name], strict=True)
    ]


@pytest.mark.parametrize("name", TINY)
def test_features_of_any_image_and_of_fewer_stages(name):
    whole, params = shapes(tiny.make(name), 45, 33)
    for fewer in (1, 2, 3):
        net = tiny.make(name, stages=fewer)
        features, some = shapes(net, 45, 33)
        assert [x.shape for x in features] == [x.shape for x in whole[:fewer]]
        assert set(some) <= set(params)
        assert len(some) < len(params) or "lenet" in name or name == "nin_cifar10"
    for h, w in ((32, 32), (45, 33)):
        features, _ = shapes(tiny.make(name), h, w)
        assert len(features) == 4
        assert all(min(x.shape) > 0 for x in features)


@pytest.mark.parametrize("name", TINY)
def test_the_head_is_what_depends_on_the_classes(name):
    nets = [tiny.make(name, num_classes=n) for n in (3, 4)]
    three, four = (
        jax.tree_util.tree_leaves_with_path(shapes(net, 96, 96)[1]) for net in nets
    )
    for (path, x), (_, other) in zip(three, four, strict=True):
        dotted = ".".join(key.key for key in path)
        in_head = re.match(nets[0].head, dotted) is not None
        # LeNet-5's classes have no parameters: its last layer goes with them.
        assert in_head == (x.shape != other.shape or dotted.startswith("f6.")), dotted


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("xception", 8),
        # At 8 the original departs from it.
        ("xception_aligned", 16),
        ("inception_v3", 8),
        ("inception_resnet_v2", 8),
    ],
)
def test_a_dilated_net_finds_what_the_strided_one_does_and_more_between(name, stride):
    """Every cell of the net of stride 32 is one of the dilated net's."""
    strided = tiny.make(name, norm="frozen")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 64, 96, 3)).astype(np.float32)
    variables = tiny.draw(jax.eval_shape(strided.init, jax.random.key(0), images))
    coarse = jax.jit(strided.apply)(variables, images)
    dilated = tiny.make(name, norm="frozen", output_stride=stride)
    fine = jax.jit(dilated.apply)(variables, images)
    for level, (x, y) in enumerate(zip(coarse, fine, strict=True)):
        by = max(4 * 2**level // stride, 1)
        assert y.shape[1:3] == (x.shape[1] * by, x.shape[2] * by)
        scale = float(np.abs(x).max())
        assert scale > 0
        np.testing.assert_allclose(y[:, ::by, ::by], x, atol=1e-5 * scale)


def test_a_dense_block_is_dilated_where_the_transition_does_not_pool():
    """DenseNet's transitions take means, which have no twin at stride 1."""
    # Of a small map a CPU sums shifted products in place of a dilated convolution.
    images = np.zeros((1, 320, 320, 3), np.float32)
    net = tiny.make("densenet121", output_stride=8)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    program = str(jax.make_jaxpr(net.apply)(variables, images))
    found = re.findall(r"rhs_dilation=\((\d), \d\)", program)
    # Blocks of 2, 1, 2 and 1 layers, in each of which the second is of 3x3 cells.
    assert [d for d in found if d != "1"] == ["2", "2", "4"]
    features = jax.eval_shape(net.apply, variables, images)
    assert [x.shape[1] for x in features] == [80, 40, 40, 40]


@pytest.mark.parametrize("name", ["lenet5", "inception_v3", "inception_resnet_v2"])
def test_an_image_too_small_for_a_classifier_without_padding_is_refused(name):
    net = backbones.make(name, num_classes=3)
    with pytest.raises(UserError, match=rf"images are 30 x 96; {name} classifies"):
        shapes(net, 30, 96)


@pytest.mark.parametrize("name", TINY)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UserError, match=f"choose one of.*{name}"):
        backbones.FAMILIES[name]("resnet51")


@pytest.mark.parametrize(
    "name", ["lenet5", "nin_cifar10", "inception_resnet_v2", "xception", "densenet121"]
)
def test_computing_again_changes_neither_names_nor_shapes(name):
    kept, again = (tiny.make(name, remat=remat) for remat in (False, True))
    features, params = shapes(kept, 64, 64)
    assert shapes(again, 64, 64) == (features, params)

    def total(params, state):
        images = np.zeros((1, 64, 64, 3), np.float32)
        kwargs = {"train": True, "mutable": [*state]} if state else {"train": True}
        kwargs["rngs"] = {"dropout": jax.random.key(0)}
        found = again.apply({"params": params, **state}, images, **kwargs)
        found = found[0] if state else found
        return sum(x.sum() for x in found)

    images = np.zeros((1, 64, 64, 3), np.float32)
    state = dict(jax.eval_shape(again.init, jax.random.key(0), images))
    params = state.pop("params")
    program = str(jax.make_jaxpr(jax.grad(total))(params, state))
    assert "remat" in program or "checkpoint" in program


def test_pixels_of_google_are_torchvisions_transform_of_imagenets():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    imagenet = normalize(images, "imagenet")
    expected = imagenet * (std / 0.5) + (mean - 0.5) / 0.5
    np.testing.assert_allclose(normalize(images, "inception"), expected, atol=1e-5)
    # The paper of LeNet-5: from -0.1 to 1.175.
    ends = normalize(np.array([[[[0] * 3, [255] * 3]]], np.uint8), "lenet")
    np.testing.assert_allclose(ends[0, 0, :, 0], [-0.1, 1.175], rtol=1e-6)
