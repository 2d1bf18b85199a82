"""Losses of maps of numbers, such as depth."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from detjax.losses.elementwise import masked_mean
from detjax.types import Array


def scale_invariant_log(
    predictions: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    scale_free: float = 0.5,
) -> Float[Array, ""]:
    """mean(d^2) - scale_free * mean(d)^2 where `mask` holds, d = log p - log t.

    With `scale_free` 1 a prediction may be any number of times the target, with 0 it is
    the mean squared error of logarithms. `predictions` are above 0 wherever they are
    counted; pixels whose target is not are left out.

    Eigen et al. 2014, equation 4.
    """
    known = mask & (targets > 0)
    apart = jnp.log(jnp.maximum(predictions.astype(jnp.float32), 1e-6))
    apart = apart - jnp.log(jnp.where(known, targets, 1.0))
    return masked_mean(apart**2, known) - scale_free * masked_mean(apart, known) ** 2


def berhu(
    predictions: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    share: float = 0.2,
) -> Float[Array, "*shape"]:
    """The reverse Huber loss: |d| up to a threshold c, (d^2 + c^2) / 2c above.

    Per element; c is `share` of the largest |d| where `mask` holds, and a constant for
    the gradient.

    Laina et al. 2016, equation 3.
    """
    apart = jnp.abs(predictions.astype(jnp.float32) - targets)
    largest = jnp.max(jnp.where(mask, apart, 0.0), initial=0.0)
    c = jnp.maximum(share * jax.lax.stop_gradient(largest), 1e-6)
    return jnp.where(apart <= c, apart, (apart**2 + c**2) / (2 * c))
