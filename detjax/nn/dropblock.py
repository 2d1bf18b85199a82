"""Dropout of blocks: neighbours in a map know what a single dropped cell knew.

b, h, w, c  a batch of maps
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax
from jax.typing import ArrayLike


def drop_block(
    key: jax.Array, x: jax.Array, probability: ArrayLike, block: int
) -> jax.Array:
    """Maps [b h w c] with squares of `block` cells set to 0, in each channel others.

    probability: of a cell to be dropped, but for squares that overlap. It may be
        traced, for one that rises while a net learns, as in the paper.

    Squares lie in the map with all their cells; one of the map's shorter side or more
    covers it. What is left of an image is scaled by the share that is left of it, so
    that sums stay what they are; images do not depend on those beside them.

    Ghiasi et al. 2018 (DropBlock), algorithm 1 and equation 1, which scale by the share
    of the batch.
    """
    b, h, w, c = x.shape
    block = max(min(block, h, w), 1)
    rows, columns = h - block + 1, w - block + 1
    rate = probability * (h * w) / (block**2 * rows * columns)
    corners = jax.random.uniform(key, (b, rows, columns, c)) < rate
    whole = (block - 1, block - 1)
    dropped = lax.reduce_window(
        corners,
        False,
        lax.bitwise_or,
        (1, block, block, 1),
        (1, 1, 1, 1),
        ((0, 0), whole, whole, (0, 0)),
    )
    kept = (~dropped).astype(jnp.float32)
    share = kept.mean(axis=(1, 2, 3), keepdims=True)
    scaled = kept / jnp.where(share > 0, share, 1)
    return x * scaled.astype(x.dtype)


def block_of(
    size: tuple[int, int], *, cells: int | None = None, share: float | None = None
) -> int:
    """The side of the squares of maps of `size` (h, w), from 1 to the shorter side.

    cells, share: that side, or what it is of the map's width; one of them. They are
    darknet's dropblock_size_abs and dropblock_size_rel.
    """
    if (cells is None) == (share is None):
        raise ValueError(f"of cells={cells} and share={share} one is to be set")
    wanted = int(share * size[1]) if cells is None else cells  # type: ignore[operator]
    return max(1, min(wanted, *size))


class DropBlock(linen.Module):
    """`drop_block` in training, by random numbers of the stream "dropout".

    probability: see `drop_block`; a call may scale it, by 0 to 1.
    cells, share: see `block_of`.
    """

    probability: float
    cells: int | None = None
    share: float | None = None

    @linen.compact
    def __call__(self, x: Any, train: bool = False, scale: ArrayLike = 1.0) -> Any:
        if not train or self.probability == 0:
            return x
        block = block_of(x.shape[1:3], cells=self.cells, share=self.share)
        key = self.make_rng("dropout")
        return drop_block(key, x, self.probability * scale, block)
