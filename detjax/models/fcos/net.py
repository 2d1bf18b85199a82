"""FCOS's network: a pyramid, and two branches that its levels share."""

import dataclasses
import math
from typing import Annotated, Any, Literal, NamedTuple

from flax import linen

from detjax.backbones.pyramid import Pyramid
from detjax.models.fcos.places import Places, places
from detjax.nn.branches import Branch, Output
from detjax.nn.images import normalize
from detjax.settings import Range, Whole
from detjax.types import Array


@dataclasses.dataclass(frozen=True)
class Head:
    """The two branches of convolutions that all levels share.

    depth: convolutions before the outputs.
    norm: after each of these; None is none.
    prior: the probability that an untrained head gives every class of every place.
    """

    depth: Whole = 4
    norm: Literal["group"] | None = "group"
    prior: Annotated[float, Range(0, 1, open=True)] = 0.01

    def module(self, num_classes: int, dtype: Any) -> "Heads":
        kinds: Any = {
            "depth": self.depth,
            "norm": self.norm,
            "flat": True,
            "dtype": dtype,
        }
        bias = -math.log((1 - self.prior) / self.prior)
        return Heads(
            Branch((Output("cls_logits", num_classes, bias=bias),), **kinds),
            Branch((Output("bbox_reg", 4), Output("bbox_ctrness", 1)), **kinds),
        )


class Heads(linen.Module):
    """torchvision's `head`: levels -> logits [b p c], reach [b p 4], quality [b p]."""

    classification_head: Branch
    regression_head: Branch

    def __call__(self, levels):
        (logits,) = self.classification_head(levels)
        reach, quality = self.regression_head(levels)
        return logits, linen.relu(reach), quality[..., 0]


class Outputs(NamedTuple):
    """The network's outputs for a batch, and its places."""

    levels: tuple[Array, ...]  # [b h w .]
    logits: Array  # [b p c]
    reach: Array  # [b p 4]
    quality: Array  # [b p]: logits of centerness
    at: Places


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`."""

    finest: int
    span: float
    backbone: Pyramid
    head: Heads
    num_classes: int
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        levels = self.backbone(x, train)
        shapes = [level.shape[1:3] for level in levels]
        at = places(shapes, images.shape[1:3], self.finest, self.span)
        logits, reach, quality = self.head(levels)
        return Outputs(levels, logits, reach, quality, at)
