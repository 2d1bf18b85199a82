"""The answers to overlapping tiles of a picture as one answer."""

import jax
import jax.numpy as jnp

from detjax.ops import resize
from detjax.ops.tiling import Stitched, Tiling, blended
from detjax.tasks.segmentation.answers import LEAST
from detjax.types import LabelScores


def stitch(answer: LabelScores, tiling: Tiling) -> Stitched:
    """How answers like `answer` (shapes) to tiles become one: by mean probabilities.

    On the grid of the tiles' logits where the tiles lie on it, else on that of pixels.
    The answer's logits are the logarithms of what is blended.
    """
    corners = answer.corners
    grid = tiling.grid(answer.logits.shape[1:3], corners)
    fine = grid is None
    if grid is None:
        grid = tiling.grid(tiling.tile, False)
        assert grid is not None

    def scores(one: LabelScores) -> jax.Array:
        found = jax.nn.softmax(one.logits)
        if not fine:
            return found
        return jax.vmap(lambda x: resize.bilinear(x, tiling.tile, corners))(found)

    def done(total: jax.Array) -> LabelScores:
        logits = jnp.log(jnp.maximum(total, LEAST))
        return LabelScores(logits, tiling.size, corners and not fine)

    batch, *_, classes = answer.logits.shape
    return blended(grid, batch, classes, scores, done, fine)
