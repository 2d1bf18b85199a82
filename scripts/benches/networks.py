"""Whole networks in float32 on this machine's cores, against torch and torchvision."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases
from benches.timing import Row, in_turn, ready
from detjax.ops import masks
from detjax.types import Inputs
from detjax.weights import convert


def yolact():
    """YOLACT-550 R50: the network against the same in torch, and all that
    comes after it against the network"""
    model, params, state = cases.random_weights(
        name="yolact_resnet50", pixels="normalized"
    )
    image = np.random.default_rng(1).normal(0, 1, (1, 550, 550, 3)).astype("f")

    @jax.jit
    def network(params, state, image):
        out: Any = model.net.apply({"params": params, **state}, image)
        return out.deltas, out.logits, out.coefficients, out.prototypes

    @jax.jit
    def whole(params, state, image):
        """Image to masks in the image's pixels, one program."""
        found = model.predict(params, state, Inputs(image))
        drawn = jax.vmap(lambda m: masks.resize(m, (550, 550)) > 0.5)(found.masks)
        return found.boxes, found.scores, found.labels, drawn

    peers, peer = cases.torch_peers(), None
    arguments = (params, state, jnp.asarray(image))
    if peers:
        import torch

        held = convert.export(params, state, source="yolact", classes=80)
        net = peers.Yolact(held)
        x = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()

        def peer():
            with torch.inference_mode():
                return net(x)

        for a, b in zip(network(*arguments), peer(), strict=True):
            b = b.numpy()
            if b.shape[-1] == 81:
                b = np.roll(b, -1, axis=-1)
            assert np.abs(a - b).max() < 1e-3 * b.std(), "not the same network"
    ours_ms, peer_ms = in_turn(ready(network, *arguments), peer, runs=7)
    yield Row("yolact_network", "R50, 550 px", ours_ms, "torch", peer_ms)
    whole_ms, alone_ms = in_turn(
        ready(whole, *arguments), ready(network, *arguments), runs=7
    )
    yield Row("yolact_whole", "R50, 550 px", whole_ms, "its network", alone_ms)


def two_stage():
    """Faster and Mask R-CNN R50-FPN on an image of 800 x 1067, to detections and
    masks on their boxes, against torchvision with the same weights"""
    image = np.random.default_rng(0).integers(0, 255, (1, 800, 1067, 3), np.uint8)
    peers = cases.torchvision_peers()
    for name in ("faster_rcnn_r50_fpn", "mask_rcnn_r50_fpn"):
        model, params, state = cases.random_weights(
            name=name, backbone={"norm_eps": 1e-5}
        )
        run = jax.jit(model.predict)
        ours, peer = functools.partial(run, params, state, Inputs(image)), None
        if peers:
            classes = model.spec.outputs
            held = convert.export(params, state, source="torchvision", classes=classes)
            peer = peers.predict(peers.detector(name, held, classes), image)
            [theirs], found = peer(), ours()
            scores = found.scores[0][found.valid[0]]
            assert abs(len(theirs["scores"]) - len(scores)) <= 2, "not the same"
            np.testing.assert_allclose(scores[:5], theirs["scores"][:5], rtol=1e-2)
        times = in_turn(ready(ours), peer, runs=3)
        yield Row(name, "800 x 1067", times[0], "torchvision", times[1])
