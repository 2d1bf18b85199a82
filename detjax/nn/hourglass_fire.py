"""The fire module of CornerNet-Squeeze (Law et al., BMVC 2020), section 4.

Of SqueezeNet (Iandola et al. 2016), with a depthwise convolution for its 3x3 one.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.nn.conv import Conv
from detjax.nn.conv_norm import conv_norm
from detjax.nn.norm import norm


class Fire(linen.Module):
    """A block [b h w i] -> [b h/stride w/stride features], of few parameters.

    1x1 to half of the features, without ReLU; then 1x1 and depthwise 3x3 side by side,
    half of the features each. What it saw is added where the shapes allow it.
    """

    features: int
    stride: int = 1
    norm: str = "batch"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool):
        half = self.features // 2
        squeezed = conv_norm(
            x,
            train,
            half,
            names=("conv1", "bn1"),
            relu=None,
            kind=self.norm,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
        kinds: Any = {"stride": self.stride, "dtype": self.dtype}
        y = jnp.concatenate(
            [
                Conv(half, 1, **kinds, name="conv_1x1")(squeezed),
                Conv(half, 3, groups=half, **kinds, name="conv_3x3")(squeezed),
            ],
            axis=-1,
        )
        y = norm(
            self.norm,
            name="bn2",
            channels=self.features,
            train=train,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )(y)
        if self.stride == 1 and x.shape[-1] == self.features:
            y = y + x
        return linen.relu(y)
