"""Atrous spatial pyramid pooling: one map seen at several scales (DeepLab).

Chen et al. 2017, "Rethinking Atrous Convolution", section 3.3.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.nn.conv_norm import conv_norm


def branches(
    x: Any,
    layer: Callable[..., Any],
    features: int,
    rates: tuple[int, ...],
    separable: bool = False,
) -> list[Any]:
    """[b h w i] -> maps [b h w features], to be called inside a compact module.

    A 1x1 convolution, a 3x3 one dilated by each of `rates`, and the mean of the whole
    map through a 1x1 convolution, the same in every cell. As `separable` the dilated
    ones are a depthwise and a 1x1 convolution. Names are torchvision's; `layer` is
    `conv_norm` with all but (x, features, kernel) and `names`.
    """
    channels = x.shape[-1]
    found = [layer(x, features=features, names=("convs.0.0", "convs.0.1"))]
    for i, rate in enumerate(rates, start=1):
        name, seen, kernel = f"convs.{i}", x, {"kernel": 3, "dilation": rate}
        if separable:
            names = f"{name}.0.0", f"{name}.0.1"
            seen = layer(x, features=channels, groups=channels, names=names, **kernel)
            name, kernel = f"{name}.1", {}
        names = f"{name}.0", f"{name}.1"
        found.append(layer(seen, features=features, names=names, **kernel))
    last = f"convs.{len(rates) + 1}"
    mean = x.mean(axis=(1, 2), keepdims=True)
    mean = layer(mean, features=features, names=(f"{last}.1", f"{last}.2"))
    return [*found, jnp.broadcast_to(mean, found[0].shape)]


class ASPP(linen.Module):
    """[b h w i] -> [b h w features]: the `branches`, joined by a 1x1 convolution."""

    features: int
    rates: tuple[int, ...]
    separable: bool = False
    dropout: float = 0.5
    norm: str = "batch"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool):
        layer = functools.partial(
            conv_norm,
            train=train,
            kind=self.norm,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
        found = branches(x, layer, self.features, self.rates, self.separable)
        joined = jnp.concatenate(found, axis=-1)
        x = layer(joined, features=self.features, names=("project.0", "project.1"))
        return linen.Dropout(self.dropout, deterministic=not train)(x)
