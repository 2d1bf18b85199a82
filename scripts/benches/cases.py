"""What is benchmarked: random weights, boxes, batches; and whether torch is there."""

import functools
import importlib.util
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax import models
from detjax.types import Batch, Inputs, Model, Objects, View


def torch_peers() -> Any:
    """The module of torch peers, or None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    from benches import torch_peers

    torch.set_num_threads(os.cpu_count())
    return torch_peers


def corner_peers() -> Any:
    """The module of CornerNet in torch, or None where torch is not installed."""
    if torch_peers() is None:
        return None
    from benches import corner_peer

    return corner_peer


@functools.cache
def torchvision_peers() -> Any:
    """The module of torchvision's peers, or None, said why; on JAX's kind of device."""
    try:
        # A torchvision built for another torch finds no operators.
        from benches import torchvision_peers
    except (ImportError, RuntimeError) as error:
        print(f"torchvision cannot be loaded: {error}", file=sys.stderr)
        return None
    torch_peers()
    if jax.default_backend() != "cpu" and torchvision_peers.device() == "cpu":
        print("torch has no CUDA here", file=sys.stderr)
        return None
    return torchvision_peers


def random_boxes(
    rng: np.random.Generator, n: int, spread: float = 550, side: float = 80
) -> np.ndarray:
    """Boxes [n 4] of 4 to `side` pixels, whose corners lie below `spread`."""
    low = rng.uniform(0, spread, (n, 2))
    return np.concatenate([low, low + rng.uniform(4, side, (n, 2))], 1).astype("f")


def random_weights(side: int = 550, **model: Any) -> tuple[Model, Any, Any]:
    """The model of the keywords of `models.make` with random weights."""
    made = models.make(**model)
    image = jnp.zeros((1, side, side, 3), jnp.uint8)
    if model.get("pixels") == "normalized":
        image = image.astype(jnp.float32)
    shapes = jax.eval_shape(made.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def drawn(x):
        if x.ndim > 1:
            return rng.standard_normal(x.shape, "f") * np.sqrt(
                2 / np.prod(x.shape[:-1])
            )
        return rng.uniform(0.2, 0.5, x.shape).astype("f")

    params, state = jax.tree.map(lambda x: drawn(x).astype("f"), shapes)
    return made, params, state


def noise(
    count: int, size: tuple[int, int], objects: int = 1, room: int = 1, on_box: int = 0
) -> Batch:
    """Images of noise (h, w) with `objects` each, in `room` for so many.

    Their masks are the whole objects, on a grid of the input's quarter, or `on_box`
    cells along a side of each box.
    """
    h, w = size
    rng = np.random.default_rng(0)
    boxes = np.zeros((count, room, 4), "f")
    low = rng.uniform(0, 0.6, (count, objects, 2))
    sides = rng.uniform(0.1, 0.4, (count, objects, 2))
    boxes[:, :objects] = np.concatenate([low, low + sides], 2) * [w, h, w, h]
    valid = np.zeros((count, room), bool)
    valid[:, :objects] = True
    grid = (on_box, on_box) if on_box else (h // 4, w // 4)
    masks = np.ones((count, room, *grid), np.uint8)
    view = View(
        affine=np.tile(np.eye(2, 3, dtype="f"), (count, 1, 1)),
        sizes=np.full((count, 2), size, np.int32),
        valid=np.ones(count, bool),
    )
    target = Objects(
        boxes=boxes,
        labels=np.zeros((count, room), np.int32),
        valid=valid,
        crowd=np.zeros((count, room), bool),
        masks=None if on_box else masks,
        box_masks=masks if on_box else None,
    )
    images = rng.integers(0, 255, (count, h, w, 3), np.uint8)
    return Batch(Inputs(images, view), target, np.arange(count, dtype=np.int32))
