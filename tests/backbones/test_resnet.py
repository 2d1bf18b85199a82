"""Parameter counts and shapes of the ResNet family; parity has its own suite."""

import jax
import numpy as np
import pytest

from detjax import backbones

# torchvision's published counts, with the classifier of 1,000 classes.
COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
}


def shapes(net, side=64):
    images = np.zeros((1, side, side, 3), np.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    return variables, jax.eval_shape(net.apply, variables, images)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    variables, logits = shapes(backbones.make(name, num_classes=1000))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == COUNTS[name]
    assert logits.shape == (1, 1000)


def test_features_have_strides_4_to_32():
    _, features = shapes(backbones.make("resnet50"))
    assert [f.shape for f in features] == [
        (1, 16, 16, 256),
        (1, 8, 8, 512),
        (1, 4, 4, 1024),
        (1, 2, 2, 2048),
    ]


def test_names_are_torchvisions():
    variables, _ = shapes(backbones.make("resnet18", num_classes=10))
    paths = jax.tree_util.tree_leaves_with_path(variables["params"])
    names = {".".join(p.key for p in path) for path, _ in paths}
    assert {"conv1.kernel", "bn1.scale", "fc.bias"} <= names
    assert {"layer2.0.downsample.0.kernel", "layer4.1.bn2.bias"} <= names


def test_unknown_names_say_which_exist():
    with pytest.raises(ValueError, match="resnet50"):
        backbones.make("resnet51")
