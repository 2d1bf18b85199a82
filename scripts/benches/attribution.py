"""Attributions on this machine's cores, beside captum's."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases
from benches.classify import exported
from benches.timing import Row, in_turn, ready
from detjax.explain import paths
from detjax.types import Inputs

STEPS, LABEL = 50, 281


def attribution(name: str = "resnet50", side: int = 224) -> Iterator[Row]:
    """integrated gradients of ResNet-50, one image of 224 px, 50 steps, against captum
    with the same weights"""
    model, params, state = cases.random_weights(
        side,
        name="classifier",
        num_classes=1000,
        backbone={"name": name},
        pixels="normalized",
    )
    images = np.random.default_rng(0).standard_normal((1, side, side, 3), "f")

    def quantity(answers: Any) -> jax.Array:
        return answers.logits[:, LABEL, None]

    call = jax.jit(paths.integrated(model.predict, quantity, steps=STEPS, chunk=CHUNK))
    ours = functools.partial(call, params, state, Inputs(jnp.asarray(images)))
    peer = None
    peers = cases.torchvision_peers()
    if peers:
        peer = _captum(peers.classifier(name, exported(params, state)), images)
    if peer:
        apart = np.abs(np.asarray(ours())[0].transpose(0, 3, 1, 2) - peer())
        assert np.median(apart) < 1e-3 * peer().std(), "not the same attribution"
    times = in_turn(ready(ours), peer, runs=3)
    size = f"{side} px, {STEPS} steps"
    yield Row("integrated gradients", size, times[0], "captum", times[1])


# Points whose gradients are computed at once.
CHUNK = 1


def _captum(net: Any, images: np.ndarray) -> Any:
    """A call of captum's integrated gradients; None where it is not installed."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        return None
    import torch

    method = IntegratedGradients(net.eval())
    device = next(net.parameters()).device
    given = torch.as_tensor(images.transpose(0, 3, 1, 2).copy(), device=device)

    def call() -> np.ndarray:
        # Its default is all steps in one batch, which needs gigabytes.
        found = method.attribute(
            given, target=LABEL, n_steps=STEPS, internal_batch_size=10
        )
        return found.detach().cpu().numpy()

    return call
