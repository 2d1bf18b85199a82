"""The head that predicts the IoU of masks with their objects: module, targets, loss.

    k        regions of one image
    r        cells along a mask's side
    c        classes

Huang et al. 2019 (Mask Scoring R-CNN), section 3.3.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.models.two_stage.box import Box
from detjax.models.two_stage.heads import dense, flat, kaiming
from detjax.models.two_stage.mask import Mask
from detjax.models.two_stage.roi import Regions
from detjax.ops import boxes
from detjax.settings import Count
from detjax.types import Array, Objects


@dataclasses.dataclass(frozen=True)
class MaskIoU:
    """Settings of the head that scores masks.

    features: channels of its convolutions; None is what the head on masks has.
    hidden: units of its fully connected layers; None is what the head on boxes has.
    """

    features: Count | None = None
    hidden: Count | None = None

    def modules(
        self, num_classes: int, mask: Mask, box: Box, dtype: Any
    ) -> dict[str, linen.Module]:
        """The head, by its name in the network."""
        features, hidden = self.features or mask.features, self.hidden or box.hidden
        return {"mask_iou": Head(num_classes, features, hidden, dtype)}


class Head(linen.Module):
    """Regions [n s s .] and masks [n 2s 2s] in 0..1 -> IoU [n c] of each class."""

    num_classes: int
    features: int = 256
    hidden: int = 1024
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, masks):
        masks = linen.max_pool(masks[..., None], (2, 2), (2, 2)).astype(x.dtype)
        x = jnp.concatenate([x, masks], axis=-1)
        for i in range(4):
            x = linen.Conv(
                self.features,
                (3, 3),
                strides=2 if i == 3 else 1,
                padding=1,
                kernel_init=kaiming,
                dtype=self.dtype,
                name=f"maskiou_fcn{i + 1}",
            )(x)
            x = linen.relu(x)
        x = flat(x)
        for i in (1, 2):
            x = linen.Dense(
                self.hidden,
                kernel_init=dense,
                dtype=self.dtype,
                name=f"maskiou_fc{i}",
            )(x)
            x = linen.relu(x)
        x = linen.Dense(self.num_classes, dtype=self.dtype, name="maskiou")(x)
        return x.astype(jnp.float32)


def targets(
    probs: Array,
    truth: Array,
    regions: Regions,
    objects: Objects,
    *,
    size: tuple[int, int],
) -> Array:
    """The IoU [k] of masks [k r r] with the full masks of their objects.

    `truth` [k r r] are the objects' masks inside the regions; what of an object lies
    outside its region counts as missed.
    """
    cell = boxes.area(regions.boxes) / (truth.shape[1] * truth.shape[2])
    full = areas(objects, size)[regions.object]
    cut, real = probs > 0.5, truth >= 0.5
    inter = jnp.sum(cut & real, axis=(1, 2))
    inside = jnp.sum(real, axis=(1, 2))
    total = jnp.maximum(full / jnp.maximum(cell, 1e-6), inside)
    union = jnp.sum(cut, axis=(1, 2)) + total - inter
    return inter / jnp.maximum(union, 1)


def areas(objects: Objects, size: tuple[int, int]) -> Array:
    """The area [n] of each object's mask, in pixels of an input of `size` (h, w)."""
    if objects.box_masks is not None:
        cells = objects.box_masks.shape[1] * objects.box_masks.shape[2]
        filled = objects.box_masks.astype(jnp.float32).sum(axis=(1, 2))
        return filled * boxes.area(objects.boxes) / cells
    h, w = objects.masks.shape[1:]
    filled = objects.masks.astype(jnp.float32).sum(axis=(1, 2))
    return filled * ((size[0] / h) * (size[1] / w))


def loss(predicted: Array, truth: Array, regions: Regions) -> tuple[Array, Array]:
    """Half the squared error [] of the predicted IoU [k c], summed, and their count.

    Regions count whose masks overlap their object at all. This and the half are the
    authors' code's.
    """
    labels = jnp.minimum(regions.labels, predicted.shape[1] - 1)
    own = jnp.take_along_axis(predicted, labels[:, None], axis=1)[:, 0]
    some = regions.positive & (truth > 0)
    return jnp.sum(jnp.where(some, (own - truth) ** 2 / 2, 0.0)), jnp.sum(some)
