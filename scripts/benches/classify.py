"""Classifiers, and their convolutions in groups, on this machine's cores."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases
from benches.timing import Row, in_turn, ready
from detjax.nn import conv
from detjax.weights import convert

NAMES = (
    "resnet50",
    "vgg16",
    "mobilenet_v3_large",
    "densenet121",
    "shufflenet_v2_x1_0",
)
# Batch, rows, inputs, outputs, groups, kernel, stride, dilation.
LAYERS = {
    "depthwise": (1, 56, 128, 128, 128, 3, 1, 1),
    "depthwise, strided": (1, 112, 96, 96, 96, 3, 2, 1),
    "depthwise, 5x5": (16, 14, 480, 480, 480, 5, 1, 1),
    "depthwise, deep": (1, 14, 512, 512, 512, 3, 1, 1),
    "depthwise, dilated": (1, 65, 728, 728, 728, 3, 1, 2),
    "resnext, 32 of 4": (1, 56, 128, 128, 32, 3, 1, 1),
    "resnext, 32 of 16": (1, 14, 512, 512, 32, 3, 1, 1),
    "shufflenet, 3 of 80": (1, 28, 240, 60, 3, 1, 1, 1),
    "shufflenet, 8 of 96": (1, 14, 768, 192, 8, 1, 1, 1),
}


def classify(names: tuple[str, ...] = NAMES, side: int = 224) -> Iterator[Row]:
    """ResNet-50, VGG-16, MobileNetV3, DenseNet-121 and ShuffleNet v2 on 1 and 16
    images of 224 px, against torchvision with the same weights"""
    peers = cases.torchvision_peers()
    for name in names:
        model, params, state = cases.random_weights(
            side,
            name="classifier",
            num_classes=1000,
            backbone={"name": name},
            pixels="normalized",
        )
        run = jax.jit(model.net.apply)
        variables = {"params": params, **state}
        net = None
        if peers:
            net = peers.classifier(name, exported(params, state))
        for count in (1, 16):
            rng = np.random.default_rng(0)
            images = rng.standard_normal((count, side, side, 3), "f")
            ours, peer = functools.partial(run, variables, jnp.asarray(images)), None
            if net is not None:
                peer = peers.logits(net, images)
                theirs = peer().cpu().numpy()
                apart = np.abs(np.asarray(ours()) - theirs).max()
                assert apart < 1e-3 * theirs.std(), "not the same network"
            times = in_turn(ready(ours), peer, runs=9 if count == 1 else 5)
            size = f"{side} px, batch {count}"
            yield Row(name, size, times[0], "torchvision", times[1], images=count)


def exported(params, state) -> dict[str, np.ndarray]:
    """A classifier's weights under torchvision's names, which have no prefix."""
    inner = {kind: held["backbone"] for kind, held in state.items()}
    return convert.export(params["backbone"], inner, source="torchvision")


def convolutions(layers=LAYERS) -> Iterator[Row]:
    """depthwise and grouped convolutions and their gradients, against those of XLA"""
    for name, sizes in layers.items():
        count, rows, inputs, outputs, groups, side, stride, dilation = sizes
        rng = np.random.default_rng(0)
        x = rng.standard_normal((count, rows, rows, inputs), "f")
        k = rng.standard_normal((side, side, inputs // groups, outputs), "f")
        around = conv.same((side, side), dilation)
        size = f"{count} x {rows}x{rows}x{inputs}, {side}x{side}"
        for backward in (False, True):
            calls = []
            for function in (conv.convolve, conv.plain):
                found = functools.partial(
                    function,
                    stride=stride,
                    padding=around,
                    groups=groups,
                    dilation=dilation,
                )

                def loss(x, k, found=found):
                    return jnp.square(found(x, k)).sum()

                program = jax.jit(jax.grad(loss, (0, 1)) if backward else found)
                calls.append(ready(program, jnp.asarray(x), jnp.asarray(k)))
            ours, theirs = calls
            times = in_turn(ours, theirs, runs=3)
            yield Row(f"{name}{', grad' * backward}", size, times[0], "XLA", times[1])
