"""Ways from a classifier's coarse features to a finer map."""

import dataclasses
from typing import Annotated, Any

from flax import linen

from detjax.nn.deform import DeformableConv
from detjax.nn.norm import Norm, norm
from detjax.nn.upsample import ConvTranspose, bilinear
from detjax.settings import Count, NotEmpty


@dataclasses.dataclass(frozen=True)
class Deconv:
    """Transposed convolutions of stride 2 on the coarsest features.

    features: channels behind each of them.
    deformable: whether a deformable 3x3 convolution goes before each, as the paper has
        it; the authors' plain ResNets do without.
    norm: after each convolution.

    Xiao et al. 2018 (Simple Baselines); Zhou et al. 2019, section 5.
    """

    features: Annotated[tuple[Count, ...], NotEmpty()] = (256, 256, 256)
    deformable: bool = False
    norm: Norm = "batch"

    def module(self, norm_eps: float, dtype: Any) -> "Raised":
        return Raised(self.features, self.deformable, self.norm, norm_eps, dtype)


class Raised(linen.Module):
    """[b h w i] -> [b 2^u h 2^u w features[-1]], u the number of `features`.

    The names are those of the authors' list of layers, deconv_layers.
    """

    features: tuple[int, ...]
    deformable: bool
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool = False):
        place = 0
        for features in self.features:
            layers: list[Any] = []
            if self.deformable:
                layers.append(
                    DeformableConv(features, dtype=self.dtype, name=f"{place}")
                )
            layers.append(
                ConvTranspose(
                    features,
                    4,
                    2,
                    padding=1,
                    bias=False,
                    # Interpolation of as many channels as there are on both sides.
                    kernel_init=None if x.shape[-1] != features else bilinear,
                    dtype=self.dtype,
                    name=f"{place + 3 * self.deformable}",
                )
            )
            for layer in layers:
                x = layer(x)
                normal = norm(
                    self.norm,
                    name=f"{place + 1}",
                    channels=features,
                    train=train,
                    epsilon=self.norm_eps,
                    momentum=0.9,
                    dtype=self.dtype,
                )
                x = linen.relu(normal(x))
                place += 3
        return x
