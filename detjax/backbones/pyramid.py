"""Levels that heads read: a classifier's features, and a pyramid on them."""

import dataclasses
from typing import Annotated, Any, Literal

from flax import linen

from detjax import backbones
from detjax.errors import UserError
from detjax.nn import fpn as pyramids
from detjax.nn.norm import Norm
from detjax.settings import Count, NonNegative, Range, Whole

Level = Annotated[int, Range(2)]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The classifier called `name`, up to the coarsest of the `levels` that are read.

    name: of the network.
    width: channels of its first stage; the published ones if None.
    norm: of all its layers; "frozen" is what fine-tuning from a classifier wants.
    norm_eps: added to the variance in every norm of the detector, those of the pyramid
        and of the heads included; if None the published number of the backbone's
        family, and 1e-5 in the others. Backbones that add to the deviation, such as
        darknet19, keep their number.
    levels: the numbers of the features that are read, the finest first; level k has
        stride 2^k.
    remat: trains in less memory and more time: the insides of blocks are computed again
        for the gradient.
    """

    name: backbones.Name = "resnet50"
    width: Count | None = None
    norm: Norm = "frozen"
    norm_eps: NonNegative | None = None
    levels: tuple[Level, ...] = (2, 3, 4, 5)
    remat: bool = False

    def body(self, dtype: Any) -> linen.Module:
        """Normalised images [b h w 3] -> features, finest first, from stride 4 on."""
        # Families without norms, whose pyramids and heads may have some, lack it.
        known = hasattr(backbones.make(self.name), "norm_eps")
        return backbones.make(
            self.name,
            width=self.width,
            norm_eps=self.norm_eps if known else None,
            stages=max(self.levels) - 1,
            norm=self.norm,
            remat=self.remat,
            dtype=dtype,
        )

    @property
    def others_eps(self) -> float:
        """What is added to the variance in norms outside of the backbone."""
        return 1e-5 if self.norm_eps is None else self.norm_eps


@dataclasses.dataclass(frozen=True)
class FPN:
    """A feature pyramid (Lin et al. 2017).

    features: channels of its levels.
    norm: after each of its convolutions; None is none.

    The region proposal network gets one more level, every second cell of the coarsest.
    """

    features: Count = 256
    norm: Norm | None = None

    def module(self, norm_eps: float, dtype: Any) -> pyramids.FPN:
        kinds = {"norm": self.norm, "norm_eps": norm_eps, "dtype": dtype}
        return pyramids.FPN(self.features, **kinds)


@dataclasses.dataclass(frozen=True)
class LongFPN:
    """A feature pyramid with coarser levels than the backbone's.

    features: channels of its levels.
    norm: after each of its convolutions; None is none.
    extra_levels: coarser levels, each by a convolution of stride 2 of the one before.
    extra_from: what the first of these sees: the pyramid's coarsest "level", or the
        backbone's coarsest "feature", as in RetinaNet's paper.
    """

    features: Count = 256
    norm: Norm | None = None
    extra_levels: Whole = 2
    extra_from: Literal["level", "feature"] = "level"

    def module(self, norm_eps: float, dtype: Any) -> pyramids.FPN:
        return pyramids.FPN(
            self.features,
            extra_levels=self.extra_levels,
            extra_from=self.extra_from,
            extra_relu=True,
            norm=self.norm,
            norm_eps=norm_eps,
            dtype=dtype,
        )


class Pyramid(linen.Module):
    """Normalised images -> levels, finest first; plain features where `fpn` is None."""

    body: linen.Module
    levels: tuple[int, ...]
    fpn: pyramids.FPN | None

    def __call__(self, x, train: bool = False):
        found = self.body(x, train)
        found = [found[i - 2] for i in self.levels]
        return tuple(found) if self.fpn is None else self.fpn(found, train)


def check_levels(backbone: Backbone) -> None:
    """Raises UserError where a pyramid's levels do not follow one another."""
    levels = backbone.levels
    if not levels or list(levels) != list(range(min(levels), max(levels) + 1)):
        raise UserError(
            f"model.backbone.levels={levels} must follow one another, the finest first"
        )


def pyramid(backbone: Backbone, fpn: FPN | LongFPN | None, dtype: Any) -> Pyramid:
    """The module of the levels, whose parameters are `body` and `fpn`."""
    top = None if fpn is None else fpn.module(backbone.others_eps, dtype)
    return Pyramid(backbone.body(dtype), tuple(backbone.levels), top)
