"""A network that guesses how well a mask fits, as YOLACT++ has it."""

import jax
import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError


class MaskIoU(linen.Module):
    """Masks [n mh mw] in 0..1 -> the IoU [n c] each would have as each of c classes.

    Fast mask rescoring of YOLACT++ (Bolya et al., 2020, sec. 6): five strided
    convolutions without padding, one 1x1, and the maximum over what is left.
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


def mask_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """IoU [n] of aligned binary masks [n mh mw]; 0 where both are empty."""
    inter = jnp.sum(a & b, axis=(1, 2))
    union = jnp.sum(a | b, axis=(1, 2))
    return inter / jnp.maximum(union, 1)
