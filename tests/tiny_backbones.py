"""Small members of the families from LeNet-5 to Inception-ResNet."""

import math

import jax
import numpy as np

from detjax import backbones
from detjax.backbones import densenet, xception

TINY = {
    "lenet5": {},
    "lenet_caffe": {"width": 4},
    "nin_imagenet": {"width": 6},
    "nin_cifar10": {"width": 6},
    "googlenet": {"width": 4},
    "inception_v3": {"width": 1},
    "inception_resnet_v2": {"width": 1, "repeats": (1, 1, 1)},
    "xception": {"width": 1},
    "xception_aligned": {"width": 1},
    "densenet121": {"width": 4},
}


def make(name, **kwargs):
    """A narrow member, of few blocks where their number can be said."""
    kwargs = {**TINY[name], **kwargs}
    if name == "densenet121":
        return densenet.DenseNet(densenet.Spec((2, 1, 2, 1)), **kwargs)
    if name in xception.SPECS:
        return xception.Xception(xception.SPECS[name]._replace(middle=1), **kwargs)
    return backbones.make(name, **kwargs)


def draw(shapes, seed=0):
    """Variables of these shapes: small numbers; variances and scales are positive."""
    rng = np.random.default_rng(seed)

    def one(path, x):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        fan_in = math.prod(x.shape[:-1]) if len(x.shape) > 1 else 100
        return (rng.normal(size=x.shape) * (2 / fan_in) ** 0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)
