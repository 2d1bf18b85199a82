"""CornerNet's network: hourglasses, corner pooling, and maps of both corners."""

import dataclasses
import math
from typing import Annotated, Any, Literal, NamedTuple

from flax import linen

from detjax.nn.batch import each_image
from detjax.nn.conv import Conv, torchs
from detjax.nn.conv_norm import ConvNorm, conv_norm
from detjax.nn.hourglass import StackedHourglass
from detjax.nn.images import normalize
from detjax.nn.linear_map import LinearMap
from detjax.ops import corner_pool
from detjax.settings import Count, Range
from detjax.types import Array

# The two sweeps that lead to each corner.
SWEEPS = {
    "tl": (corner_pool.top, corner_pool.left),
    "br": (corner_pool.bottom, corner_pool.right),
}


@dataclasses.dataclass(frozen=True)
class Head:
    """What makes maps of the features of an hourglass.

    pooled: channels that corner pooling sees.
    hidden: channels before each output.
    kernel: side of the convolutions to these.
    prior: the probability that an untrained head gives every corner of every cell.
    """

    pooled: Count = 128
    hidden: Count = 256
    kernel: Literal[1, 3] = 3
    prior: Annotated[float, Range(0, 1, open=True)] = 0.1


class Corners(NamedTuple):
    """The maps of one kind of corner, float32."""

    heat: Array  # [b mh mw c] logits
    tag: Array  # [b mh mw]
    offset: Array  # [b mh mw 2] x, y


class Maps(NamedTuple):
    """What one hourglass answers."""

    tl: Corners  # upper left
    br: Corners  # lower right


class Swept(linen.Module):
    """Corner pooling of a batch by one of the functions of `ops.corner_pool`."""

    sweep: Any

    def __call__(self, x):
        # Rows that a mesh has split are whole again: a loop goes through them.
        return each_image(self.sweep)(x)


class CornerPool(linen.Module):
    """Features [b h w i] -> those of one kind of corner, of the same shape.

    Law and Deng 2018, figure 7: a residual block whose first convolution is replaced by
    the sum of two corner pools.
    """

    sweeps: tuple[Any, Any]
    pooled: int
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        kinds: Any = {
            "norm": self.norm,
            "norm_eps": self.norm_eps,
            "dtype": self.dtype,
        }
        pools = [
            Swept(sweep, name=f"pool{i}")(
                ConvNorm(self.pooled, 3, **kinds, name=f"p{i}_conv1")(x, train)
            )
            for i, sweep in enumerate(self.sweeps, start=1)
        ]
        linear: Any = {
            "relu": None,
            "kind": self.norm,
            "epsilon": self.norm_eps,
            "dtype": self.dtype,
        }
        n = x.shape[-1]
        y = conv_norm(sum(pools), train, n, 3, names=("p_conv1", "p_bn1"), **linear)
        x = conv_norm(x, train, n, names=("conv1", "bn1"), **linear)
        return ConvNorm(n, 3, **kinds, name="conv2")(linen.relu(x + y), train)


class Output(linen.Module):
    """[b h w i] -> [b h w features] float32: a convolution, ReLU, and a linear one."""

    features: int
    head: Head
    bias: float
    dtype: Any

    @linen.compact
    def __call__(self, x):
        # The names of torch's lists: the block "0" holds `conv`.
        head, dtype = self.head, self.dtype
        x = Conv(head.hidden, head.kernel, bias=True, dtype=dtype, name="0.conv")(x)
        last = LinearMap(self.features, self.bias, torchs, dtype, name="1")
        return last(linen.relu(x))


class Net(linen.Module):
    """Images [b h w 3] -> `Maps` of every hourglass, the last the best."""

    backbone: StackedHourglass
    head: Head
    num_classes: int
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False) -> tuple[Maps, ...]:
        x = normalize(images, self.pixels, self.dtype)
        return tuple(
            Maps(*(self._corners(y, kind, i, train) for kind in SWEEPS))
            for i, y in enumerate(self.backbone(x, train))
        )

    def _corners(self, x, kind, i, train):
        """The maps of the corners "tl" or "br" of the i-th hourglass."""
        body = self.backbone
        y = CornerPool(
            SWEEPS[kind],
            self.head.pooled,
            body.norm,
            body.norm_eps,
            self.dtype,
            name=f"{kind}_cnvs.{i}",
        )(x, train)
        prior = self.head.prior
        heat, tag, offset = (
            Output(n, self.head, bias, self.dtype, name=f"{kind}_{name}.{i}")(y)
            for name, n, bias in (
                ("heats", self.num_classes, -math.log((1 - prior) / prior)),
                ("tags", 1, 0.0),
                ("regrs", 2, 0.0),
            )
        )
        return Corners(heat, tag[..., 0], offset)
