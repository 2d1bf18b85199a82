"""The head that draws masks in regions: modules, targets and loss.

    k        regions of one image
    r        cells along a mask's side, twice the bins

He et al. 2017 (Mask R-CNN), section 3.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.models.two_stage.heads import Convs, kaiming
from detjax.models.two_stage.roi import Regions
from detjax.nn.norm import Norm
from detjax.ops import roi
from detjax.settings import Count
from detjax.types import Array, Objects


@dataclasses.dataclass(frozen=True)
class Mask:
    """Settings of the head on masks.

    bins: along the side of the regions that it reads; a mask has twice as many cells.
    features, depth, norm: of its 3x3 convolutions.
    samples: bounds the regions of an image that masks are learnt from; without it all
        the positives that the sampler admits are.
    """

    bins: Count = 14
    features: Count = 256
    depth: Count = 4
    samples: Count | None = None
    norm: Norm | None = None

    def modules(
        self, num_classes: int, norm_eps: float, dtype: Any
    ) -> dict[str, linen.Module]:
        """The head and the predictor, by their names in the network."""
        kinds = {"norm": self.norm, "norm_eps": norm_eps, "dtype": dtype}
        return {
            "mask_head": Convs(self.features, self.depth, **kinds),
            "mask_predictor": Predictor(num_classes, self.features, dtype),
        }


class Predictor(linen.Module):
    """[n s s c] -> logits [n 2s 2s c+1]; the background's are never used."""

    num_classes: int
    features: int = 256
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        x = linen.ConvTranspose(
            self.features,
            (2, 2),
            strides=(2, 2),
            padding="VALID",
            transpose_kernel=True,
            kernel_init=kaiming,
            dtype=self.dtype,
            name="conv5_mask",
        )(x)
        x = linen.Conv(
            self.num_classes + 1,
            (1, 1),
            kernel_init=kaiming,
            dtype=self.dtype,
            name="mask_fcn_logits",
        )(linen.relu(x))
        return x.astype(jnp.float32)


def targets(
    regions: Regions,
    objects: Objects,
    *,
    cells: int,
    size: tuple[int, int],
    aligned: bool = False,
) -> Array:
    """The masks of the regions' objects, cut out to [k cells cells], in 0..1.

    They are read from `box_masks` where the objects have those, else from `masks`,
    which span an input of `size` (h, w).
    """
    if objects.box_masks is not None:
        frames = objects.boxes[regions.object]
        return roi.align_box_masks(
            objects.box_masks[regions.object],
            frames,
            # Others may lie anywhere, and the largest in its frame's cells sets the
            # time.
            jnp.where(regions.positive[:, None], regions.boxes, frames),
            bins=cells,
            aligned=aligned,
        )
    h, w = objects.masks.shape[1:]
    return roi.align_masks(
        objects.masks[regions.object],
        regions.boxes,
        bins=cells,
        scale=(h / size[0], w / size[1]),
        aligned=aligned,
    )


def loss(logits: Array, truth: Array, regions: Regions) -> tuple[Array, Array]:
    """Cross entropy [] of the positives' masks [k r r], summed, and their count."""
    each = losses.sigmoid_cross_entropy(logits, truth).mean(axis=(1, 2))
    return jnp.sum(jnp.where(regions.positive, each, 0.0)), jnp.sum(regions.positive)
