"""CenterNet's network: a trunk, and heads on its map."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax
from flax import linen

from detjax.nn.conv import Conv, torchs
from detjax.nn.images import normalize
from detjax.nn.linear_map import LinearMap
from detjax.settings import Range, Whole
from detjax.types import Array

HEAT = "hm"  # the name of the map of centres, whose channels are the classes


@dataclasses.dataclass(frozen=True)
class Head:
    """What makes each map of the trunk's features.

    hidden: channels of a 3x3 convolution before it; 0 is without, as on hourglasses of
        another kind.
    prior: the probability that an untrained head gives every centre of every cell.
    """

    hidden: Whole = 64
    prior: Annotated[float, Range(0, 1, open=True)] = 0.1


class Output(linen.Module):
    """[b h w i] -> [b h w features] float32: a convolution, ReLU, and a linear one."""

    features: int
    hidden: int
    bias: float
    start: Any
    dtype: Any

    @linen.compact
    def __call__(self, x):
        if self.hidden:
            x = Conv(self.hidden, 3, bias=True, dtype=self.dtype, name="0")(x)
            x = linen.relu(x)
        return LinearMap(self.features, self.bias, self.start, self.dtype, name="2")(x)


class OnPyramid(linen.Module):
    """Normalised images -> the map of the coarsest level, raised; a tuple of one."""

    body: linen.Module
    deconv_layers: linen.Module

    def __call__(self, x, train: bool = False) -> tuple[Array, ...]:
        return (self.deconv_layers(self.body(x, train)[-1], train),)


class Net(linen.Module):
    """Images [b h w 3] -> maps [b mh mw .] by name, of every stack of the trunk.

    maps: channels of each.
    """

    backbone: linen.Module
    maps: Mapping[str, int]
    head: Head
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False) -> tuple[dict[str, Array], ...]:
        x = normalize(images, self.pixels, self.dtype)
        return tuple(
            {
                name: self._output(name, features, i)(y)
                for name, features in self.maps.items()
            }
            for i, y in enumerate(self.backbone(x, train))
        )

    def _output(self, name: str, features: int, stack: int) -> Output:
        """The head of a map: of probabilities, or of numbers that begin near 0."""
        bias, start = 0.0, jax.nn.initializers.normal(0.001)
        if name.startswith(HEAT):
            prior = self.head.prior
            bias, start = -math.log((1 - prior) / prior), torchs
        hidden, dtype = self.head.hidden, self.dtype
        return Output(features, hidden, bias, start, dtype, name=f"{name}.{stack}")
