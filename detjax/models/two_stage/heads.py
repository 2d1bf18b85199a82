"""Shared parts of the heads on regions [n s s c].

Names are torchvision's. Maps are flattened by row, column, channel; torch files, which
have channels first, are reordered when they are read.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.norm import MaskedBatchNorm, norm
from detjax.types import Array

kaiming = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
dense = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def flat(x):
    """[n ...] -> [n .]."""
    return x.reshape(x.shape[0], -1)


class Convs(linen.Module):
    """3x3 convolutions, each with a ReLU, [n s s c] -> [n s s features].

    Without `features` they have as many channels as their input. With `hidden`, a fully
    connected layer of as many units follows, -> [n hidden]. With a norm, its statistics
    are those of the `real` regions [n] bool.
    """

    features: int | None = 256
    depth: int = 4
    hidden: int | None = None
    norm: str | None = None
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False, real=None):
        features = self.features or x.shape[-1]
        for i in range(self.depth):
            x = linen.Conv(
                features,
                (3, 3),
                padding=1,
                use_bias=self.norm is None,
                kernel_init=kaiming,
                dtype=self.dtype,
                name=f"{i}.0",
            )(x)
            if self.norm is not None:
                x = self._normalised(x, f"{i}.1", train, real)
            x = linen.relu(x)
        if self.hidden is None:
            return x
        x = linen.Dense(
            self.hidden,
            kernel_init=dense,
            dtype=self.dtype,
            name=f"{self.depth + 1}",
        )(flat(x))
        return linen.relu(x)

    def _normalised(self, x, name, train, real):
        kinds = {"epsilon": self.norm_eps, "dtype": self.dtype, "name": name}
        if self.norm == "batch" and real is not None:
            return MaskedBatchNorm(**kinds)(x, real, train)
        return norm(self.norm, channels=x.shape[-1], train=train, **kinds)(x)


def of_class(values: Array, labels: Array) -> Array:
    """Maps [k r r] of each region's class, of [k r r c+1]."""
    return jnp.take_along_axis(values, labels[:, None, None, None], axis=-1)[..., 0]
