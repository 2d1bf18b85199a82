"""Losses of single elements, unreduced, and masked reductions."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from detjax.types import Array


def masked_mean(
    values: Float[Array, "*shape"], mask: Bool[Array, "*shape"]
) -> Float[Array, ""]:
    """Mean of `values` where `mask` holds; 0 where it holds nowhere.

    What lies outside the mask may be anything finite: it reaches neither the value nor
    the gradient.
    """
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return total / jnp.maximum(jnp.sum(mask), 1)


def weighted_mean(
    values: Float[Array, "b"],
    weights: Float[Array, "b 1"] | None,
    mask: Bool[Array, "b"],
) -> Float[Array, ""]:
    """Mean of `values` where `mask` holds, by `weights`; all count the same for None.

    The sum of weighted values by the sum of weights, as torch's cross entropy has it
    with weights of classes.
    """
    if weights is None:
        return masked_mean(values, mask)
    counted = jnp.where(mask, weights[:, 0], 0.0)
    total = jnp.sum(jnp.where(mask, values, 0.0) * counted)
    return total / jnp.maximum(jnp.sum(counted), 1e-6)


def softmax_cross_entropy(
    logits: Float[Array, "*shape c"], labels: Int[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """-log softmax(logits)[label], per position."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]


def sigmoid_cross_entropy(
    logits: Float[Array, "*shape"], targets: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """-t log s(x) - (1 - t) log(1 - s(x)), per element, without overflow."""
    x = logits.astype(jnp.float32)
    return jnp.maximum(x, 0) - x * targets + jnp.log1p(jnp.exp(-jnp.abs(x)))


def focal(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Array, "*shape"]:
    """-a (1 - q)^gamma log q, q the probability that the sigmoid gives to the target.

    Per element, of targets 0 or 1; a is `alpha` where the target is 1 and 1 - `alpha`
    where it is 0. With gamma = 0 it is half the cross entropy at alpha = 0.5.

    Lin et al. 2017 (RetinaNet), equation 5.
    """
    x = logits.astype(jnp.float32)
    # The logit for what is not the target: its probability is 1 - q.
    against = x * (1 - 2 * targets)
    entropy = jax.nn.softplus(against)
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * jnp.exp(gamma * (against - entropy)) * entropy


def softmax_focal(
    logits: Float[Array, "*shape c"],
    labels: Int[Array, "*shape"],
    gamma: float = 2.0,
) -> Float[Array, "*shape"]:
    """-(1 - p)^gamma log p, p = softmax(logits)[label], per position.

    Lin et al. 2017 (RetinaNet), equation 4, of a softmax.
    """
    entropy = softmax_cross_entropy(logits, labels)
    # 1 - exp(-x) without losing what is small; its power has no gradient at 0.
    miss = jnp.maximum(-jnp.expm1(-entropy), 1e-12)
    return miss**gamma * entropy


def gaussian_focal(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    alpha: float = 2.0,
    beta: float = 4.0,
    least: float = 1e-4,
) -> Float[Array, "*shape"]:
    """The focal loss of maps whose targets fall off around the points that are 1.

    -(1 - p)^alpha log p where the target is 1, -(1 - t)^beta p^alpha log(1 - p)
    elsewhere, per element; p is the logit's sigmoid, clipped to [least, 1 - least],
    beyond which it has no gradient. To be divided by the number of points.

    Law and Deng 2018 (CornerNet), equation 1, with the clipping of its code.
    """
    x = logits.astype(jnp.float32)
    p = jnp.clip(jax.nn.sigmoid(x), least, 1 - least)
    hit = (1 - p) ** alpha * jnp.log(p)
    miss = (1 - targets) ** beta * p**alpha * jnp.log1p(-p)
    return -jnp.where(targets == 1, hit, miss)


def smooth_l1(
    predictions: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    beta: float = 1.0,
) -> Float[Array, "*shape"]:
    """0.5 d^2 / beta where |d| < beta, |d| - 0.5 beta elsewhere, per element.

    Girshick, Fast R-CNN (ICCV 2015), eq. 3, which has beta = 1; beta = 0 is L1.
    """
    distance = jnp.abs(predictions.astype(jnp.float32) - targets)
    if beta == 0:
        return distance
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
