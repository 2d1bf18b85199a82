"""The networks of YOLO's papers as sections, at any number of classes and any width.

Each is that of the authors' cfg of its name, layer by layer, whose files need not be
at hand. Filters are whole numbers of 8 at widths other than 1.

Redmon et al. 2016 (v1), Redmon and Farhadi 2017 (v2) and 2018 (v3), Bochkovskiy et al.
2020 (v4), Huang et al. 2019 (the pyramid pooling of v3's spp form).
"""

from collections.abc import Callable, Iterator

from detjax.models.darknet.cfg import Cfg, Section
from detjax.models.darknet.sections import (
    Anchors,
    alternating,
    conv,
    network,
    pool,
    pyramid_pool,
    region,
    route,
    section,
    shortcut,
    upsample,
    yolo,
)

# (w, h) in cells of 32 pixels, of COCO and of VOC.
V2 = (
    (0.57273, 0.677385),
    (1.87446, 2.06253),
    (3.33843, 5.47434),
    (7.88282, 3.52778),
    (9.77052, 9.16828),
)
V2_VOC = (
    (1.3221, 1.73145),
    (3.19275, 4.00944),
    (5.05587, 8.09892),
    (9.47112, 4.84053),
    (11.2364, 10.0071),
)
V9000 = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
# (w, h) in pixels.
V3 = (
    (10, 13),
    (16, 30),
    (33, 23),
    (30, 61),
    (62, 45),
    (59, 119),
    (116, 90),
    (156, 198),
    (373, 326),
)
TINY = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
V4 = (
    (12, 16),
    (19, 36),
    (40, 28),
    (36, 75),
    (76, 55),
    (72, 146),
    (142, 110),
    (192, 243),
    (459, 401),
)

Filters = Callable[[int], int]


def wide(width: float) -> Filters:
    """Filters of the paper -> filters at `width`."""
    if width == 1:
        return lambda filters: filters
    return lambda filters: max(8 * round(filters * width / 8), 8)


def yolov1(classes: int, width: float, boxes: int = 3, side: int = 7) -> Cfg:
    """24 convolutions, one layer of own kernels for each place, and a connected one."""
    f = wide(width)

    def layers() -> Iterator[Section]:
        yield from (conv(f(64), 7, 2), pool(), conv(f(192)), pool())
        yield from (conv(f(128), 1), conv(f(256)), conv(f(256), 1), conv(f(512)))
        yield pool()
        yield from [conv(f(256), 1), conv(f(512))] * 4
        yield from (conv(f(512), 1), conv(f(1024)), pool())
        yield from [conv(f(512), 1), conv(f(1024))] * 2
        yield from (conv(f(1024)), conv(f(1024), 3, 2), conv(f(1024)), conv(f(1024)))
        yield section(
            "local", size=3, stride=1, pad=1, filters=f(256), activation="leaky"
        )
        yield section("dropout", probability=0.5)
        yield from _detection(classes, boxes, side)

    return network((64 * side, 64 * side), layers())


def yolov1_tiny(classes: int, width: float, boxes: int = 2, side: int = 7) -> Cfg:
    """Eight convolutions and a connected layer."""
    f = wide(width)

    def layers() -> Iterator[Section]:
        for filters in (16, 32, 64, 128, 256, 512):
            yield from (conv(f(filters)), pool())
        yield from (conv(f(1024)), conv(f(256)))
        yield from _detection(classes, boxes, side)

    return network((64 * side, 64 * side), layers())


def _detection(classes: int, boxes: int, side: int) -> list[Section]:
    output = side * side * (classes + 5 * boxes)
    head = section(
        "detection",
        classes=classes,
        coords=4,
        rescore=1,
        side=side,
        num=boxes,
        softmax=0,
        sqrt=1,
        object_scale=1,
        noobject_scale=0.5,
        class_scale=1,
        coord_scale=5,
    )
    return [section("connected", output=output, activation="linear"), head]


def darknet19(f: Filters) -> Iterator[Section]:
    """The convolutions of the classifier Darknet-19, but for its last."""
    yield from (conv(f(32)), pool(), conv(f(64)), pool())
    for filters, count in ((128, 3), (256, 3), (512, 5)):
        yield from (*alternating(f(filters), count), pool())
    yield from alternating(f(1024), 5)


def yolov2(classes: int, width: float, anchors: Anchors) -> Cfg:
    """Darknet-19 with a passthrough of the finer map (section 2)."""
    f = wide(width)
    layers = [
        *darknet19(f),
        *(conv(f(1024)), conv(f(1024)), route(-9), conv(f(64), 1)),
        *(section("reorg", stride=2), route(-1, -4), conv(f(1024))),
        *region(classes, anchors, rescore=1),
    ]
    return network((416, 416), layers)


def yolov2_tiny(
    classes: int, width: float, anchors: Anchors, last: int = 512, rescore: int = 0
) -> Cfg:
    """Seven convolutions with pooling between, and one of `last` filters.

    The authors' for VOC has last=1024 and rescore=1.
    """
    f = wide(width)
    head = region(classes, anchors, rescore=rescore)
    layers = [*_tiny(f), conv(f(last)), *head]
    return network((416, 416), layers)


def yolo9000(
    classes: int, width: float, anchors: Anchors, tree: str = "the tree"
) -> Cfg:
    """Darknet-19 and a head whose classes are those of a tree's file (section 4)."""
    f = wide(width)
    head = region(classes, anchors, rescore=1, tree=tree)
    return network((544, 544), [*darknet19(f), *head])


def darknet53(f: Filters) -> Iterator[Section]:
    """The residual network of section 2.4 of YOLOv3, without its classifier."""
    yield conv(f(32))
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        yield conv(f(filters), 3, 2)
        yield from [conv(f(filters) // 2, 1), conv(f(filters)), shortcut()] * blocks


def yolov3(classes: int, width: float, anchors: Anchors, pyramid: bool = False) -> Cfg:
    """Darknet-53 and three heads, each on a map that is twice as fine.

    pyramid: with pooling at three sizes before the first head (spp).
    """
    f, each = wide(width), len(anchors) // 3
    layers = list(darknet53(f))
    for filters, finer in ((512, 61), (256, 36), (128, None)):
        narrow, full = f(filters), 2 * f(filters)
        layers += [conv(narrow, 1), conv(full)]
        if pyramid and filters == 512:
            layers += [conv(narrow, 1), *pyramid_pool()]
        layers += [conv(narrow, 1), conv(full)] * 2
        first = {512: 2, 256: 1, 128: 0}[filters] * each
        layers += yolo(classes, anchors, range(first, first + each))
        if finer is not None:
            layers += [route(-4), conv(f(filters // 2), 1), upsample()]
            layers += [route(-1, finer)]
    return network((416, 416), layers)


def yolov3_tiny(classes: int, width: float, anchors: Anchors) -> Cfg:
    """Seven convolutions with pooling between, and two heads."""
    f, each = wide(width), len(anchors) // 2
    layers = [
        *(*_tiny(f), conv(f(256), 1), conv(f(512))),
        *yolo(classes, anchors, range(each, 2 * each)),
        *(route(-4), conv(f(128), 1), upsample(), route(-1, 8), conv(f(256))),
        *yolo(classes, anchors, range(each)),
    ]
    return network((416, 416), layers)


def _tiny(f: Filters) -> Iterator[Section]:
    for filters in (16, 32, 64, 128, 256):
        yield from (conv(f(filters)), pool())
    yield from (conv(f(512)), pool(2, 1), conv(f(1024)))


def yolov4(classes: int, width: float, anchors: Anchors) -> Cfg:
    """CSPDarknet-53 with Mish, pooling at three sizes, and paths up and down again."""
    f, each = wide(width), len(anchors) // 3
    layers = list(_csp_darknet53(f))
    layers += [conv(f(512), 1), conv(f(1024)), conv(f(512), 1), *pyramid_pool()]
    layers += [conv(f(512), 1), conv(f(1024)), conv(f(512), 1)]
    for filters, finer in ((256, 85), (128, 54)):
        layers += [conv(f(filters), 1), upsample(), route(finer), conv(f(filters), 1)]
        layers += [route(-1, -3), *[conv(f(filters), 1), conv(f(2 * filters))] * 2]
        layers += [conv(f(filters), 1)]
    layers += [conv(f(256))]
    heads = ((0, 1.2, 512, 16), (1, 1.1, 1024, 37), (2, 1.05, None, None))
    for i, scale, filters, back in heads:
        mask = range(i * each, (i + 1) * each)
        layers += yolo(classes, anchors, mask, **_V4, scale_x_y=scale, iou_thresh=0.213)
        if filters is not None:
            narrow = f(filters // 2)
            layers += [route(-4), conv(narrow, 3, 2), route(-1, -back)]
            layers += [conv(narrow, 1), conv(f(filters))] * 3
    return network((608, 608), layers)


_V4 = {
    "cls_normalizer": 1.0,
    "iou_normalizer": 0.07,
    "iou_loss": "ciou",
    "nms_kind": "greedynms",
    "beta_nms": 0.6,
    "max_delta": 5,
}


def _csp_darknet53(f: Filters) -> Iterator[Section]:
    """Darknet-53 whose stages pass half of their map by (Wang et al. 2020, CSPNet)."""
    yield conv(f(32), activation="mish")
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        half = f(filters) if blocks == 1 else f(filters // 2)
        block = [
            conv(f(filters // 2), 1, activation="mish"),
            conv(half, activation="mish"),
            shortcut(),
        ]
        yield conv(f(filters), 3, 2, "mish")
        yield conv(half, 1, activation="mish")
        yield route(-2)
        yield conv(half, 1, activation="mish")
        yield from block * blocks
        yield conv(half, 1, activation="mish")
        yield route(-1, -3 * blocks - 4)
        yield conv(f(filters), 1, activation="mish")


def yolov4_tiny(classes: int, width: float, anchors: Anchors) -> Cfg:
    """Three stages that pass half of their map by, and two heads."""
    f, each = wide(width), len(anchors) // 2
    options = {name: value for name, value in _V4.items() if name != "max_delta"}
    layers = [conv(f(32), 3, 2), conv(f(64), 3, 2)]
    for filters in (64, 128, 256):
        half = f(filters) // 2
        layers += [conv(f(filters)), route(-1, groups=2, group_id=1), conv(half)]
        layers += [conv(half), route(-1, -2), conv(f(filters), 1), route(-6, -1)]
        layers += [pool()]
    layers += [conv(f(512)), conv(f(256), 1), conv(f(512))]
    # The finer head begins with the anchor before its own, as the authors' does.
    for mask, finer in ((range(each, 2 * each), 23), (range(1, 1 + each), None)):
        layers += yolo(classes, anchors, mask, **options, scale_x_y=1.05)
        if finer is not None:
            layers += [route(-4), conv(f(128), 1), upsample(), route(-1, finer)]
            layers += [conv(f(256))]
    return network((416, 416), layers)
