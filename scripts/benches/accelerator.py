"""Everything that wants an accelerator, in one call of under ten minutes.

Programs are compiled side by side while others are timed. A time is that of a call with
its arguments on the device, until the device is done with it.
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases, host, loader, ops, roofline
from benches.classify import exported
from benches.timing import Row, in_turn, ready
from detjax import optim, sharding, train
from detjax.models import yolact as yolact_family
from detjax.models.two_stage.rpn import RPN
from detjax.models.yolact.net import by_image
from detjax.ops import deform, nms
from detjax.types import Inputs, Label, LabelMap
from detjax.weights import convert

Peer = Callable[[], Any] | None


class Sizes(NamedTuple):
    """What is measured: in full, or at sizes that only show that it runs."""

    yolacts: dict[str, dict[str, Any]]
    yolact_side: int
    batches: tuple[int, ...]
    two_stage: dict[str, Any]
    two_stage_size: tuple[int, int]
    two_stage_batches: tuple[int, ...]
    # (h, w) and settings by title, and how many of the first, RetinaNet, are trained
    one_stage: dict[str, tuple[tuple[int, int], dict[str, Any]]]
    one_stage_training: int
    # Settings of a classifier, side and batch of its training
    classifier: tuple[dict[str, Any], int, int]
    segmenter: tuple[dict[str, Any], int, int]  # the same of one for pixels
    objects: tuple[int, int]  # of an image, and the room for them
    boxes: tuple[int, ...]  # of suppression
    regions: tuple[int, int, int, int]  # RoIs, h, w, channels
    deformed: tuple[int, int, int]  # batch, side, channels
    runs: int


FULL = Sizes(
    yolacts={"R50": {"name": "yolact_resnet50"}, "R101": {"name": "yolact_base"}},
    yolact_side=550,
    batches=(1, 8, 64),
    two_stage={"name": "mask_rcnn_r50_fpn"},
    two_stage_size=(800, 1333),
    two_stage_batches=(1, 8),
    one_stage={
        "retinanet": ((800, 1333), {"name": "retinanet_resnet50_fpn"}),
        "ssd300": ((300, 300), {"name": "ssd300_vgg16"}),
        "yolov3": ((608, 608), {"name": "yolov3", "num_classes": 80}),
    },
    one_stage_training=16,
    classifier=({"name": "resnet50"}, 224, 256),
    segmenter=({"name": "deeplabv3_resnet50", "num_classes": 21}, 513, 16),
    objects=(8, 100),
    boxes=(1_000, 5_000, 20_000),
    regions=(512, 200, 334, 256),
    deformed=(8, 69, 128),
    runs=20,
)
SMALL: dict[str, Any] = {"name": "resnet10", "width": 8, "levels": (3, 4)}
TINY = Sizes(
    yolacts={
        "tiny": {
            "name": "yolact",
            "num_classes": 3,
            "backbone": SMALL,
            "fpn": {"features": 8, "extra_levels": 1},
            "priors": {"sizes": ((12,), (24,), (48,))},
            "mask": {"prototypes": 4},
        }
    },
    yolact_side=64,
    batches=(1, 2),
    two_stage={
        "name": "mask_rcnn",
        "num_classes": 3,
        "backbone": SMALL,
        "fpn": {"features": 8},
        "rpn": {"sizes": ((12,), (24,), (48,))},
        "box": {"hidden": 16},
        "mask": {"features": 8, "depth": 1},
    },
    two_stage_size=(64, 96),
    two_stage_batches=(2,),
    one_stage={
        "retinanet": (
            (64, 96),
            {
                "name": "retinanet",
                "num_classes": 3,
                "backbone": SMALL,
                "fpn": {"features": 8, "extra_levels": 1},
                "priors": {"sizes": ((12,), (24,), (48,))},
            },
        ),
        "yolov3": (
            (64, 64),
            {"name": "yolov3_tiny", "num_classes": 3, "width": 0.125},
        ),
    },
    one_stage_training=2,
    classifier=({"name": "resnet18"}, 64, 2),
    segmenter=(
        {
            "name": "deeplabv3",
            "num_classes": 3,
            "backbone": {"name": "resnet10", "width": 8},
            "aspp": {"features": 8},
            "auxiliary": {"features": 8},
        },
        65,
        2,
    ),
    objects=(2, 4),
    boxes=(100,),
    regions=(10, 16, 16, 8),
    deformed=(2, 8, 4),
    runs=2,
)


class Case(NamedTuple):
    """A program, what it is called with, and a peer; made when it is measured."""

    name: str
    size: str
    function: Callable[..., Any]
    args: Callable[[], tuple[Any, ...]]
    images: int | None = None
    peer: Callable[[], Peer] = lambda: None
    peer_name: str | None = None
    state: bool = False  # the first argument is replaced by the first result


def accelerator(tiny: bool = False, minutes: float = 9) -> Iterator[Row]:
    """all that wants a device, in bfloat16: YOLACT, RetinaNet, SSD300 and YOLOv3,
    Mask R-CNN, training of it, of RetinaNet, ResNet-50 and DeepLabV3, suppression,
    RoIAlign, deformable convolution, compiling, the loader; against the layers'
    roofline, and torchvision with AMP where torch has CUDA"""
    sizes, end = TINY if tiny else FULL, time.monotonic() + 60 * minutes
    if not tiny:
        if jax.default_backend() == "cpu":
            print("accelerator: there is none here; see --tiny", file=sys.stderr)
            return
        yield from host.cold_start()
    made = list(all_cases(sizes))
    threads = max(2, (os.cpu_count() or 2) // 4)
    with futures.ThreadPoolExecutor(threads) as pool:
        programs = [pool.submit(compiled, case) for case in made]
        for case, program in zip(made, programs, strict=True):
            if time.monotonic() > end:
                program.cancel()
                print(f"no time was left for {case.name}, {case.size}", file=sys.stderr)
                continue
            yield measured(case, *program.result(), sizes.runs)
    if not tiny:
        yield from loader.loader()


def compiled(case: Case) -> tuple[Any, float | None, float]:
    """The program, the least milliseconds of its layers, and megabytes."""
    shapes = jax.eval_shape(case.args)
    traced = jax.jit(case.function, donate_argnums=(0,) if case.state else ()).trace(
        *shapes
    )
    program = traced.lower().compile()
    held = program.memory_analysis()
    moved = held.argument_size_in_bytes + held.temp_size_in_bytes
    moved += held.output_size_in_bytes - held.alias_size_in_bytes
    return program, roofline.milliseconds(traced.jaxpr), moved / 1e6


def measured(
    case: Case, program: Any, roof: float | None, megabytes: float, runs: int
) -> Row:
    args = jax.device_put(case.args())
    if case.state:
        held, *rest = args

        def ours():
            nonlocal held
            held, result = program(held, *rest)
            jax.block_until_ready(result)

    else:
        ours = ready(program, *args)
    ours_ms, peer_ms = in_turn(ours, case.peer(), runs)
    return Row(
        case.name,
        case.size,
        ours_ms,
        case.peer_name,
        peer_ms,
        images=case.images,
        roof_ms=roof,
        memory_mb=megabytes,
    )


def all_cases(sizes: Sizes) -> Iterator[Case]:
    """In the order of what matters most, should time run out."""
    for title, model in sizes.yolacts.items():
        for count in sizes.batches:
            yield yolact(sizes, title, model, count)
    for count in sizes.two_stage_batches:
        yield two_stage(sizes, count)
    yield training(sizes, sizes.two_stage_batches[-1])
    for title in sizes.one_stage:
        for count in sizes.batches:
            yield one_stage(sizes, title, count)
    yield one_stage_training(sizes)
    yield classifier_training(sizes)
    yield segmenter_training(sizes)
    for count in sizes.batches[1:]:
        yield after_yolact(sizes, count)
    yield proposals(sizes, sizes.two_stage_batches[-1])
    for count in sizes.boxes:
        yield suppression(count)
    for method in ("gather", "einsum"):
        for backward in (False, True):
            yield roi_align(sizes, method, backward)
    yield deformable(sizes)


@functools.cache
def _weights(side: int, settings: str) -> tuple[Any, Any, Any]:
    return cases.random_weights(side, **eval(settings), dtype="bfloat16")


def weights(side: int, settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The model of `settings` in bfloat16 with random weights, made once."""
    return _weights(side, repr(settings))


def cuda_peers() -> Any:
    """The module of torchvision's peers where it runs on a GPU, else None."""
    peers = cases.torchvision_peers()
    return peers if peers and peers.device() == "cuda" else None


def zeros(count: int, size: tuple[int, int]) -> Inputs:
    return Inputs(jnp.zeros((count, *size, 3), jnp.uint8))


def yolact(sizes: Sizes, title: str, settings: dict[str, Any], count: int) -> Case:
    side = sizes.yolact_side
    model, params, state = weights(side, settings)

    def peer() -> Peer:
        held = cases.torch_peers()
        if not (held and cuda_peers()) or settings["name"] != "yolact_resnet50":
            return None
        import torch

        named = convert.export(params, state, source="yolact", classes=80)
        net = held.Yolact(named, device="cuda", dtype=torch.bfloat16)
        x = torch.zeros((count, 3, side, side), device="cuda", dtype=torch.bfloat16)

        def call():
            with torch.inference_mode():
                net(x)
            torch.cuda.synchronize()

        return call

    return Case(
        "yolact",
        f"{title}, {side} px, batch {count}",
        model.predict,
        lambda: (params, state, zeros(count, (side, side))),
        count,
        peer,
        "torch, the network alone",
    )


def after_yolact(sizes: Sizes, count: int) -> Case:
    """What comes after YOLACT's network, on what it makes of noise."""
    side, settings = sizes.yolact_side, next(iter(sizes.yolacts.values()))
    model, params, state = weights(side, settings)
    images = cases.noise(count, (side, side)).inputs.images
    detect = yolact_family.Detect()
    shape = jax.eval_shape(model.net.apply, {"params": params, **state}, images)

    def function(outputs):
        return jax.vmap(
            lambda one: detect(one, (side, side)), in_axes=(by_image(shape),)
        )(outputs)

    def outputs():
        return (jax.jit(model.net.apply)({"params": params, **state}, images),)

    return Case("yolact_after_network", f"batch {count}", function, outputs, count)


def torchvision_detector(sizes: Sizes) -> Any:
    """torchvision's detector of two stages, with the weights of ours."""
    model, params, state = weights(64, sizes.two_stage)
    classes = model.spec.outputs
    held = convert.export(params, state, source="torchvision", classes=classes)
    return cuda_peers().detector(sizes.two_stage["name"], held, classes)


def two_stage(sizes: Sizes, count: int) -> Case:
    model, params, state = weights(64, sizes.two_stage)
    h, w = sizes.two_stage_size
    batch = cases.noise(count, (h, w))

    def peer() -> Peer:
        peers = cuda_peers()
        if not peers:
            return None
        net = torchvision_detector(sizes)
        return peers.predict(net, batch.inputs.images, amp=True)

    return Case(
        "mask_rcnn",
        f"{h} x {w}, batch {count}",
        model.predict,
        lambda: (params, state, Inputs(batch.inputs.images)),
        count,
        peer,
        "torchvision, AMP",
    )


def one_stage(sizes: Sizes, title: str, count: int) -> Case:
    """An image to detections; torchvision's where it has the network."""
    (h, w), settings = sizes.one_stage[title]
    model, params, state = weights(w, settings)

    def peer() -> Peer:
        peers = cuda_peers()
        if not peers or settings["name"] not in peers.DETECTORS:
            return None
        images = cases.noise(count, (h, w)).inputs.images
        return peers.whole(one_stage_peer(settings, w), images, amp=True)

    return Case(
        title,
        f"{h} x {w}, batch {count}",
        model.predict,
        lambda: (params, state, zeros(count, (h, w))),
        count,
        peer,
        "torchvision, AMP",
    )


def one_stage_peer(settings: dict[str, Any], side: int) -> Any:
    """torchvision's detector of one stage, with the weights of ours."""
    model, params, state = weights(side, settings)
    classes = model.spec.outputs
    held = convert.export(params, state, source="torchvision", classes=classes)
    return cuda_peers().detector(settings["name"], held, classes)


def one_stage_training(sizes: Sizes) -> Case:
    """Steps of SGD of RetinaNet."""
    title, (size, settings) = next(iter(sizes.one_stage.items()))
    return stepping(
        f"{title}_train",
        sizes,
        weights(size[1], settings),
        size,
        sizes.one_stage_training,
        lambda: one_stage_peer(settings, size[1]),
        masks=False,
    )


def classifier_training(sizes: Sizes) -> Case:
    """Steps of SGD of a classifier, cross entropy of a batch on the device."""
    backbone, side, count = sizes.classifier
    settings = {"name": "classifier", "num_classes": 1000, "backbone": backbone}
    model, params, state = weights(side, settings)
    noise: Any = cases.noise(count, (side, side))
    labels = np.arange(count) % 1000
    batch = noise.replace(target=Label(np.eye(1000, dtype="f")[labels]))
    step, begin = sgd(model, params, state)

    def peer() -> Peer:
        peers = cuda_peers()
        if not peers:
            return None
        net = peers.classifier(backbone["name"], exported(params, state))
        return peers.classify_train(net, batch.inputs.images, labels)

    return Case(
        f"{backbone['name']}_train",
        f"{side} x {side}, batch {count}",
        step,
        lambda: (begin(), batch, jnp.int32(1)),
        count,
        peer,
        "torchvision, AMP",
        state=True,
    )


def segmenter_training(sizes: Sizes) -> Case:
    """Steps of SGD of a network for pixels, its auxiliary head included."""
    settings, side, count = sizes.segmenter
    model, params, state = weights(side, settings)
    noise: Any = cases.noise(count, (side, side))
    shape = (count, side, side)
    labels = np.random.default_rng(0).integers(0, settings["num_classes"], shape)
    target = LabelMap(labels.astype(np.uint8), np.ones(shape, bool))
    batch = noise.replace(target=target)
    step, begin = sgd(model, params, state)

    def peer() -> Peer:
        peers = cuda_peers()
        if not peers:
            return None
        net = peers.segmenter(settings["name"], exported(params, state), inner=True)
        return peers.segment_train(net, batch.inputs.images, labels)

    return Case(
        f"{settings['name']}_train",
        f"{side} x {side}, batch {count}",
        step,
        lambda: (begin(), batch, jnp.int32(1)),
        count,
        peer,
        "torchvision, AMP",
        state=True,
    )


def sgd(model: Any, params: Any, state: Any) -> tuple[Any, Any]:
    """A step of SGD on one device, and what makes the state that it begins with."""
    optimizer, _ = optim.make(
        steps=1000, schedule={"peak": 1e-6, "decay": "constant"}, momentum=0.9
    )
    layout = sharding.make(devices=jax.devices()[:1])

    def begin():
        key = jax.random.key_data(jax.random.key(0))
        return train.TrainState(
            jnp.int32(0), params, state, optimizer.init(params), key
        )

    return train.make_step(model, optimizer, layout), begin


def training(sizes: Sizes, count: int) -> Case:
    """Steps of SGD of Mask R-CNN."""
    return stepping(
        "mask_rcnn_train",
        sizes,
        weights(64, sizes.two_stage),
        sizes.two_stage_size,
        count,
        lambda: torchvision_detector(sizes),
        masks=True,
    )


def stepping(
    name: str,
    sizes: Sizes,
    made: tuple[Any, Any, Any],
    size: tuple[int, int],
    count: int,
    peer_net: Callable[[], Any],
    *,
    masks: bool,
) -> Case:
    """A step of SGD, its batch on the device."""
    (model, params, state), (h, w) = made, size
    few, room = sizes.objects
    batch = cases.noise(count, (h, w), few, room, on_box=112 if masks else 1)
    step, begin = sgd(model, params, state)

    def args():
        return begin(), batch, jnp.int32(1)

    def peer() -> Peer:
        peers = cuda_peers()
        if not peers:
            return None
        boxes = batch.target.boxes[:, :few]
        images = batch.inputs.images
        return peers.train(peer_net(), images, boxes, masks=masks, amp=True)

    return Case(
        name,
        f"{h} x {w}, batch {count}",
        step,
        args,
        count,
        peer,
        "torchvision, AMP",
        state=True,
    )


def proposals(sizes: Sizes, count: int) -> Case:
    """Region proposals of random logits on five levels, at prediction."""
    h, w = sizes.two_stage_size
    rpn = RPN()
    shapes = [(-(-h // s), -(-w // s)) for s in (4, 8, 16, 32, 64)]
    priors = rpn.priors(shapes, (h, w))
    rng = np.random.default_rng(0)

    def function(logits, deltas):
        window = jnp.array([0, 0, w, h], jnp.float32)
        return jax.vmap(lambda a, b: rpn.propose(a, b, priors, window, train=False))(
            logits, deltas
        )

    def args():
        n = len(priors.boxes)
        logits = rng.standard_normal((count, n), "f")
        return logits, rng.standard_normal((count, n, 4), "f") / 4

    return Case("rpn_proposals", f"{h} x {w}, batch {count}", function, args, count)


def suppression(count: int) -> Case:
    rng = np.random.default_rng(count)
    boxes, scores = cases.random_boxes(rng, count), rng.random(count).astype("f")

    def peer() -> Peer:
        peers = cases.torchvision_peers()
        return peers and peers.nms(boxes, scores)

    return Case(
        "greedy_nms",
        f"{count:,} boxes",
        lambda b, s: nms.greedy(b, s, 0.5),
        lambda: (boxes, scores),
        peer=peer,
        peer_name="torchvision",
    )


def roi_align(sizes: Sizes, method: str, backward: bool) -> Case:
    n, h, w, channels = sizes.regions
    rng = np.random.default_rng(0)
    features = rng.standard_normal((h, w, channels)).astype("f")
    side = 4 * min(h, w)
    boxes = cases.random_boxes(rng, n, 0.7 * side, 0.3 * side)
    function = ops.aligned_gradient if backward else ops.aligned

    def peer() -> Peer:
        peers = cases.torchvision_peers()
        return peers and peers.roi_align(features, boxes, backward)

    return Case(
        f"roi_align{'_grad' * backward}, {method}",
        f"{n} x 7x7x2 of {h}x{w}x{channels}",
        functools.partial(function, method=method),
        lambda: (features, boxes),
        peer=peer,
        peer_name="torchvision",
    )


def deformable(sizes: Sizes) -> Case:
    count, side, channels = sizes.deformed
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, side, side, channels)).astype("f")
    offsets = rng.standard_normal((count, side, side, 9, 2)).astype("f")
    mask = rng.random((count, side, side, 9)).astype("f")
    kernel = rng.standard_normal((3, 3, channels, channels)).astype("f")

    def function(x, offsets, mask, kernel):
        return jax.vmap(
            lambda a, b, c: deform.conv(a, b, c, kernel, stride=1, padding=1)
        )(x, offsets, mask)

    def peer() -> Peer:
        peers = cases.torchvision_peers()
        flat = offsets.reshape(count, side, side, 18)
        return peers and peers.deform_conv(x, flat, mask, kernel)

    return Case(
        "deformable_conv",
        f"{count} x {side}x{side}x{channels}",
        function,
        lambda: (x, offsets, mask, kernel),
        peer=peer,
        peer_name="torchvision",
    )
