"""Images and objects as torchvision's detectors take them.

That way of theirs is reproduced here and nowhere else: each image is resized to a shape
of its own, and a batch is padded to a multiple of 32.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from detjax.nn.images import STATISTICS
from detjax.ops import resize
from detjax.parity import goldens
from detjax.types import Batch, Inputs, View


class Padded(NamedTuple):
    """A batch as torchvision makes it."""

    inputs: Inputs  # float32, normalised
    shapes: list[tuple[int, int]]  # (h, w) of the pictures in the batch

    @property
    def scale(self) -> np.ndarray:
        """[b 2]: the scale of x and y from the originals to the batch."""
        return self.inputs.view.affine[:, [0, 1], [0, 1]]


def resized_shape(size: tuple[int, int], facts: dict[str, Any]) -> tuple[int, int]:
    """(h, w) at which torchvision's detectors take an image of `size`.

    The short side becomes `min_size` unless the long one would pass `max_size`; the
    scale is a float32 number, the sides are rounded down.
    """
    short, long = (np.float32(side) for side in (min(size), max(size)))
    scale = min(
        np.float32(facts["min_size"]) / short, np.float32(facts["max_size"]) / long
    )
    return int(size[0] * float(scale)), int(size[1] * float(scale))


def pad(
    facts: dict[str, Any], pixels: str = "imagenet", side: int | None = None
) -> Padded:
    """A golden's images, drawn, normalised, resized and batched.

    With a `side` they become squares of it, as torchvision's SSD takes them.
    """
    mean, std = (np.array(s, np.float32) / 255 for s in STATISTICS[pixels])
    shrink = jax.jit(resize.bilinear, static_argnums=1)
    images, sizes, shapes = [], [], []
    for drawn in facts["input"]:
        image = (goldens.draw_images(drawn["shape"], drawn["seed"])[0] - mean) / std
        size = image.shape[:2]
        shape = (side, side) if side else resized_shape(size, facts)
        images.append(np.asarray(shrink(image, shape)))
        sizes.append(size)
        shapes.append(shape)
    h, w = (max(sides) for sides in zip(*shapes, strict=True))
    if not side:
        h, w = (-(-longest // 32) * 32 for longest in (h, w))
    batch = np.zeros((len(images), h, w, 3), np.float32)
    for i, image in enumerate(images):
        batch[i, : image.shape[0], : image.shape[1]] = image
    scale = np.divide(shapes, sizes).astype(np.float32)
    affine = np.zeros((len(images), 2, 3), np.float32)
    affine[:, 0, 0], affine[:, 1, 1] = scale[:, 1], scale[:, 0]
    view = View(affine, np.array(sizes, np.int32), np.ones(len(images), bool))
    return Padded(Inputs(batch, view), shapes)


def draw_batch(padded: Padded, targets: list[dict[str, Any]], first: int = 1) -> Batch:
    """A golden's objects, resized with their images; our labels begin at its `first`.

    Raises ValueError where the ellipses drawn do not have the golden's areas.
    """
    b, h, w, _ = padded.inputs.images.shape
    n = max(1, *(len(t["boxes"]) for t in targets))
    k = max(len(points) for t in targets for points in [*t["keypoints"], []])
    objects = goldens.empty_objects(b, n, (h, w), k)
    for i, target in enumerate(targets):
        m, shape = len(target["boxes"]), padded.shapes[i]
        if not m:
            continue
        given = np.array(target["boxes"], np.float32)
        objects.boxes[i, :m] = given * np.tile(padded.scale[i], 2)
        objects.labels[i, :m] = np.asarray(target["labels"]) - first
        objects.valid[i, :m] = True
        objects.keypoints[i, :m] = np.array(target["keypoints"], np.float32)
        objects.keypoints[i, :m, :, :2] *= padded.scale[i]
        size = padded.inputs.view.sizes[i]
        drawn = np.stack([goldens.ellipse(box, size) for box in given])
        if not np.array_equal(drawn.sum(axis=(1, 2)), target["mask_area"]):
            raise ValueError("the ellipses drawn are not the golden's")
        moved = np.asarray(resize.nearest(np.moveaxis(drawn, 0, -1), shape))
        objects.masks[i, :m, : shape[0], : shape[1]] = np.moveaxis(moved, -1, 0)
    return Batch(padded.inputs, objects, np.arange(b, dtype=np.int32))
