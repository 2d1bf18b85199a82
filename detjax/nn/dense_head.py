"""The smallest head on a map: a convolution, and classes by a 1x1 one."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.conv import Conv
from detjax.nn.conv_norm import conv_norm

small = jax.nn.initializers.normal(0.01)


class FCNHead(linen.Module):
    """[b h w i] -> logits [b h w num_classes], with torchvision's names.

    A 3x3 convolution to `features` (a quarter of the input's if None), norm, ReLU,
    dropout, and a 1x1 convolution. `whole_maps` are dropped by PSPNet's authors, single
    numbers by torchvision.
    """

    num_classes: int
    features: int | None = None
    dropout: float = 0.1
    whole_maps: bool = False
    norm: str = "batch"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool):
        x = conv_norm(
            x,
            train,
            max(x.shape[-1] // 4, 1) if self.features is None else self.features,
            3,
            names=("0", "1"),
            kind=self.norm,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
        dims = (1, 2) if self.whole_maps else ()
        x = linen.Dropout(self.dropout, dims, deterministic=not train)(x)
        return classes(x, self.num_classes, "4", self.dtype)


def classes(x: jax.Array, num_classes: int, name: str, dtype: Any):
    """Logits by a 1x1 convolution, to be called inside a compact module."""
    layer = Conv(num_classes, 1, bias=True, kernel_init=small, dtype=dtype, name=name)
    return layer(x)
