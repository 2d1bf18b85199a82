"""The head that finds keypoints in regions: modules and loss.

    k        regions of one image
    s        cells along a heatmap's side, four times the bins

He et al. 2017 (Mask R-CNN), section 5.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.models.two_stage.heads import kaiming
from detjax.models.two_stage.roi import Regions
from detjax.ops import heatmaps, resize
from detjax.settings import Count
from detjax.types import Array, Objects


@dataclasses.dataclass(frozen=True)
class Keypoint:
    """Settings of the head on keypoints.

    count: keypoints of an object; 17 are COCO's of a person.
    bins: along the side of the regions that it reads.
    features, depth: of its 3x3 convolutions.
    samples: bounds the regions of an image that keypoints are learnt from; without it
        all the positives that the sampler admits are.
    """

    count: Count = 17
    bins: Count = 14
    features: Count = 512
    depth: Count = 8
    samples: Count | None = None

    def modules(self, dtype: Any) -> dict[str, linen.Module]:
        """The head and the predictor, by their names in the network."""
        return {
            "keypoint_head": Head(self.features, self.depth, dtype),
            "keypoint_predictor": Predictor(self.count, dtype),
        }


class Head(linen.Module):
    """3x3 convolutions, each with a ReLU, [n s s c] -> [n s s features]."""

    features: int = 512
    depth: int = 8
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = linen.Conv(
                self.features,
                (3, 3),
                padding=1,
                kernel_init=kaiming,
                dtype=self.dtype,
                name=f"{2 * i}",
            )(x)
            x = linen.relu(x)
        return x


class Predictor(linen.Module):
    """[n s s c] -> heatmaps [n 4s 4s keypoints], logits."""

    keypoints: int
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        x = linen.ConvTranspose(
            self.keypoints,
            (4, 4),
            strides=(2, 2),
            padding=((2, 2), (2, 2)),
            transpose_kernel=True,
            kernel_init=kaiming,
            dtype=self.dtype,
            name="kps_score_lowres",
        )(x).astype(jnp.float32)
        double = (2 * x.shape[1], 2 * x.shape[2])
        return jax.vmap(resize.bilinear, in_axes=(0, None))(x, double)


def loss(maps: Array, regions: Regions, objects: Objects) -> tuple[Array, Array]:
    """Cross entropy [] of the keypoints' cells, summed, and how many are visible.

    `maps` [k s s keypoints] are logits; each is a softmax over its cells.
    """
    n, side, _, count = maps.shape
    cell, seen = heatmaps.cells(objects.keypoints[regions.object], regions.boxes, side)
    seen &= regions.positive[:, None]
    logits = jnp.moveaxis(maps, -1, 1).reshape(n, count, side * side)
    each = losses.softmax_cross_entropy(logits, cell)
    return jnp.sum(jnp.where(seen, each, 0.0)), jnp.sum(seen)
