"""Every model at its smallest, and batches to try it on: what the shared suites run."""

import functools

import jax
import numpy as np

from detjax import models
from detjax.types import Batch, Objects

SIDE, CLASSES = 64, 3

YOLACT = {
    "name": "yolact",
    "num_classes": CLASSES,
    "backbone": "resnet10",
    "backbone_width": 8,
    "levels": (3, 4),
    "extra_levels": 1,
    "sizes": ((12,), (24,), (48,)),
    "features": 8,
    "num_prototypes": 4,
    "masks_to_train": 16,
    "top_k": 20,
    "max_detections": 10,
    "score_threshold": 0.01,
}
TINY = {
    "yolact": YOLACT,
    "yolact-boxes": {**YOLACT, "masks": False},
    "yolact-group-norm": {**YOLACT, "norm": "group"},
    "yolact-frozen-norm": {**YOLACT, "norm": "frozen"},
}


@functools.cache
def model(name):
    return models.make(**TINY[name])


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


def key():
    return jax.random.key(7)


def batch(count=2, objects=3, padding=6, seed=0) -> Batch:
    """Pictures of noise with bright boxes, `objects` real ones an image."""
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
    return Batch(
        images=images,
        objects=Objects(
            boxes=boxes,
            labels=rng.integers(0, CLASSES, (count, padding)).astype(np.int32),
            valid=np.tile(np.arange(padding) < objects, (count, 1)),
            crowd=np.zeros((count, padding), bool),
            masks=masks,
        ),
        ids=np.arange(count, dtype=np.int32),
        affine=np.tile(np.eye(3, dtype=np.float32)[:2], (count, 1, 1)),
        sizes=np.full((count, 2), SIDE, np.int32),
        valid=np.ones(count, bool),
        cut=np.zeros(count, np.int32),
    )
