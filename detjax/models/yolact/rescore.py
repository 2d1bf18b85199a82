"""Fast mask rescoring of YOLACT++ (Bolya et al., 2020, sec. 6)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.errors import UserError
from detjax.models.yolact.mask import MaskSample
from detjax.settings import NonNegative
from detjax.types import Array, Detections, Params


class MaskIoU(linen.Module):
    """Masks [n mh mw] in 0..1 -> the IoU [n c] each would have as each of c classes.

    Five strided convolutions without padding, one 1x1, and the maximum over what is
    left.
    """

    num_classes: int

    @linen.compact
    def __call__(self, masks):
        if min(masks.shape[1:]) < 63:
            raise UserError(
                f"masks of {masks.shape[1:]} cells are too small to be rescored; 63 a "
                "side are needed, so give larger images or finer levels"
            )
        x = masks[..., None]
        for i, features in enumerate((8, 16, 32, 64, 128)):
            x = linen.Conv(
                features,
                (3, 3),
                strides=2,
                padding=0,
                name=f"maskiou_net.{2 * i}",
            )(x)
            x = linen.relu(x)
        x = linen.relu(linen.Conv(self.num_classes, (1, 1), name="maskiou_net.10")(x))
        return jnp.max(x, axis=(1, 2))


@dataclasses.dataclass(frozen=True)
class Rescore:
    """A network that predicts the IoU of masks, and its loss.

    weight: of the loss.
    min_area: cells that the mask of a truth must have more than to be learnt.
    """

    weight: NonNegative = 25.0
    min_area: NonNegative = 25.0

    def init(self, key: Array, grid: tuple[int, int], num_classes: int) -> Params:
        """Its parameters, for masks on a `grid` of cells (h, w)."""
        net = MaskIoU(num_classes)
        return net.init(jax.random.fold_in(key, 1), jnp.zeros((1, *grid)))["params"]

    def guess(self, params: Params, probs: Array, num_classes: int) -> Array:
        """The mask IoU [b k c] that is guessed for cropped masks [b k mh mw]."""
        flat = probs.reshape(-1, *probs.shape[2:])
        guesses: Any = MaskIoU(num_classes).apply({"params": params}, flat)
        return guesses.reshape(*probs.shape[:2], -1)

    def loss(self, sample: MaskSample, guesses: Array) -> Array:
        """Smooth L1 [] between the IoU of each mask and the guess [k c] of its class.

        Truths of up to `min_area` cells are left out.
        """
        cut = (sample.logits > 0) & sample.window
        fits = mask_iou(cut, sample.truth)
        guess = jnp.take_along_axis(guesses, sample.labels[:, None], axis=1)[:, 0]
        some = sample.chosen & (jnp.sum(sample.truth, axis=(1, 2)) > self.min_area)
        return jnp.sum(jnp.where(some, losses.smooth_l1(guess, fits), 0.0))


def mask_iou(a: Array, b: Array) -> Array:
    """IoU [n] of aligned binary masks [n mh mw]; 0 where both are empty."""
    inter = jnp.sum(a & b, axis=(1, 2))
    union = jnp.sum(a | b, axis=(1, 2))
    return inter / jnp.maximum(union, 1)


def rescored(found: Detections, guesses: Array) -> Detections:
    """Detections whose mask scores are their scores times the guessed IoU [d c].

    The original keeps the two scores apart: boxes rank by one, masks by the other.
    """
    guess = jnp.take_along_axis(guesses, found.labels[:, None], axis=1)[:, 0]
    return dataclasses.replace(found, mask_scores=found.scores * guess)
