"""YOLACT's mask branch as it learns: a sample of positives, and two losses."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.models.yolact.match import Targets
from detjax.models.yolact.net import Outputs
from detjax.ops import assign, boxes, masks
from detjax.ops.ranking import top_k
from detjax.settings import Count, NonNegative
from detjax.types import Array, Objects


class MaskSample(NamedTuple):
    """k positives of one image with their masks, on the prototypes' grid."""

    chosen: Array  # [k] bool: not padding
    labels: Array  # [k] int32
    logits: Array  # [k mh mw]
    window: Array  # [k mh mw] bool: inside the truth's box
    truth: Array  # [k mh mw] bool
    area: Array  # [k] of the truth's box, as a fraction of the image's


@dataclasses.dataclass(frozen=True)
class Mask:
    """The mask branch, and how it learns.

    prototypes: channels of the prototype network, coefficients of a detection.
    to_train: positives of an image whose masks a step learns.
    weight: of the mask loss.
    semantic_weight: of the loss of semantic segmentation, which only training has.
    """

    prototypes: Count = 32
    to_train: Count = 100
    weight: NonNegative = 6.125
    semantic_weight: NonNegative = 1.0

    def sample(
        self,
        outputs: Outputs,
        objects: Objects,
        target: Targets,
        key: Array,
        size: tuple[int, int],
    ) -> MaskSample:
        """All positives of one image (h, w), or `to_train` of them drawn at random."""
        mh, mw = outputs.prototypes.shape[:2]
        order = jnp.where(
            target.positive, jax.random.uniform(key, target.positive.shape), -1.0
        )
        drawn, prior = top_k(order, min(self.to_train, order.shape[0]))
        chosen, index = drawn >= 0, target.object[prior]
        # Padding never has a positive, but its boxes are still arithmetic.
        whole = jnp.array([0.0, 0.0, size[1], size[0]])
        box = jnp.where(chosen[:, None], objects.boxes[index], whole)
        truth = masks.resize(objects.masks.astype(jnp.float32), (mh, mw)) > 0.5
        rows, columns = masks.crop_cells(box, size, (mh, mw))
        return MaskSample(
            chosen=chosen,
            labels=objects.labels[index],
            logits=masks.assemble(outputs.prototypes, outputs.coefficients[prior]),
            window=rows[:, :, None] & columns[:, None],
            truth=truth[index],
            area=boxes.area(box) / (size[0] * size[1]),
        )


def mask_loss(sample: MaskSample, positives: Array) -> Array:
    """Cross entropy [] in the truth's boxes, each mask's divided by its box's area.

    The sample's loss is scaled up to all `positives` of the image.
    """
    inside = losses.sigmoid_cross_entropy(
        sample.logits, sample.truth.astype(jnp.float32)
    )
    # Outside its window a mask is 0, where the original's log is clamped at -100.
    loss = jnp.where(sample.window, inside, 100.0 * sample.truth)
    each = jnp.where(sample.chosen, loss.mean(axis=(1, 2)) / sample.area, 0.0)
    return jnp.sum(each) * positives / jnp.maximum(jnp.sum(sample.chosen), 1)


def semantic_loss(logits: Array, objects: Objects) -> Array:
    """Cross entropy [], summed over classes, of the union of each class's masks."""
    shape = logits.shape[:2]
    real = assign.learnable(objects)
    each = masks.resize(objects.masks.astype(jnp.float32), shape) > 0.5
    labels = jax.nn.one_hot(objects.labels, logits.shape[-1]) * real[:, None]
    truth = jnp.einsum("nhw,nc->hwc", each.astype(jnp.float32), labels) > 0
    loss = losses.sigmoid_cross_entropy(logits, truth.astype(jnp.float32))
    return loss.sum(axis=-1).mean()
