"""Every model at its smallest, and batches to try it on: what the shared suites run."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from detjax import models
from detjax.types import (
    Batch,
    Inputs,
    LabelMap,
    Objects,
    Proposals,
    ValueMap,
    View,
)

SIDE, CLASSES, KEYPOINTS = 64, 3, 2

YOLACT = {
    "name": "yolact",
    "num_classes": CLASSES,
    "backbone": {"name": "resnet10", "width": 8, "levels": (3, 4)},
    "fpn": {"features": 8, "extra_levels": 1},
    "priors": {"sizes": ((12,), (24,), (48,))},
    "mask": {"prototypes": 4, "to_train": 16},
    "detect": {"top_k": 20, "max_detections": 10, "score_threshold": 0.01},
}
# One block a stage and few proposals; the samplers take every candidate.
TWO_STAGE = {
    "num_classes": CLASSES,
    "backbone": {"name": "resnet10", "width": 8, "norm": "frozen", "levels": (3, 4)},
    "fpn": {"features": 8},
    "rpn": {
        "sizes": ((12,), (24,), (48,)),
        "samples": 1000,
        "pre_nms": (20, 20),
        "post_nms": (16, 16),
    },
    "roi": {"samples": 1000},
    "box": {"hidden": 16},
    "detect": {"score_threshold": 0.01, "max_detections": 10},
}
MASK = {"bins": 6, "features": 8, "depth": 1, "samples": 12}
KEYPOINT = {"count": KEYPOINTS, "bins": 6, "features": 8, "depth": 1, "samples": 12}


def with_stages(**stages):
    """`TWO_STAGE`, with these settings of its stages changed."""
    changed = {
        name: {**TWO_STAGE[name], **settings} if name in TWO_STAGE else settings
        for name, settings in stages.items()
        if settings is not None
    }
    off = {name: None for name, settings in stages.items() if settings is None}
    return {**TWO_STAGE, **changed, **off}


RETINANET = {
    "name": "retinanet",
    "num_classes": CLASSES,
    "backbone": {"name": "resnet10", "width": 8, "norm": "frozen", "levels": (3, 4)},
    "fpn": {"features": 8, "extra_levels": 1},
    "head": {"depth": 1, "prior": 0.3},
    "priors": {"sizes": ((12,), (24,), (48,))},
    "detect": {"score_threshold": 0.001, "pre_nms_top_k": 20, "max_detections": 10},
}
FCOS = {
    **{k: v for k, v in RETINANET.items() if k != "priors"},
    "name": "fcos",
    "match": {"span": 1.0},
}
CORNERNET = {
    "name": "cornernet",
    "num_classes": CLASSES,
    "backbone": {
        "stacks": 1,
        "dims": (8, 8),
        "modules": (1, 1),
        "features": 8,
        "norm": "frozen",
    },
    "head": {"pooled": 8, "hidden": 8},
    # Small numbers, whose sigmoids have a slope without norms too.
    "pixels": "unit",
    # Corners that have not learnt have classes and tags of their own.
    "detect": {
        "corners": 200,
        "pairs": 40,
        "tag_distance": 1e3,
        "max_detections": 10,
    },
}
CENTERNET = {
    "name": "centernet",
    "num_classes": CLASSES,
    "backbone": {"name": "resnet10", "width": 8, "norm": "frozen", "levels": (4,)},
    "up": {"features": (16, 16), "norm": "frozen"},
    "head": {"hidden": 16, "prior": 0.3},
    "detect": {"max_detections": 10},
}
SSD = {
    "name": "ssd",
    "num_classes": CLASSES,
    "backbone": {"name": "vgg11", "width": 8, "norm": "frozen"},
    "extras": {"features": (16,), "kernels": (3,), "strides": (2,), "paddings": (1,)},
    "priors": {"scales": (0.2, 0.35, 0.6, 0.9), "ratios": ((2,), (2, 3), (2,))},
    "detect": {"score_threshold": 0.01, "pre_nms_top_k": 20, "max_detections": 10},
}
C4 = with_stages(
    backbone={"levels": (4,)},
    fpn=None,
    rpn={"sizes": ((12, 24, 48),), "features": 16},
)


def cfg(*sections: str) -> str:
    """The text of a cfg: each section "kind option=value ...", after [net]."""
    lines = [f"[net]\nwidth={SIDE}\nheight={SIDE}\nchannels=3"]
    for section in sections:
        kind, *options = section.split()
        lines.append("\n".join([f"[{kind}]", *options]))
    return "\n".join(lines) + "\n"


def conv(filters: int, stride: int = 1) -> str:
    """A convolution with norm."""
    return (
        f"convolutional batch_normalize=1 filters={filters} size=3 stride={stride} "
        "pad=1 activation=leaky"
    )


def linear(filters: int) -> str:
    """What a head reads."""
    return f"convolutional filters={filters} size=1 activation=linear"


HEAD = (
    "yolo anchors=8,8,12,12,20,20,30,20 classes=3 num=4 ignore_thresh=.7 "
    "truth_thresh=1 mask="
)
# Two heads, the second of a larger map.
YOLO = cfg(
    *(conv(8, 2), conv(16, 2), conv(16, 2), linear(2 * (5 + CLASSES)), HEAD + "2,3"),
    *("route layers=-3", "upsample stride=2", "route layers=-1,1"),
    *(linear(2 * (5 + CLASSES)), HEAD + "0,1"),
)
REGION = cfg(
    *(conv(8, 2), conv(16, 2), linear(2 * (5 + CLASSES))),
    "region anchors=3,3,6,4 classes=3 num=2 softmax=1 bias_match=1 rescore=1 "
    "object_scale=5 thresh=.6",
)
DETECTION = cfg(
    *(conv(8, 2), conv(16, 4), "local filters=4 size=3 pad=1 activation=leaky"),
    *("dropout probability=.0", "connected output=832 activation=linear"),
    "detection classes=3 side=8 num=2 sqrt=1 rescore=1 noobject_scale=.5 coord_scale=5",
)
DARKNET = {
    "name": "darknet",
    "num_classes": CLASSES,
    "detect": {"score_threshold": 0.001, "max_detections": 10},
}
TINY = {
    "yolact": YOLACT,
    "yolact-boxes": {**YOLACT, "mask": None},
    "yolact-frozen-norm": {
        **YOLACT,
        "backbone": {**YOLACT["backbone"], "norm": "frozen"},
    },
    "mask_rcnn-v2": {
        "name": "mask_rcnn",
        **with_stages(
            backbone={"norm": "group"},
            fpn={"norm": "group"},
            rpn={"depth": 2},
            box={"head": "convs", "norm": "group"},
            mask={**MASK, "norm": "group"},
        ),
    },
    "faster_rcnn_c4": {"name": "faster_rcnn_c4", **C4, "box": {"bins": 6}},
    "fast_rcnn": {
        "name": "fast_rcnn",
        **C4,
        "backbone": {**C4["backbone"], "name": "vgg11"},
        "rpn": None,
        "box": {"hidden": 16, "dropout": 0.0},
    },
    "keypoint_rcnn": {"name": "keypoint_rcnn", **with_stages(keypoint=KEYPOINT)},
    "ms_rcnn": {"name": "ms_rcnn", **with_stages(mask={**MASK, "features": 16})},
    "hourglass_pose": {
        "name": "hourglass_pose",
        "num_classes": CLASSES,
        "backbone": {
            "stacks": 2,
            "dims": (8, 8),
            "modules": (1, 1),
            "features": 8,
            "norm": "frozen",
        },
        "keypoint": {"count": KEYPOINTS},
    },
    "retinanet": RETINANET,
    "fcos": FCOS,
    "ssd": SSD,
    "cornernet": CORNERNET,
    "centernet": CENTERNET,
    "centernet-pose": {**CENTERNET, "pose": {"count": KEYPOINTS, "candidates": 10}},
    "centernet_dla": {
        **CENTERNET,
        "name": "centernet_dla",
        "backbone": {
            "name": "dla34",
            "width": 2,
            "norm": "frozen",
            "levels": (2, 3, 4),
        },
        "up": {"norm": "frozen", "joined": 2},
    },
    "centernet-turned": {**CENTERNET, "oriented": True, "amodal": True},
    "rcnn": {
        "name": "rcnn",
        "num_classes": CLASSES,
        "backbone": {"name": "resnet10", "width": 8, "norm": "frozen"},
        "warp": {"size": 32, "padding": 2, "chunk": 16},
        "sample": {"num_positives": 1000, "num_background": 1000},
        "detect": {"score_threshold": 0.01, "max_detections": 10},
    },
    "sliding_window": {
        "name": "sliding_window",
        "num_classes": CLASSES,
        "backbone": {"name": "resnet10", "width": 8, "levels": (3,)},
        "windows": {"side": 32, "sizes": (16.0, 24.0, 40.0)},
        "sample": {"positives": 1000, "background": 1000},
        "detect": {"score_threshold": 0.01, "max_detections": 10},
    },
    "darknet-yolo": {**DARKNET, "cfg": YOLO},
    "darknet-region": {**DARKNET, "cfg": REGION},
    "darknet-detection": {**DARKNET, "cfg": DETECTION},
}


_VGG = {"name": "vgg11", "width": 8}
_VGG_NORMED = {"name": "vgg11_bn", "width": 8, "norm": "frozen"}
# Of networks on dilated backbones that answer for every pixel.
_DENSE = {"num_classes": CLASSES, "norm": "frozen"}
_DILATED = {"name": "resnet10", "width": 8, "norm": "frozen", "output_stride": 16}
_FPN = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "frozen"},
    "fpn": {"features": 8},
    "head": {"features": 8, "norm": "frozen"},
}
# Of models that answer for every pixel.
TINY_PIXELS = {
    "fcn_vgg": {
        "name": "fcn_vgg",
        "num_classes": CLASSES,
        "backbone": _VGG,
        "hidden": 16,
        "padding": 1,
        "fc6_side": 3,
        "fc6_padding": 1,
        "dropout": 0.0,
    },
    "segnet": {"name": "segnet", "num_classes": CLASSES, "backbone": _VGG_NORMED},
    "segnet_basic": {
        "name": "segnet_basic",
        "num_classes": CLASSES,
        "width": 8,
        "depth": 2,
        "norm": "frozen",
    },
    "deconvnet": {
        "name": "deconvnet",
        "num_classes": CLASSES,
        "backbone": _VGG_NORMED,
        "hidden": 16,
        "fc6_side": 2,
    },
    "unet": {
        "name": "unet",
        "num_classes": CLASSES,
        "width": 8,
        "depth": 2,
        "norm": "frozen",
    },
    "dense_classifier": {
        "name": "dense_classifier",
        "num_classes": CLASSES,
        "patch": {"side": 13, "features": (8,), "kernel": 3, "hidden": 16},
    },
    "fcn_resnet": {
        "name": "fcn_resnet",
        **_DENSE,
        "backbone": _DILATED,
        "dropout": 0.0,
    },
    "deeplabv3": {
        "name": "deeplabv3",
        **_DENSE,
        "backbone": _DILATED,
        "aspp": {"features": 8, "dropout": 0.0},
        "auxiliary": {"features": 8, "dropout": 0.0},
    },
    "deeplabv3plus": {
        "name": "deeplabv3plus",
        **_DENSE,
        "backbone": _DILATED,
        "aspp": {"features": 8, "dropout": 0.0, "separable": True},
        "decoder": {"fine": 4, "features": 8, "dropout": (0.0, 0.0)},
    },
    "lraspp": {
        "name": "lraspp",
        **_DENSE,
        "backbone": _DILATED,
        "features": 8,
    },
    "pspnet": {
        "name": "pspnet",
        **_DENSE,
        "backbone": {**_DILATED, "deep_stem": True, "dilate_at_once": True},
        "features": 4,
        "hidden": 8,
        "dropout": 0.0,
        "auxiliary": {"features": 8, "dropout": 0.0},
    },
    "gscnn": {
        "name": "gscnn",
        "num_classes": CLASSES,
        "backbone": {
            "width": 8,
            "blocks": (1,) * 6,
            "norm": "frozen",
            "dropout": False,
        },
        "features": 16,
        # Its noise is another for another batch.
        "loss": {"dual": 0.0},
    },
    "semantic_fpn": {"name": "semantic_fpn", "num_classes": CLASSES, **_FPN},
    "dense_fpn": {"name": "dense_fpn", **_FPN},
    "hed": {"name": "hed", "backbone": _VGG},
    "dense_unet": {"name": "dense_unet", "width": 8, "depth": 2, "norm": "frozen"},
    "scene_fpn": {"name": "scene_fpn", "num_classes": CLASSES, **_FPN},
}


# Compiling these takes minutes; what they share with the others is checked there.
SLOW = (
    "yolact-boxes",
    "yolact-frozen-norm",
    "fast_rcnn",
    "faster_rcnn_c4",
    "keypoint_rcnn",
    "ms_rcnn",
    "sliding_window",
    "darknet-region",
    "darknet-detection",
    "fcos",
    "cornernet",
    "centernet-pose",
    "centernet-turned",
    "hourglass_pose",
    "centernet_dla",
)


# Of these the parts have tests of their own, and the whole is another's.
ALIKE = ("centernet-turned", "centernet_dla", "hourglass_pose")


OF_PIXELS = "segmentation", "dense", "scene"


def everything():
    """The settings of all tiny models by name."""
    return TINY | TINY_PIXELS


def task_of(name):
    """The name of the task of the tiny model `name`."""
    return models.task_of(everything()[name]["name"])


# Models of pixels that are tried by default, beside the first of each task.
SAMPLED = ("unet", "deeplabv3plus")
EVERY = pytest.mark.skipif(
    "DETJAX_EVERY_FAMILY" not in os.environ, reason="set DETJAX_EVERY_FAMILY"
)


def parameters(*tasks):
    """The names of the models of `tasks`, or of all, for pytest; some marked slow.

    Of models of pixels the first of a task is quick, and some are slow; the others, and
    those that are `ALIKE`, run with DETJAX_EVERY_FAMILY only.
    """
    found, seen = [], set()
    for name in everything():
        task = task_of(name)
        slow = name in SLOW or (task in OF_PIXELS and task in seen)
        seen.add(task)
        if task in tasks or not tasks:
            marks = [pytest.mark.slow] if slow else []
            alike = task in OF_PIXELS and name not in SAMPLED
            if slow and (alike or name in ALIKE):
                marks.append(EVERY)
            found.append(pytest.param(name, marks=marks, id=name))
    return found


@functools.cache
def model(name):
    return models.make(**everything()[name])


@functools.cache
def loss_and_gradient(name):
    return jax.jit(jax.value_and_grad(model(name).loss, has_aux=True))


@functools.cache
def predict(name):
    return jax.jit(model(name).predict)


@functools.cache
def variables(name, seed=0):
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    return jax.jit(model(name).init)(jax.random.key(seed, impl="rbg"), images)


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


def run(name, data, params=None):
    """(loss, metrics), gradients of the tiny model on `data`."""
    initial, state = variables(name)
    (loss, (_, metrics)), gradients = loss_and_gradient(name)(
        initial if params is None else params, state, data, key()
    )
    return (loss, metrics), gradients


def finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


def forget():
    """Lets go of models and of what was compiled of them."""
    for cached in (model, loss_and_gradient, predict, variables):
        cached.cache_clear()


def has_masks(name):
    """Whether the tiny model `name` predicts masks."""
    kind = TINY[name]["name"]
    if kind == "yolact":
        return TINY[name].get("mask", True) is not None
    return kind in ("mask_rcnn", "ms_rcnn")


def objects(*boxes, crowd=()):
    """Objects of one image, each of a class of its own, all of their masks full."""
    n = len(boxes)
    return Objects(
        boxes=np.float32(boxes),
        labels=np.arange(n, dtype=np.int32),
        valid=np.ones(n, bool),
        crowd=np.isin(np.arange(n), crowd),
        masks=np.ones((n, 16, 16), np.uint8),
    )


def key():
    return jax.random.key(7)


def batch(count=2, objects=3, padding=6, seed=0, name=None) -> Batch:
    """Pictures of noise with bright boxes, `objects` real ones an image.

    Keypoints lie on the boxes' diagonals, proposals beside the boxes and elsewhere.
    With the `name` of a tiny model the target is that of its task.
    """
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, SIDE * 0.6, (count, padding, 2))
    high = np.minimum(low + rng.uniform(8, 30, (count, padding, 2)), SIDE)
    boxes = np.concatenate([low, high], axis=-1).astype(np.float32)
    images = rng.integers(0, 90, (count, SIDE, SIDE, 3)).astype(np.uint8)
    masks = np.zeros((count, padding, SIDE // 2, SIDE // 2), np.uint8)
    for i in range(count):
        for j in range(padding):
            x1, y1, x2, y2 = (boxes[i, j] / 2).astype(int)
            masks[i, j, y1:y2, x1:x2] = 1
            if j < objects:
                x1, y1, x2, y2 = boxes[i, j].astype(int)
                images[i, y1:y2, x1:x2] = 200
    share = np.linspace(0.3, 0.7, KEYPOINTS)[:, None]
    places = boxes[:, :, None, :2] * (1 - share) + boxes[:, :, None, 2:] * share
    seen = np.full((*places.shape[:-1], 1), 2)
    near = np.clip(boxes + rng.uniform(-3, 3, boxes.shape), 0, SIDE)
    far = np.tile(np.float32([[0, 0, 20, 20], [30, 0, 64, 64]]), (count, 1, 1))
    data = Batch(
        inputs=Inputs(
            images=images,
            view=View(
                affine=np.tile(np.eye(3, dtype=np.float32)[:2], (count, 1, 1)),
                sizes=np.full((count, 2), SIDE, np.int32),
                valid=np.ones(count, bool),
            ),
            proposals=Proposals(
                boxes=np.concatenate([near, far], axis=1).astype(np.float32),
                valid=np.ones((count, padding + 2), bool),
            ),
        ),
        target=Objects(
            boxes=boxes,
            labels=rng.integers(0, CLASSES, (count, padding)).astype(np.int32),
            valid=np.tile(np.arange(padding) < objects, (count, 1)),
            crowd=np.zeros((count, padding), bool),
            masks=masks,
            keypoints=np.concatenate([places, seen], axis=-1).astype(np.float32),
            oriented=np.concatenate(
                [(low + high) / 2, high - low, low[..., :1] / SIDE], axis=-1
            ).astype(np.float32),
            amodal=(boxes + np.float32([-4, 0, 2, 6])).astype(np.float32),
        ),
        index=np.arange(count, dtype=np.int32),
        counts={"cut": np.zeros(count, np.int32), "small": np.zeros(count, np.int32)},
    )
    task = "detection" if name is None else task_of(name)
    return data.replace(target=TARGETS[task](data.target))


def labels_of(objects: Objects) -> LabelMap:
    """The classes of pixels: those of the boxes, the first one where there is none.

    A band at the left is ignored.
    """
    labels = np.zeros((len(objects.boxes), SIDE, SIDE), np.uint8)
    for one, boxes, own, valid in zip(
        labels, objects.boxes, objects.labels, objects.valid, strict=True
    ):
        for (x1, y1, x2, y2), label in zip(
            boxes[valid].astype(int), own[valid], strict=True
        ):
            one[y1:y2, x1:x2] = label
    valid = np.ones(labels.shape, bool)
    valid[:, :, :5] = False
    return LabelMap(labels, valid)


def values_of(objects: Objects) -> ValueMap:
    """A number for each pixel, between 0 and 1, by its class."""
    found = labels_of(objects)
    return ValueMap(np.float32(found.labels) / CLASSES, found.valid)


TARGETS = {
    "detection": lambda objects: objects,
    "segmentation": labels_of,
    "dense": values_of,
    "scene": lambda objects: {
        "segmentation": labels_of(objects),
        "dense": values_of(objects),
    },
}


def with_inputs(data: Batch, **changes) -> Batch:
    """`data` with other fields of its inputs."""
    return data.replace(inputs=data.inputs.replace(**changes))


def with_view(data: Batch, **changes) -> Batch:
    """`data` with other fields of its view."""
    return with_inputs(data, view=data.inputs.view.replace(**changes))


def with_target(data: Batch, **changes) -> Batch:
    """`data` with other fields of its objects."""
    return data.replace(target=data.target.replace(**changes))


def equations(program):
    """All equations of a jaxpr, those of the programs in it included."""
    for equation in program.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner)
