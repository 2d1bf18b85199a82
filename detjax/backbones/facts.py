"""What papers and publishers say of the classifiers: inputs, top-1, paper.

`top1` is the share of ImageNet's validation images that is told right, one crop, as
torchvision, timm or darknet publish it of the weights of `source`, or the paper where
it says "paper"; None where there are none. `pixels` are how these weights see an image,
`nn.images.STATISTICS`; None where it is none of those.
"""

from typing import NamedTuple


class Fact(NamedTuple):
    """A classifier's inputs, accuracy in percent, paper and origin."""

    side: int
    top1: float | None
    paper: str
    source: str = "torchvision"
    classes: int = 1000
    pixels: str | None = "imagenet"


_V2 = "Sandler et al. 2018"
_V3 = "Howard et al. 2019"
_RES = "He et al. 2016"
_NEXT = "Xie et al. 2017"
_VGG = "Simonyan and Zisserman 2015"
_SHUFFLE = "Zhang et al. 2018"
_SHUFFLE2 = "Ma et al. 2018"
_DENSE = "Huang et al. 2017"
_SQUEEZE = "Iandola et al. 2016"

FACTS: dict[str, Fact] = {
    "lenet5": Fact(32, None, "LeCun et al. 1998", "paper", 10, pixels="lenet"),
    "lenet_caffe": Fact(28, None, "LeCun et al. 1998", "Caffe", 10, pixels="unit"),
    "alexnet": Fact(224, 56.522, "Krizhevsky et al. 2012"),
    # Of whitened images.
    "nin_cifar10": Fact(32, None, "Lin et al. 2014", "Caffe", 10, pixels=None),
    "nin_imagenet": Fact(224, None, "Lin et al. 2014", "Caffe", pixels="caffe"),
    "vgg11": Fact(224, 69.020, _VGG),
    "vgg13": Fact(224, 69.928, _VGG),
    "vgg16": Fact(224, 71.592, _VGG),
    "vgg19": Fact(224, 72.376, _VGG),
    "vgg11_bn": Fact(224, 70.370, _VGG),
    "vgg13_bn": Fact(224, 71.586, _VGG),
    "vgg16_bn": Fact(224, 73.360, _VGG),
    "vgg19_bn": Fact(224, 74.218, _VGG),
    "googlenet": Fact(224, 69.778, "Szegedy et al. 2015", pixels="inception"),
    "extraction": Fact(224, 72.5, "Redmon et al. 2016", "darknet", pixels="unit"),
    "inception_v3": Fact(299, 77.294, "Szegedy et al. 2016", pixels="inception"),
    "inception_resnet_v2": Fact(
        299, 80.4, "Szegedy et al. 2017", "timm", pixels="inception"
    ),
    "resnet10": Fact(224, None, "none", "none"),
    "resnet18": Fact(224, 69.758, _RES),
    "resnet34": Fact(224, 73.314, _RES),
    "resnet50": Fact(224, 76.130, _RES),
    "resnet101": Fact(224, 77.374, _RES),
    "resnet152": Fact(224, 78.312, _RES),
    "resnext50_32x4d": Fact(224, 77.618, _NEXT),
    "resnext101_32x8d": Fact(224, 79.312, _NEXT),
    "wide_resnet50_2": Fact(224, 78.468, "Zagoruyko and Komodakis 2016"),
    "darknet_reference": Fact(256, 61.1, "Redmon 2013-2016", "darknet", pixels="unit"),
    "darknet19": Fact(256, 72.9, "Redmon and Farhadi 2017", "darknet", pixels="unit"),
    "darknet53": Fact(256, 77.2, "Redmon and Farhadi 2018", "darknet", pixels="unit"),
    "cspdarknet53": Fact(256, 77.2, "Wang et al. 2020", "darknet", pixels="unit"),
    "densenet121": Fact(224, 74.434, _DENSE),
    "densenet161": Fact(224, 77.138, _DENSE),
    "densenet169": Fact(224, 75.600, _DENSE),
    "densenet201": Fact(224, 76.896, _DENSE),
    "dla34": Fact(224, None, "Yu et al. 2018", "authors"),
    "xception": Fact(299, 79.0, "Chollet 2017", "paper", pixels="inception"),
    "xception_aligned": Fact(
        299, None, "Chen et al. 2018", "paper", pixels="inception"
    ),
    "squeezenet1_0": Fact(224, 58.092, _SQUEEZE),
    "squeezenet1_1": Fact(224, 58.178, _SQUEEZE),
    "mobilenet_v1": Fact(224, 70.6, "Howard et al. 2017", "paper", pixels="inception"),
    "mobilenet_v2": Fact(224, 71.878, _V2),
    "mobilenet_v3_large": Fact(224, 74.042, _V3),
    "mobilenet_v3_small": Fact(224, 67.668, _V3),
    # The paper's errors, table 2; the weights' images are BGR, 0..255.
    "shufflenet_v1_g1": Fact(224, 66.4, _SHUFFLE, "paper", pixels=None),
    "shufflenet_v1_g2": Fact(224, 67.3, _SHUFFLE, "paper", pixels=None),
    "shufflenet_v1_g3": Fact(224, 67.4, _SHUFFLE, "paper", pixels=None),
    "shufflenet_v1_g4": Fact(224, 67.2, _SHUFFLE, "paper", pixels=None),
    "shufflenet_v1_g8": Fact(224, 67.6, _SHUFFLE, "paper", pixels=None),
    "shufflenet_v2_x0_5": Fact(224, 60.552, _SHUFFLE2),
    "shufflenet_v2_x1_0": Fact(224, 69.362, _SHUFFLE2),
    "shufflenet_v2_x1_5": Fact(224, 72.996, _SHUFFLE2),
    "shufflenet_v2_x2_0": Fact(224, 76.230, _SHUFFLE2),
}
# How the networks of "imagenet" are fed by other publishers.
FED = {"caffe": "caffe", "yolact": "yolact"}


def pixels(name: str, source: str) -> str | None:
    """How weights of `source` (`weights.names.SOURCES`) see an image, as in `Fact`."""
    kind = FACTS[name].pixels
    return FED.get(source, kind) if kind == "imagenet" else kind


# Equal to the original's parameters, outputs and, of some, losses and gradients by its
# goldens (scripts/parity.py); those of darknet by being what their cfg is.
CERTIFIED = frozenset(
    [
        "alexnet",
        "darknet19",
        "darknet_reference",
        "densenet121",
        "densenet169",
        "extraction",
        "googlenet",
        "inception_resnet_v2",
        "inception_v3",
        "lenet5",
        "lenet_caffe",
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "mobilenet_v3_small",
        "nin_cifar10",
        "nin_imagenet",
        "resnet101",
        "resnet152",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnext101_32x8d",
        "resnext50_32x4d",
        "shufflenet_v1_g3",
        "shufflenet_v1_g8",
        "shufflenet_v2_x1_0",
        "squeezenet1_1",
        "vgg11",
        "vgg16",
        "vgg16_bn",
        "wide_resnet50_2",
        "xception",
    ]
)
