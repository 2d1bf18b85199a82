"""Class activation maps on this machine's cores, against pytorch-grad-cam."""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases
from benches.classify import exported
from benches.timing import Row, in_turn, ready, seconds
from detjax import tasks
from detjax.explain import cam
from detjax.types import Inputs
from detjax.weights import convert

PEER = "pytorch-grad-cam"
# Detections that the peer is timed on, one by one: all would take many minutes.
FEW = 2
CHUNK = 10  # passes backward of ours at once


def explain(
    side: int = 224, size: tuple[int, int] = (320, 448), runs: int = 7
) -> Iterator[Row]:
    """Grad-CAM of ResNet-50 for 1 and 32 images of 224 px, and of all detections of
    an image of 320 x 448 by Faster R-CNN R50-FPN, against pytorch-grad-cam"""
    peers = _peers()
    yield from _classifier(peers, side, runs)
    yield from _detector(peers, size)


def _classifier(peers: Any, side: int, runs: int) -> Iterator[Row]:
    model, params, state = cases.random_weights(
        side,
        name="classifier",
        num_classes=1000,
        backbone={"name": "resnet50"},
        pixels="normalized",
    )
    score = tasks.TASKS["classification"].quantities["score"]
    layer = "backbone.layer4.2"
    net = peers and cases.torchvision_peers().classifier(
        "resnet50", exported(params, state)
    )
    for count in (1, 32):
        images = np.random.default_rng(0).standard_normal((count, side, side, 3), "f")
        labels = np.arange(count)[:, None]
        run = jax.jit(
            cam.gradients.maps(
                model.predict, [layer], functools.partial(score, labels=labels)
            )
        )
        ours = functools.partial(run, params, state, Inputs(jnp.asarray(images)))
        peer = None
        if peers:
            peer = _of_torch(peers, net, net.layer4[-1], images, labels[:, 0].tolist())
            apart = np.abs(np.asarray(ours().maps)[:, 0] - peer()).max()
            assert apart < 1e-3, "not the same maps"
        times = in_turn(ready(ours), peer, runs=runs if count == 1 else 3)
        row = f"{side} px, batch {count}"
        yield Row("grad-cam, resnet50", row, times[0], PEER, times[1], images=count)


def _detector(peers: Any, size: tuple[int, int]) -> Iterator[Row]:
    image = np.random.default_rng(0).integers(0, 255, (1, *size, 3), np.uint8)
    model, params, state = cases.random_weights(
        name="faster_rcnn_r50_fpn", backbone={"norm_eps": 1e-5}
    )
    score = tasks.TASKS["detection"].quantities["score"]
    call = cam.gradients.maps(
        model.predict, ["backbone.body.layer4.2"], score, chunk=CHUNK
    )
    run = functools.partial(jax.jit(call), params, state, Inputs(image))
    found = jax.device_get(jax.jit(model.predict)(params, state, Inputs(image)))
    count = int(found.valid.sum())
    peer = None
    if peers:
        import torch

        torchvision = cases.torchvision_peers()
        held = convert.export(params, state, source="torchvision", classes=90)
        net = torchvision.detector("faster_rcnn_r50_fpn", held, 90).eval()
        net.transform.min_size, net.transform.max_size = (min(size),), max(size)
        x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
        maps = peers.GradCAM(net, [net.backbone.body.layer4[-1]])

        def peer():
            for place in range(FEW):
                maps(x, [lambda out, place=place: out["scores"][place]])

        theirs = net(x)[0]["scores"].detach().numpy()
        assert abs(len(theirs) - count) <= 2, "not the same detections"
    # A minute and more a call: once, after a warm-up.
    ours_ms = _second(ready(run))
    peer_ms = _second(peer) * count / FEW if peer else None
    named = f"{PEER}, {FEW} of {count} timed"
    row = f"{size[0]} x {size[1]}, {count} detections"
    yield Row("grad-cam, faster_rcnn", row, ours_ms, named, peer_ms)


def _second(call: Callable[[], Any]) -> float:
    """Milliseconds of the second call."""
    call()
    return 1e3 * seconds(call)


def _of_torch(
    peers: Any, net: Any, layer: Any, images: np.ndarray, labels: list[int]
) -> Callable[[], np.ndarray]:
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    maps = peers.GradCAM(net.eval(), [layer])
    targets = [ClassifierOutputTarget(label) for label in labels]
    return lambda: maps(x, targets)


def _peers() -> Any:
    """pytorch-grad-cam, or None, said why."""
    if cases.torchvision_peers() is None:
        return None
    try:
        import pytorch_grad_cam
    except ImportError as error:
        print(f"pytorch-grad-cam cannot be loaded: {error}", file=sys.stderr)
        return None
    return pytorch_grad_cam
