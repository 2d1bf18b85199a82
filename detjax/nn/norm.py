"""Normalisation by name: what `norm='batch' | 'frozen' | 'group'` means."""

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError

Norm = Literal["batch", "frozen", "group"]
KINDS = get_args(Norm)


def norm(
    kind: str,
    *,
    name: str,
    channels: int,
    train: bool,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    dtype: Any = jnp.float32,
) -> linen.Module:
    """A layer that normalises [... channels], to be called inside a compact module.

    batch    statistics of the batch in training, running ones otherwise. Under jit on a
             mesh the batch is the global one, so this is synchronised batch norm.
    frozen   running statistics always; what detectors fine-tune with. Scale and bias
             stay parameters: freeze them by name in the optimiser.
    group    32 groups (fewer where channels do not divide), no running statistics.

    Statistics are float32 whatever `dtype` is. Ioffe and Szegedy 2015; Wu and He 2018.
    Raises UserError for any other kind.
    """
    if kind not in KINDS:
        raise UserError(f"norm={kind!r} is not known; choose one of {KINDS}")
    if kind == "group":
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0)
        return linen.GroupNorm(
            num_groups=groups, epsilon=epsilon, dtype=dtype, name=name
        )
    return linen.BatchNorm(
        use_running_average=kind == "frozen" or not train,
        epsilon=epsilon,
        momentum=momentum,
        dtype=dtype,
        name=name,
    )


class MaskedBatchNorm(linen.Module):
    """Batch norm of [n ... c] whose statistics are those of some rows, `real` [n] bool.

    If none is real the running statistics are used and not updated.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, real, train: bool):
        shape = x.shape[-1:]
        scale = self.param("scale", linen.initializers.ones, shape)
        bias = self.param("bias", linen.initializers.zeros, shape)
        means = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variances = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, variance = means.value, variances.value
        values = x.astype(jnp.float32)
        if train and not self.is_initializing():
            inner = tuple(range(x.ndim - 1))
            some = real.any()
            count = jnp.maximum(real.sum(), 1) * math.prod(x.shape[1:-1])
            seen = jnp.where(real.reshape(-1, *(1,) * (x.ndim - 1)), values, 0.0)
            mean = jnp.where(some, seen.sum(inner) / count, mean)
            apart = (seen**2).sum(inner) / count - mean**2
            variance = jnp.where(some, jnp.maximum(apart, 0.0), variance)
            for kept, new in ((means, mean), (variances, variance)):
                moved = self.momentum * kept.value + (1 - self.momentum) * new
                kept.value = jnp.where(some, moved, kept.value)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return ((values - mean) * factor + bias).astype(self.dtype)
