"""RetinaNet's network: a pyramid, and two branches that its levels share."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from flax import linen

from detjax.backbones.pyramid import Pyramid
from detjax.nn.branches import Branch, Output
from detjax.nn.images import normalize
from detjax.ops import anchors, fitting
from detjax.settings import NotEmpty, Positive, Range, Whole
from detjax.types import Array, PriorLevel

Sides = Annotated[tuple[Positive, ...], NotEmpty()]


@dataclasses.dataclass(frozen=True)
class Head:
    """The two branches of convolutions that all levels share.

    depth: convolutions before the output.
    norm: after each of these; None is none.
    prior: the probability that an untrained head gives every class of every prior. The
        many priors without an object would swamp the first steps otherwise.
    """

    depth: Whole = 4
    norm: Literal["group"] | None = None
    prior: Annotated[float, Range(0, 1, open=True)] = 0.01

    def module(self, num_classes: int, per_location: int, dtype: Any) -> "Heads":
        kinds: Any = {"depth": self.depth, "norm": self.norm, "dtype": dtype}
        bias = -math.log((1 - self.prior) / self.prior)
        return Heads(
            Branch((Output("cls_logits", num_classes, per_location, bias),), **kinds),
            Branch((Output("bbox_reg", 4, per_location),), **kinds),
        )


@dataclasses.dataclass(frozen=True)
class Priors:
    """The priors of every location: all sizes of its level by all ratios.

    sizes: sides in pixels of the input, a tuple of equal length for each level.
    ratios: their heights over their widths.
    """

    sizes: tuple[Sides, ...] = tuple(
        (side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3)))
        for side in (32, 64, 128, 256, 512)
    )
    ratios: Sides = (0.5, 1, 2)

    @property
    def per_location(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)

    def levels(
        self, shapes: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> list[PriorLevel]:
        """The levels that these are placed on, of `shapes` (h, w), for an input."""
        steps = anchors.strides(shapes, size)
        return anchors.rcnn_levels(shapes, steps, self.sizes, self.ratios)

    def fitted(
        self, levels: Sequence[PriorLevel], objects: np.ndarray, positive: float
    ) -> dict[str, Any]:
        """Settings of as many priors on `levels` that fit objects' boxes [n 4]."""
        wide = [1 / ratio for ratio in self.ratios]
        sizes, ratios = fitting.sizes_and_ratios(
            objects, levels, self.sizes, wide, positive
        )
        tall = sorted(round(1 / ratio, 2) for ratio in ratios)
        return {"sizes": tuple(map(tuple, sizes)), "ratios": tuple(tall)}


class Outputs(NamedTuple):
    """The network's outputs for a batch, and its priors."""

    levels: tuple[Array, ...]  # [b h w .]
    logits: Array  # [b p c]
    deltas: Array  # [b p 4]
    priors: np.ndarray  # [p 4], a constant of the input's shape
    counts: tuple[int, ...]  # priors of each level


class Heads(linen.Module):
    """torchvision's `head`: levels -> logits [b p c], deltas [b p 4]."""

    classification_head: Branch
    regression_head: Branch

    def __call__(self, levels):
        (logits,) = self.classification_head(levels)
        (deltas,) = self.regression_head(levels)
        return logits, deltas


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`."""

    priors: Priors
    backbone: Pyramid
    head: Heads
    num_classes: int
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        levels = self.backbone(x, train)
        shapes = [level.shape[1:3] for level in levels]
        placed = anchors.placed(self.priors.levels(shapes, images.shape[1:3]))
        counts = tuple(h * w * self.priors.per_location for h, w in shapes)
        logits, deltas = self.head(levels)
        return Outputs(levels, logits, deltas, placed, counts)
