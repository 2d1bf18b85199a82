"""The settings of DeepLab's atrous spatial pyramid pooling."""

import dataclasses
from typing import Any

from detjax.nn.aspp import ASPP
from detjax.nn.norm import Norm
from detjax.settings import Count, Fraction

# Dilations at an output stride of 16 (Chen et al. 2017, table 5).
_RATES = (6, 12, 18)


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Atrous spatial pyramid pooling: one map seen at several scales.

    features: channels of each branch, and of their sum.
    rates: dilations of the 3x3 convolutions, in cells of the coarsest map; if None 6,
        12 and 18 at an output stride of 16, twice that at 8.
    separable: dilated convolutions are depthwise, followed by 1x1 ones: a fraction of
        the arithmetic (DeepLabV3+, section 3.1).
    dropout: of what they make together.
    """

    features: Count = 256
    rates: tuple[Count, ...] | None = None
    separable: bool = False
    dropout: Fraction = 0.5

    def module(self, output_stride: int, norm: Norm, dtype: Any, name: str) -> ASPP:
        """[b h w i] -> [b h w features]."""
        rates = self.rates
        if rates is None:
            rates = tuple(rate * 16 // output_stride for rate in _RATES)
        return ASPP(
            self.features,
            rates,
            self.separable,
            self.dropout,
            norm=norm,
            dtype=dtype,
            name=name,
        )
