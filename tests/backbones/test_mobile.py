"""What holds for AlexNet, VGG, ResNet, Darknets, and the small networks after them."""

import os
import pathlib
import re

import jax
import numpy as np
import pytest
from conftest import ROOT

from detjax import backbones
from detjax.errors import UserError
from detjax.models.darknet import cfg, net

FOLDER = pathlib.Path(os.environ.get("DETJAX_DARKNET", ROOT / "../shared/darknet"))

# torchvision's published counts; of ShuffleNet the figures of its authors' code, of
# darknet those of its weight files.
COUNTS = {
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "shufflenet_v1_g3": 1_864_728,
    "shufflenet_v1_g8": 2_433_768,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996,
    "vgg11": 132_863_336,
    "vgg16_bn": 138_365_992,
}
CHANNELS = {
    "alexnet": (64, 192, 256, 256),
    "vgg11": (256, 512, 512, 512),
    "resnet18": (64, 128, 256, 512),
    "darknet53": (128, 256, 512, 1024),
    "darknet_reference": (64, 128, 256, 512),
    "darknet19": (128, 256, 512, 1024),
    "extraction": (192, 512, 1024, 1024),
    "cspdarknet53": (128, 256, 512, 1024),
    "mobilenet_v1": (128, 256, 512, 1024),
    "mobilenet_v2": (24, 32, 96, 1280),
    "mobilenet_v3_large": (24, 40, 112, 960),
    "mobilenet_v3_small": (16, 24, 48, 576),
    "squeezenet1_0": (256, 512, 512, 512),
    "squeezenet1_1": (128, 256, 512, 512),
    "shufflenet_v1_g1": (24, 144, 288, 576),
    "shufflenet_v1_g2": (24, 200, 400, 800),
    "shufflenet_v1_g3": (24, 240, 480, 960),
    "shufflenet_v1_g4": (24, 272, 544, 1088),
    "shufflenet_v1_g8": (24, 384, 768, 1536),
    "shufflenet_v2_x0_5": (24, 48, 96, 1024),
    "shufflenet_v2_x1_0": (24, 116, 232, 1024),
    "shufflenet_v2_x1_5": (24, 176, 352, 1024),
    "shufflenet_v2_x2_0": (24, 244, 488, 2048),
}
# One of each family, narrow; AlexNet and VGG have other widths in their connections.
FAMILIES = {
    "alexnet": 2,
    "vgg11_bn": 2,
    "resnet10": 4,
    "darknet53": 2,
    "darknet19": 4,
    "cspdarknet53": 4,
    "mobilenet_v1": 4,
    "mobilenet_v2": 4,
    "mobilenet_v3_small": 2,
    "squeezenet1_1": 8,
    "shufflenet_v1_g3": 6,
    "shufflenet_v2_x0_5": 6,
}
# Strided blocks are themselves dilated in torchvision's MobileNetV3; VGG's pools
# become others.
ALIKE = {"resnet10": 4, "resnet50": 1, "mobilenet_v1": 4, "shufflenet_v1_g3": 6}
ALIKE |= {"mobilenet_v2": 4, "shufflenet_v2_x0_5": 6}
SLOW = ("mobilenet_v2", "shufflenet_v2_x0_5", "resnet50")


def shapes(net, h, w):
    """Shapes of what `net` answers for an image, and its parameters."""
    images = np.zeros((1, h, w, 3), np.float32)
    found, made = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    return found, made["params"]


@pytest.mark.parametrize("name", COUNTS)
def test_a_classifier_has_the_originals_number_of_parameters(name):
    logits, params = shapes(backbones.make(name, num_classes=1000), 64, 64)
    assert (logits.shape, logits.dtype) == ((1, 1000), np.float32)
    assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]


@pytest.mark.parametrize("name", CHANNELS)
def test_features_are_every_4th_to_32nd_row(name):
    features, _ = shapes(backbones.make(name), 64, 96)
    assert [x.shape[1:] for x in features] == [
        (64 // s, 96 // s, c)
        for s, c in zip((4, 8, 16, 32), CHANNELS[name], strict=True)
    ]


@pytest.mark.parametrize(("name", "width"), FAMILIES.items())
def test_features_of_any_image_and_of_fewer_stages(name, width):
    whole, params = shapes(backbones.make(name, width=width), 45, 33)
    assert len(whole) == 4
    for fewer in (1, 3):
        features, some = shapes(backbones.make(name, width=width, stages=fewer), 45, 33)
        assert [x.shape for x in features] == [x.shape for x in whole[:fewer]]
        assert set(some) < set(params) or fewer == 3
    features, _ = shapes(backbones.make(name, width=width), 32, 32)
    assert [min(x.shape) for x in features][-1] > 0


@pytest.mark.parametrize(("name", "width"), FAMILIES.items())
def test_the_head_is_what_depends_on_the_classes(name, width):
    nets = [backbones.make(name, width=width, num_classes=n) for n in (3, 4)]
    three, four = (
        jax.tree_util.tree_leaves_with_path(shapes(net, 224, 224)[1]) for net in nets
    )
    for (path, x), (_, other) in zip(three, four, strict=True):
        dotted = ".".join(key.key for key in path)
        in_head = re.match(nets[0].head, dotted) is not None
        assert in_head == (x.shape != other.shape), dotted


def drawn(net, images):
    """Random variables of `net`."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)
    return jax.tree.map(
        lambda x: np.float32(
            rng.normal(size=x.shape) * (2 / np.prod(x.shape[:-1])) ** 0.5
            if len(x.shape) > 1
            else rng.uniform(0.5, 1.5, x.shape)
        ),
        shapes,
    )


@pytest.mark.parametrize(
    ("name", "width"),
    [
        pytest.param(*each, marks=[pytest.mark.slow] * (each[0] in SLOW))
        for each in ALIKE.items()
    ],
)
def test_a_dilated_net_finds_what_the_strided_one_does_and_more_between(name, width):
    """Every cell of the net of stride 32 is one of the dilated net's."""
    settings, stride = {"width": width, "norm": "frozen"}, 8
    strided = backbones.make(name, **settings)
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    variables = drawn(strided, images)
    coarse = jax.jit(strided.apply)(variables, images)
    dilated = backbones.make(name, **settings, output_stride=stride)
    fine = jax.jit(dilated.apply)(variables, images)
    for level, (x, y) in enumerate(zip(coarse, fine, strict=True)):
        by = max(4 * 2**level // stride, 1)
        assert y.shape[1:3] == (x.shape[1] * by, x.shape[2] * by)
        scale = float(np.abs(x).max())
        assert scale > 0
        np.testing.assert_allclose(y[:, ::by, ::by], x, atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["vgg11", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_dilation_keeps_the_size(name):
    for stride in (16, 8):
        net = backbones.make(name, width=2, output_stride=stride)
        features, params = shapes(net, 64, 96)
        assert [64 // x.shape[1] for x in features] == [
            min(s, stride) for s in (4, 8, 16, 32)
        ]
        _, usual = shapes(backbones.make(name, width=2), 64, 96)
        assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, usual)


def test_an_unknown_output_stride_is_refused():
    with pytest.raises(UserError, match=r"output_stride=4 is not known.*32, 16, 8"):
        shapes(backbones.make("resnet10", width=4, output_stride=4), 32, 32)
    with pytest.raises(UserError, match="not for deformable"):
        shapes(backbones.make("resnet50", output_stride=16, deform_every=3), 32, 32)


@pytest.mark.parametrize(
    ("width", "count"), [(11, 1_677_128), (16, 1_968_680), (45, 6_108_776)]
)
def test_a_width_is_a_multiplier_of_mobilenets(width, count):
    # torchvision's mobilenet_v2 with width_mult 0.35, 0.5 and 1.4, of the paper's code.
    _, params = shapes(
        backbones.make("mobilenet_v2", width=width, num_classes=1000), 64, 64
    )
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("name", FAMILIES)
def test_a_name_that_is_none_is_refused(name):
    if name in ("alexnet", "darknet53"):
        pytest.skip("a family of one")
    with pytest.raises(UserError, match=f"choose .*{name}"):
        backbones.FAMILIES[name]("resnet51")


@pytest.mark.parametrize(
    "name",
    ["alexnet", "squeezenet1_1"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("mobilenet_v2", "shufflenet_v2_x0_5", "cspdarknet53")
    ],
)
def test_rematerialised_gradients_are_the_same(name):
    width = FAMILIES[name]
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    found = []
    for remat in (False, True):
        net = backbones.make(name, width=width, norm="frozen", remat=remat, stages=2)
        variables = drawn(net, images)

        def loss(params, net=net, variables=variables):
            features = net.apply({**variables, "params": params}, images, train=True)
            return sum((x**2).mean() for x in features)

        found.append(jax.jit(jax.grad(loss))(variables["params"]))

    def same(a, b):
        # Of thousands an element near 0 is a difference of what rounds.
        np.testing.assert_allclose(a, b, 1e-3, 1e-6 * max(1, np.abs(b).max()))

    jax.tree.map(same, *found)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("darknet_reference", "cfg/darknet"),
        ("darknet19", "cfg/darknet19"),
        ("extraction", "cfg/extraction"),
        ("cspdarknet53", "cfg_later/yolov4"),
    ],
)
def test_darknets_are_their_cfg(name, file):
    """Variables by name and shape, and what they make of an image."""
    path = FOLDER / f"{file}.cfg"
    if not path.is_file():
        pytest.skip(f"no {path}: set DETJAX_DARKNET")
    whole = net.Net(cfg.parse(path.read_text()))
    images = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    theirs = jax.eval_shape(whole.init, jax.random.key(0), images)
    classes = None if name == "cspdarknet53" else 1000
    ours = backbones.make(name, num_classes=classes)
    made = jax.eval_shape(ours.init, jax.random.key(0), images)
    for kind, held in made.items():
        expected = {index: theirs[kind][index] for index in held}
        assert jax.tree.map(np.shape, held) == jax.tree.map(np.shape, expected)
    if classes is None:
        return
    assert jax.tree.structure(made) == jax.tree.structure(theirs)
    variables = drawn(ours, images)
    logits = jax.jit(ours.apply)(variables, images)
    shares = jax.jit(lambda v, x: whole.apply(v, x)[-1])(variables, images)
    np.testing.assert_allclose(
        jax.nn.softmax(logits), np.reshape(shares, (1, -1)), atol=1e-6
    )
