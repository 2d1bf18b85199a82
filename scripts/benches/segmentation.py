"""Networks that answer for every pixel, on this machine's cores."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases, label_maps
from benches.timing import Row, in_turn, ready
from detjax.models.pixelwise import enlarged
from detjax.weights import convert

NAMES = ("fcn_resnet50", "deeplabv3_resnet50")


def networks(names: tuple[str, ...] = NAMES, side: int = 513) -> Iterator[Row]:
    """An image to logits at full size, against torchvision with the same weights."""
    peers = cases.torchvision_peers()
    for name in names:
        model, params, state = cases.random_weights(
            side, name=name, pixels="normalized"
        )

        @jax.jit
        def run(params, state, images, model=model):
            logits, *_ = model.net.apply({"params": params, **state}, images)
            return enlarged(logits, images.shape[1:3])

        images = np.random.default_rng(0).standard_normal((1, side, side, 3), "f")
        ours = functools.partial(run, params, state, jnp.asarray(images))
        peer = None
        if peers:
            held = convert.export(params, state, source="torchvision")
            peer = peers.pixels(peers.segmenter(name, held), images)
            theirs = np.moveaxis(peer().cpu().numpy(), 1, -1)
            apart = np.abs(np.asarray(ours()) - theirs).max()
            assert apart < 1e-3 * theirs.std(), "not the same network"
        times = in_turn(ready(ours), peer, runs=7)
        yield Row(name, f"{side} px", times[0], "torchvision", times[1], images=1)


def segmentation() -> Iterator[Row]:
    """FCN and DeepLabV3 on ResNet-50 on an image of 513 px, forward to logits at full
    size, against torchvision with the same weights; labels of 21 and 150 classes at
    2048 x 1024 pixels, of logits at an eighth of the size, against enlargement and then
    argmax and softmax; the confusion matrix of 2^30 pixels, in pictures of 16
    megapixels, against numpy's bincount"""
    yield from networks()
    yield from label_maps.label_maps()
