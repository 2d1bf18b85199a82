"""Overlapping tiles of a picture, and maps of them blended into one.

Shape legend:

    b        images
    h, w     height and width of the picture
    gh, gw   of a grid that spans it
    k        channels
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.types import Array

# Pixels that tiles lie a multiple of apart, so that coarser maps of them lie on one
# grid.
ALIGNED = 32


class Grid(NamedTuple):
    """The grid of what is blended: a part of the pixels of a picture."""

    size: tuple[int, int]  # (gh, gw)
    steps: tuple[int, int]  # pixels between its places
    # What each place of a tile counts by, before the sum over tiles is divided by
    # that of these windows.
    window: np.ndarray  # [th tw] float32, above 0
    total: np.ndarray  # [gh gw] float32


class Tiling(NamedTuple):
    """Tiles of one size, in rows and columns, that cover a picture."""

    size: tuple[int, int]  # (h, w) of the picture
    tile: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def places(self) -> np.ndarray:
        """The first row and column [n 2] of each tile."""
        return np.array([(y, x) for y in self.tops for x in self.lefts], np.int32)

    def grid(self, shape: tuple[int, int], corners: bool) -> Grid | None:
        """The grid of the picture, whose tiles have maps of `shape`.

        With `corners` the outermost centres of a map lie upon those of its tile. None
        where the maps of tiles do not lie on one grid.
        """
        sides = [
            _side(*side, corners)
            for side in zip(
                self.size, self.tile, (self.tops, self.lefts), shape, strict=True
            )
        ]
        if None in sides:
            return None
        (rows, down, tall, high), (columns, across, wide, long) = sides  # type: ignore[misc]
        window, total = np.outer(tall, wide), np.outer(high, long)
        return Grid(
            (rows, columns),
            (down, across),
            window.astype(np.float32),
            total.astype(np.float32),
        )


class Stitched(NamedTuple):
    """How the answers to tiles become one."""

    blank: Any  # before the first
    add: Callable[[Any, Any, Array], Any]  # (sums, answer, place [2]) -> sums
    done: Callable[[Any], Any]  # (sums) -> the answer to the whole
    fine: bool = False  # pixel by pixel: answers to tiles do not lie on one grid


def tiling(size: tuple[int, int], tile: tuple[int, int], step: int) -> Tiling:
    """Tiles of a picture of `size` (h, w), at most `step` pixels apart; see `spread`.

    The picture is as large as `covered` makes it.
    """
    tops, lefts = (
        tuple(range(0, whole - side + 1, spread(whole, side, step)))
        for whole, side in zip(size, tile, strict=True)
    )
    return Tiling(size, tile, tops, lefts)


def spread(side: int, tile: int, step: int) -> int:
    """The pixels between the tiles of a side, as few tiles as `step` allows.

    Evenly, in multiples of ALIGNED pixels as far as `step` is one, so that less than
    that is filled up for each tile but the first.
    """
    gaps = max(-(-(side - tile) // step), 1)
    even = -(-(side - tile) // gaps)
    return min(max(-(-even // ALIGNED), 1) * ALIGNED, step)


def covered(side: int, tile: int, step: int) -> int:
    """The least pixels from `side` on that such tiles cover."""
    apart = spread(side, tile, step)
    return tile + max(-(-(side - tile) // apart), 0) * apart


def blended(
    grid: Grid,
    batch: int,
    channels: int,
    values: Callable[[Any], Array],
    done: Callable[[Array], Any],
    fine: bool = False,
) -> Stitched:
    """The mean of what `values` [b th tw k] makes of tiles' answers, window by window.

    done: ([b gh gw k]) -> the answer to the whole
    """
    blank = jnp.zeros((batch, *grid.size, channels), jnp.float32)
    steps = jnp.array(grid.steps)

    def add(sums: Array, answer: Any, place: Array) -> jax.Array:
        part = values(answer) * grid.window[:, :, None]
        y, x = place // steps
        start = (0, y, x, 0)
        held = jax.lax.dynamic_slice(sums, start, part.shape)
        return jax.lax.dynamic_update_slice(sums, held + part, start)

    return Stitched(blank, add, lambda sums: done(sums / grid.total[:, :, None]), fine)


def _side(
    whole: int, tile: int, starts: tuple[int, ...], count: int, corners: bool
) -> tuple[int, int, np.ndarray, np.ndarray] | None:
    """Places and pixels between them, a tile's window and the sum of all, of a side."""
    spans, gaps = (tile - 1, count - 1) if corners else (tile, count)
    if gaps < 1 or spans % gaps:
        return None
    step = spans // gaps
    last = starts[-1]
    if any(start % step for start in starts) or last + tile != whole:
        return None
    size = last // step + count
    window = _window(count, (tile - starts[1]) / step if len(starts) > 1 else 0)
    total = np.zeros(size)
    for start in starts:
        total[start // step : start // step + count] += window
    return size, step, window, total


def _window(count: int, overlap: float) -> np.ndarray:
    """What `count` places count: less towards the ends, as far as tiles overlap."""
    end = np.minimum(np.arange(count), np.arange(count)[::-1]) + 0.5
    share = np.clip(end / overlap, 0, 1) if overlap >= 1 else np.ones(count)
    return np.maximum(np.sin(share * np.pi / 2) ** 2, 1e-3)
