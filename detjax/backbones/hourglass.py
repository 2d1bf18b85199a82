"""The stacked hourglass as a backbone: its settings."""

import dataclasses
from typing import Annotated, Any, Literal

from detjax.errors import UserError
from detjax.nn import hourglass
from detjax.nn.norm import Norm
from detjax.settings import Count, NonNegative, NotEmpty

Counts = Annotated[tuple[Count, ...], NotEmpty()]


@dataclasses.dataclass(frozen=True)
class Hourglass:
    """Hourglasses one after the other; the defaults are CornerNet's Hourglass-104.

    stacks: how many hourglasses; each is supervised.
    dims: channels at the first size and after each halving of the map.
    modules: blocks at each of these sizes.
    features: channels of the features of each hourglass.
    stride: pixels between the cells of the features, which the stem makes.
    block: "residual", or "fire" of CornerNet-Squeeze.
    norm: of all layers; "batch" trains from nothing.
    norm_eps: added to the variance in every norm.
    remat: trains in less memory and more time: the insides of blocks are computed again
        for the gradient.
    """

    stacks: Count = 2
    dims: Counts = (256, 256, 384, 384, 384, 512)
    modules: Counts = (2, 2, 2, 2, 2, 4)
    features: Count = 256
    stride: Literal[4, 8] = 4
    block: Literal["residual", "fire"] = "residual"
    norm: Norm = "batch"
    norm_eps: NonNegative = 1e-5
    remat: bool = False

    def body(self, dtype: Any) -> hourglass.StackedHourglass:
        """Normalised images [b h w 3] -> the features of every hourglass.

        Raises UserError where `dims` and `modules` do not go together.
        """
        if len(self.dims) != len(self.modules) or len(self.dims) < 2:
            raise UserError(
                f"backbone.dims={self.dims} and backbone.modules={self.modules} need a "
                "number each for every size of the map, two sizes or more"
            )
        return hourglass.StackedHourglass(**dataclasses.asdict(self), dtype=dtype)


SQUEEZE = Hourglass(
    dims=(256, 256, 384, 384, 512), modules=(2, 2, 2, 2, 4), stride=8, block="fire"
)
