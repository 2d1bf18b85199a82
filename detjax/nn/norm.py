"""Normalisation by name: what `norm='batch' | 'frozen' | 'group'` means."""

from typing import Any

import jax.numpy as jnp
from flax import linen

KINDS = ("batch", "frozen", "group")


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
             stay parameters: an optimiser that must not move them is told so by name.
    group    32 groups (fewer where channels do not divide), no running statistics.

    Statistics are float32 whatever `dtype` is. Ioffe and Szegedy 2015; Wu and He 2018.
    Raises ValueError for any other kind.
    """
    if kind not in KINDS:
        raise ValueError(f"norm={kind!r} is not known; choose one of {KINDS}")
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
