"""The feature extractor below a head for pixels, with dilation in place of strides."""

import dataclasses
from typing import Any, Literal

from flax import linen

from detjax import backbones
from detjax.nn.norm import Norm
from detjax.settings import Count, NonNegative


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The classifier called `name`, without its last layers.

    name: of the network.
    width: channels of its first stage; the published ones if None.
    norm: of all its layers; "batch" learns statistics, "frozen" keeps those of the
        weights that a run starts from.
    norm_eps: added to the variance; the published number of its family if None.
    output_stride: pixels of the input for each cell of its coarsest map. Below 32
        dilation takes the place of the last strides: finer, slower and more memory.
        Families that cannot be dilated have 32.
    deep_stem: three 3x3 convolutions in place of the first one (PSPNet); ResNets alone.
    dilate_at_once: a block that lost its stride is dilated itself, and not only the
        blocks after it (PSPNet, DeepLabV3+); ResNets alone.
    multi_grid: a factor of the dilation for each block of the last stage, such as (1,
        2, 4) (DeepLabV3); ResNets alone.
    first_at_stride: inner features are those of the first block at each stride and not
        of the last, as torchvision reads them; MobileNetV3 alone.
    remat: trains in less memory and more time: the insides of blocks are computed again
        for the gradient.
    """

    name: backbones.Name = "resnet50"
    width: Count | None = None
    norm: Norm = "batch"
    norm_eps: NonNegative | None = None
    output_stride: Literal[32, 16, 8] = 16
    deep_stem: bool = False
    dilate_at_once: bool = False
    multi_grid: tuple[Count, ...] = ()
    first_at_stride: bool = False
    remat: bool = False

    def body(self, dtype: Any) -> linen.Module:
        """Normalised images [b h w 3] -> features, finest first, from stride 4 on.

        Raises UserError where its family lacks a setting that is not the default.
        """
        return backbones.make(
            self.name,
            width=self.width,
            norm=self.norm,
            norm_eps=self.norm_eps,
            output_stride=None if self.output_stride == 32 else self.output_stride,
            deep_stem=self.deep_stem or None,
            dilate_at_once=self.dilate_at_once or None,
            multi_grid=self.multi_grid or None,
            first_at_stride=self.first_at_stride or None,
            remat=self.remat or None,
            dtype=dtype,
        )
