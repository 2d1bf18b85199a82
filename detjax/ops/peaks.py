"""The highest peaks of maps of points.

Shape legend:

    mh, mw   height and width of a map
    c        classes
    k        peaks
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from detjax.ops.ranking import top_k
from detjax.types import Array


class Peaks(NamedTuple):
    """Places of a map, by falling score."""

    scores: Float[Array, "k"]
    labels: Int[Array, "k"]
    x: Int[Array, "k"]  # column
    y: Int[Array, "k"]  # row


def highest(heat: Float[Array, "mh mw c"], k: int, window: int = 3) -> Peaks:
    """The `k` highest of the cells that nothing exceeds within `window` cells.

    Of all classes together. Where there are fewer the others follow, with a score of 0.
    Of equal ones the lower class goes first, then the upper row, then the left column.

    Law and Deng 2018 (CornerNet), section 4.1; Zhou et al. 2019 (CenterNet), section 3.
    """
    h, w, c = heat.shape
    around = jax.lax.reduce_window(
        jax.lax.stop_gradient(heat),
        jnp.asarray(-jnp.inf, heat.dtype),
        jax.lax.max,
        (window, window, 1),
        (1, 1, 1),
        "SAME",
    )
    kept = jnp.where(around == heat, heat, 0)
    scores, place = top_k(jnp.moveaxis(kept, -1, 0).ravel(), min(k, h * w * c))
    label, cell = jnp.divmod(place, h * w)
    y, x = jnp.divmod(cell, w)
    return Peaks(scores, label, x, y)
