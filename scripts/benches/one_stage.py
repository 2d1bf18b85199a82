"""Detectors of one stage in float32 on this machine's cores, and suppression."""

import functools
import statistics
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases, darknet_peer
from benches.timing import Row, in_turn, ready, seconds
from detjax.ops import nms
from detjax.types import Inputs
from detjax.weights import convert

# By our name: the input's (h, w), and settings that make norms those of torchvision's
# networks without trained weights.
TORCHVISION = {
    "retinanet_resnet50_fpn": ((800, 1067), {"backbone": {"norm_eps": 1e-5}}),
    "ssd300_vgg16": ((300, 300), {}),
}
YOLO = {"yolov3": 416, "yolov3_tiny": 416}


def one_stage() -> Iterator[Row]:
    """RetinaNet R50 at 800 and SSD300 against torchvision, YOLOv3-416 and its tiny form
    against darknet's C (see benches/darknet_peer.py), each with its network alone; all
    methods of suppression of 1,000 and 5,000 boxes, against greedy"""
    for name, (size, settings) in TORCHVISION.items():
        yield from against_torchvision(name, size, settings)
    for name, side in YOLO.items():
        yield from against_darknet(name, side)
    yield from suppression()


def against_torchvision(
    name: str, size: tuple[int, int], settings: dict[str, Any]
) -> Iterator[Row]:
    image = np.random.default_rng(0).integers(0, 255, (1, *size, 3), np.uint8)
    model, params, state = cases.random_weights(size[1], name=name, **settings)
    ours, peer = functools.partial(jax.jit(model.predict), params, state), None
    peers, shown = cases.torchvision_peers(), f"{size[0]} x {size[1]}"
    if peers:
        classes = model.spec.outputs
        held = convert.export(params, state, source="torchvision", classes=classes)
        peer = peers.whole(peers.detector(name, held, classes), image)
        [theirs], found = peer(), ours(Inputs(image))
        scores = found.scores[0][found.valid[0]]
        np.testing.assert_allclose(scores[:5], theirs["scores"][:5], rtol=1e-2)
    times = in_turn(ready(ours, Inputs(image)), peer, runs=5)
    yield Row(name, shown, times[0], "torchvision", times[1])
    yield whole(name, shown, model, params, state, image)


def against_darknet(name: str, side: int) -> Iterator[Row]:
    image = np.random.default_rng(0).integers(0, 255, (1, side, side, 3), np.uint8)
    model, params, state = cases.random_weights(side, name=name, num_classes=80)
    call = ready(
        functools.partial(jax.jit(model.predict), params, state), Inputs(image)
    )
    with darknet_peer.detector(name.replace("_", "-")) as peer:
        seen: list[tuple[float, float]] = []
        for _ in range(7):
            theirs = peer.milliseconds() if peer else 0.0
            seen.append((1e3 * seconds(call), theirs))
    ours, others = (statistics.median(column) for column in zip(*seen[2:], strict=True))
    yield Row(name, f"{side} px", ours, "darknet", others if peer else None)
    yield whole(name, f"{side} px", model, params, state, image)


def whole(name: str, size: str, model: Any, params: Any, state: Any, image) -> Row:
    """Image to detections, against the network alone."""

    @jax.jit
    def alone(params, state, image):
        # Constants beside the outputs, such as priors, are no arrays to wait for.
        found = model.net.apply({"params": params, **state}, image)
        return [x for x in jax.tree.leaves(found) if isinstance(x, jax.Array)]

    given = params, state
    times = in_turn(
        ready(jax.jit(model.predict), *given, Inputs(image)),
        ready(alone, *given, image),
        runs=7,
    )
    return Row(f"{name}_whole", size, times[0], "its network", times[1])


def suppression() -> Iterator[Row]:
    """Of 20 classes, to 100 detections; greedy's peer is torchvision's batched_nms."""
    peers = cases.torchvision_peers()
    for n in (1_000, 5_000):
        rng = np.random.default_rng(n)
        boxes, scores = cases.random_boxes(rng, n), rng.random(n).astype("f")
        labels = rng.integers(0, 20, n).astype(np.int32)
        valid = np.ones(n, bool)
        calls = {
            method: ready(
                jax.jit(
                    functools.partial(
                        nms.suppress, nms=method, threshold=0.5, max_detections=100
                    )
                ),
                *map(jnp.asarray, (boxes, scores, labels, valid)),
            )
            for method in nms.METHODS
        }
        peer = peers and peers.batched_nms(boxes, scores, labels, 0.5)
        for method, call in calls.items():
            first = method == nms.METHODS[0]
            other = peer if first else calls[nms.METHODS[0]]
            times = in_turn(call, other, runs=15)
            against = "torchvision" if first else nms.METHODS[0]
            yield Row(f"nms_{method}", f"{n:,} boxes", times[0], against, times[1])
