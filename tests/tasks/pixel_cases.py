"""Small networks of every pixel for tests of tasks, and records for them."""

from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax.data import label_maps, value_maps
from detjax.data.records import Record
from detjax.models import pixelwise
from detjax.nn.start import initialiser
from detjax.ops import resize
from detjax.types import LabelScores, Model, Spec, ValueMap

CLASSES = ("sky", "square", "disc")


class Net(linen.Module):
    """Logits at a quarter of the size."""

    outputs: int = 3
    constant: bool = False  # sees one block of pixels, and nothing around it

    @linen.compact
    def __call__(self, images, train=False):
        x = images.astype(jnp.float32) / 128 - 1
        x = linen.Conv(16, (4, 4), (4, 4), padding="VALID", name="first")(x)
        x = linen.relu(x)
        size = (1, 1) if self.constant else (3, 3)
        x = linen.relu(linen.Conv(16, size, name="second")(x))
        return (linen.Conv(self.outputs, (1, 1), name="last")(x),)


def segmenter(classes: int = 3, constant: bool = False) -> Model:
    return pixelwise.segmenter(
        Net(classes, constant), classes, pixelwise.Loss(), groups={"all": ""}
    )


def regressor() -> Model:
    """Depth, by the mean absolute error."""
    net = Net(1)

    def call(params, state, images):
        [x] = net.apply({"params": params, **state}, images)
        return x[..., 0]

    def loss(params, state, batch, key):
        found = call(params, state, batch.inputs.images)
        size = batch.inputs.images.shape[1:3]
        whole = pixelwise.enlarged(found[..., None], size)[..., 0]
        valid = pixelwise.without_padding(batch.target.valid, batch)
        away = jnp.where(valid, jnp.abs(whole - batch.target.values), 0)
        value = away.sum() / jnp.maximum(valid.sum(), 1)
        return value, (state, {"values": value})

    def predict(params, state, inputs):
        return ValueMap(call(params, state, inputs.images))

    return Model(
        Spec("dense", 1, groups={"all": ""}), initialiser(net), loss, predict, net
    )


def both() -> Model:
    """Classes and depth of one network."""
    net = Net(4)

    def call(params, state, images):
        [x] = net.apply({"params": params, **state}, images)
        return x[..., :3], x[..., 3]

    def loss(params, state, batch, key):
        logits, values = call(params, state, batch.inputs.images)
        size = batch.inputs.images.shape[1:3]
        maps, deep = batch.target["segmentation"], batch.target["dense"]
        first = pixelwise.Loss()(pixelwise.enlarged(logits, size), maps, len(logits))
        whole = pixelwise.enlarged(values[..., None], size)[..., 0]
        away = jnp.where(deep.valid, jnp.abs(whole - deep.values), 0)
        second = away.sum() / jnp.maximum(deep.valid.sum(), 1)
        return first + second, (state, {"pixels": first, "values": second})

    def predict(params, state, inputs):
        logits, values = call(params, state, inputs.images)
        size = inputs.images.shape[1:3]
        return {
            "segmentation": LabelScores(logits, size),
            "dense": ValueMap(values),
        }

    return Model(
        Spec("scene", 3, groups={"all": ""}), initialiser(net), loss, predict, net
    )


MODELS = {"segmentation": segmenter, "dense": regressor, "scene": both}


def scene(seed: int, h: int = 48, w: int = 64) -> tuple[np.ndarray, ...]:
    """A picture, its classes, which of them count, and depth."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((h, w), np.uint8)
    deep = np.full((h, w), 9, np.float32)
    x, y = rng.integers(2, w // 2), rng.integers(2, h // 2)
    labels[y : y + 20, x : x + 22] = 1
    deep[labels == 1] = 4
    disc = cv2.circle(np.zeros((h, w), np.uint8), (w - 16, h - 14), 10, 1, -1) > 0
    labels[disc], deep[disc] = 2, 2
    colours = np.uint8([[90, 130, 220], [210, 60, 50], [60, 190, 80]])
    image = colours[labels] + rng.integers(0, 20, (h, w, 3)).astype(np.uint8)
    valid = np.ones((h, w), bool)
    valid[: h // 8, : w // 8] = False
    return image, labels, valid, deep


def records(task: str, count: int, h: int = 48, w: int = 64) -> list[Record]:
    found = []
    for i in range(count):
        image, labels, valid, deep = scene(i, h, w)
        held: dict[str, Any] = {
            "segmentation": label_maps.encode(labels, valid, len(CLASSES)),
            "dense": value_maps.encode(deep, valid),
        }
        truth = held if task == "scene" else held[task]
        png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        found.append(Record(i + 1, f"{i + 1}.png", h, w, image=png, truth=truth))
    return found


def enlarged(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Logits [oh ow c] at `size`."""
    return np.asarray(resize.bilinear(logits, size))
