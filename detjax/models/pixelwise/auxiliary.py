"""Heads on inner features, which exist in training alone."""

import dataclasses
from typing import Annotated, Any

from detjax.errors import UserError
from detjax.nn.dense_head import FCNHead
from detjax.nn.norm import Norm
from detjax.settings import Count, Fraction, Range


@dataclasses.dataclass(frozen=True)
class Auxiliary:
    """A head whose loss helps inner layers to learn (Zhao et al. 2017, section 3.3).

    level: the number of the feature that it reads; 4 is the one before the last, 2 the
        finest.
    features: channels between; a quarter of the feature's if None.
    dropout: before its last layer.
    whole_maps: dropout drops whole channels, as PSPNet's authors do.
    """

    level: Annotated[int, Range(2, 5)] = 4
    features: Count | None = None
    dropout: Fraction = 0.1
    whole_maps: bool = False

    def head(self, num_classes: int, norm: Norm, dtype: Any, name: str) -> FCNHead:
        """Features [b h w i] -> logits [b h w c]."""
        return FCNHead(
            num_classes,
            self.features,
            self.dropout,
            self.whole_maps,
            norm=norm,
            dtype=dtype,
            name=name,
        )

    def read(self, features: Any) -> Any:
        """The feature of its level; raises UserError where there is none."""
        if self.level - 2 >= len(features):
            raise UserError(
                f"model.auxiliary.level={self.level}, and the backbone has levels 2 to "
                f"{len(features) + 1}"
            )
        return features[self.level - 2]
