"""The places of FCOS, and the boxes around them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from detjax.ops import anchors
from detjax.types import Array


class Places(NamedTuple):
    """The places of an input's shape: constants."""

    centre: np.ndarray  # [p 2]: x, y in pixels
    stride: np.ndarray  # [p]: pixels between places of the level
    span: np.ndarray  # [p 2]: the distances to a box's farthest side that are its own
    counts: tuple[int, ...]  # places of each level

    def box(self, reach: Array, index: Any = slice(None)) -> Array:
        """The boxes [. 4] that lie as far as `reach` [. 4] around places of `index`."""
        centre = jnp.asarray(self.centre)[index]
        far = reach * jnp.asarray(self.stride)[index][:, None]
        return jnp.concatenate([centre - far[:, :2], centre + far[:, 2:]], axis=-1)

    def sides(self, found: Array) -> Array:
        """Pixels from each place to the sides of its box: [p 4] -> [p 4]."""
        centre = jnp.asarray(self.centre)
        return jnp.concatenate([centre - found[:, :2], found[:, 2:] - centre], axis=-1)


def places(
    shapes: Sequence[tuple[int, int]], size: tuple[int, int], finest: int, span: float
) -> Places:
    """Those of levels of `shapes` (h, w) on an input of `size` (h, w) pixels.

    The first level has stride 2^finest.

    A level learns boxes whose farthest side is `span` to twice that many strides away;
    the finest all smaller ones too, the coarsest all larger ones.
    """
    steps = anchors.strides(shapes, size)
    # On the upper left corners of the cells, as torchvision's.
    levels = anchors.rcnn_levels(shapes, steps, [(0,)] * len(shapes), (1,))
    counts = tuple(h * w for h, w in shapes)
    stride = [2.0 ** (finest + i) for i in range(len(shapes))]
    low = np.array([0, *(span * s for s in stride[1:])])
    high = np.array([*(2 * span * s for s in stride[:-1]), np.inf])
    each = np.stack([stride, low, high], axis=-1).repeat(counts, axis=0)
    each = each.astype(np.float32)
    return Places(anchors.placed(levels)[:, :2], each[:, 0], each[:, 1:], counts)
