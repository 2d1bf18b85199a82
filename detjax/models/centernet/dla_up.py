"""The way up of CenterNet on DLA-34: features of all strides, joined step by step.

Iterative deep aggregation (Yu et al. 2018, figure 2c): the coarser of two maps is
doubled and added to the finer one, from the finest pair to the coarsest. Done again
with the coarsest map, then with the two coarsest, and so on, each time what is left is
of the next finer stride. Zhou et al. 2019, section 5, with deformable convolutions.
"""

import dataclasses
from typing import Any

from flax import linen

from detjax.backbones.pyramid import Backbone
from detjax.nn.conv import Conv
from detjax.nn.deform import DeformableConv
from detjax.nn.norm import Norm, norm
from detjax.nn.upsample import ChannelsUp
from detjax.settings import Count
from detjax.types import Array


@dataclasses.dataclass(frozen=True)
class DLAUp:
    """The way up.

    joined: the finest of its maps that are joined to the one that heads read.
    deformable: whether its 3x3 convolutions are.
    norm: after each convolution.
    """

    joined: Count = 3
    deformable: bool = True
    norm: Norm = "batch"

    def module(self, backbone: Backbone, dtype: Any) -> "OnFeatures":
        """Normalised images -> the map of the finest of the backbone's levels."""
        kinds: Any = (self.deformable, self.norm, backbone.others_eps, dtype)
        levels = tuple(backbone.levels)
        factors = tuple(2**i for i in range(1, min(self.joined, len(levels))))
        return OnFeatures(
            backbone.body(dtype),
            levels,
            Steps(len(levels), kinds),
            Aggregated(factors, kinds),
        )


class Convolved(linen.Module):
    """A 3x3 convolution, its norm and ReLU: [b h w i] -> [b h w features]."""

    features: int
    kinds: Any

    @linen.compact
    def __call__(self, x, train: bool):
        deformable, kind, epsilon, dtype = self.kinds
        layer: Any = (
            DeformableConv(self.features, dtype=dtype, name="conv")
            if deformable
            else Conv(self.features, 3, bias=True, dtype=dtype, name="conv")
        )
        normal = norm(
            kind,
            name="actf.0",
            channels=self.features,
            train=train,
            epsilon=epsilon,
            dtype=dtype,
        )
        return linen.relu(normal(layer(x)))


class Aggregated(linen.Module):
    """Maps, the finest first -> as many, each joined with all finer ones.

    The first is as it was, and all others have its size and channels; `factors` tell
    how much smaller they were, sides rounded up.
    """

    factors: tuple[int, ...]
    kinds: Any

    @linen.compact
    def __call__(self, maps: tuple[Array, ...], train: bool) -> tuple[Array, ...]:
        first = maps[0]
        _, h, w, features = first.shape
        found = [first]
        for i, x in enumerate(maps[1:], start=1):
            x = Convolved(features, self.kinds, name=f"proj_{i}")(x, train)
            factor = self.factors[i - 1]
            up = ChannelsUp(factor, self.kinds[-1], name=f"up_{i}")
            x = up(x)[:, :h, :w] + found[-1]
            found.append(Convolved(features, self.kinds, name=f"node_{i}")(x, train))
        return tuple(found)


class Steps(linen.Module):
    """`count` features, the finest first -> maps of the same strides, joined."""

    count: int
    kinds: Any

    @linen.compact
    def __call__(self, features: tuple[Array, ...], train: bool) -> tuple[Array, ...]:
        maps = list(features)
        found = [maps[-1]]
        for i in range(self.count - 1):
            start = self.count - 2 - i
            # Those behind have the size of the second, after the steps before.
            step = Aggregated((2,) * (i + 1), self.kinds, name=f"ida_{i}")
            maps[start:] = step(tuple(maps[start:]), train)
            found.insert(0, maps[-1])
        return tuple(found)


class OnFeatures(linen.Module):
    """Normalised images -> the map of the finest stride; a tuple of one."""

    body: linen.Module
    levels: tuple[int, ...]
    dla_up: Steps
    ida_up: Aggregated

    def __call__(self, x, train: bool = False) -> tuple[Array, ...]:
        features = self.body(x, train)
        maps = self.dla_up(tuple(features[i - 2] for i in self.levels), train)
        return (self.ida_up(maps[: len(self.ida_up.factors) + 1], train)[-1],)
