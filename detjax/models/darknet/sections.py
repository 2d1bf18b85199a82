"""Sections of a cfg, written in Python: what YOLO's networks are made of.

`width` of a network is a factor on the filters of its layers. A convolution halves the
map with stride 2 and keeps its size with stride 1.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from detjax.models.darknet.cfg import Cfg, Section

Anchors = Sequence[tuple[float, float]]


def section(kind: str, **options: Any) -> Section:
    """A section of these options, as a file has them."""
    return Section(kind, f"[{kind}] as written here", 0, _texts(options))


def conv(
    filters: int, size: int = 3, stride: int = 1, activation: str = "leaky"
) -> Section:
    """A convolution with batch normalisation."""
    return section(
        "convolutional",
        batch_normalize=1,
        filters=filters,
        size=size,
        stride=stride,
        pad=1,
        activation=activation,
    )


def alternating(filters: int, count: int) -> list[Section]:
    """`count` convolutions by turns: 3x3, and 1x1 to half the filters."""
    return [conv(filters // (1 + i % 2), 3 - 2 * (i % 2)) for i in range(count)]


def predicted(filters: int) -> Section:
    """The 1x1 convolution whose output a head reads."""
    return section(
        "convolutional", size=1, stride=1, pad=1, filters=filters, activation="linear"
    )


def pool(size: int = 2, stride: int = 2) -> Section:
    return section("maxpool", size=size, stride=stride)


def route(*layers: int, **options: int) -> Section:
    return section("route", layers=layers, **options)


def shortcut(back: int = 3) -> Section:
    return section("shortcut", **{"from": -back, "activation": "linear"})


def upsample() -> Section:
    return section("upsample", stride=2)


def pyramid_pool() -> list[Section]:
    """Maxima of 5x5, 9x9 and 13x13 cells beside the map (He et al. 2015, SPP)."""
    return [
        pool(5, 1),
        route(-2),
        pool(9, 1),
        route(-4),
        pool(13, 1),
        route(-1, -3, -5, -6),
    ]


def yolo(
    classes: int, anchors: Anchors, mask: Iterable[int], **options: Any
) -> list[Section]:
    """A [yolo] head of the anchors of `mask`, with the convolution before it."""
    mask = list(mask)
    known = {"ignore_thresh": 0.7, "truth_thresh": 1}
    head = section(
        "yolo",
        mask=mask,
        anchors=[x for pair in anchors for x in pair],
        classes=classes,
        num=len(anchors),
        **known | options,
    )
    return [predicted(len(mask) * (5 + classes)), head]


def region(classes: int, anchors: Anchors, **options: Any) -> list[Section]:
    """A [region] head, with the convolution before it."""
    head = section(
        "region",
        anchors=[x for pair in anchors for x in pair],
        bias_match=1,
        classes=classes,
        coords=4,
        num=len(anchors),
        softmax=1,
        object_scale=5,
        noobject_scale=1,
        class_scale=1,
        coord_scale=1,
        thresh=0.6,
        **options,
    )
    return [predicted(len(anchors) * (5 + classes)), head]


def network(size: tuple[int, int], layers: Iterable[Section]) -> Cfg:
    """A network for inputs of `size` (h, w)."""
    net = section("net", height=size[0], width=size[1], channels=3)
    return Cfg(net, tuple(layers))


def _texts(options: dict[str, Any]) -> dict[str, str]:
    return {
        name: ",".join(f"{x:g}" for x in value)
        if isinstance(value, list | tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
        for name, value in options.items()
    }
