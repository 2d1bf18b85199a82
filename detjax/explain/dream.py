"""DeepDream: a picture in which a network's layers see more of what they see.

    h, w     height and width of the picture
    t        tiles whose gradients are computed at once

Mordvintsev, Olah and Tyka, "Inceptionism", 2015: ascent on the mean square of a layer,
over octaves of the picture, from small to large. Gradients are computed in tiles of one
size, shifted at random before every step so that their borders fall elsewhere: memory
is bounded by the tile whatever the picture's size, and all octaves share one program.
"""

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain import layers, smooth
from detjax.explain.canvas import repeated, span
from detjax.explain.goals import Goal
from detjax.settings import Count, Positive, Whole
from detjax.types import Array, Inputs

SMALLEST = 32  # pixels of the shorter side below which there is no octave


def gradient(
    predict: layers.Predict, goal: Goal
) -> Callable[[Any, Any, Inputs, Array], Array]:
    """(params, state, inputs, tiles [t s s 3] in 0..1) -> gradients of the same shape.

    Each divided by its norm, so that tiles without much to see move as far as others.
    Of `inputs`, one image of s x s pixels, only what the model needs beside images
    matters.
    """

    def call(params: Any, state: Any, inputs: Inputs, tiles: Array) -> Array:
        low, high = span(predict, params, state, inputs)
        many = repeated(inputs, len(tiles))

        def total(tiles: Array) -> Array:
            shown = low + (high - low) * tiles
            see = layers.changed(predict, {layers.IMAGES: lambda _: shown})
            answers, held = layers.seen(see, goal.layers)(params, state, many)
            return goal.amount(answers, held, jnp.zeros(len(tiles), jnp.int32)).sum()

        return jax.vmap(smooth.unit)(jax.grad(total)(tiles))

    return call


def sizes(size: tuple[int, int], octaves: int, scale: float) -> list[tuple[int, int]]:
    """(h, w) of the octaves, the smallest first; none below `SMALLEST`."""
    found = []
    for i in reversed(range(octaves)):
        h, w = (max(round(n / scale**i), 1) for n in size)
        if min(h, w) >= SMALLEST or i == 0:
            found.append((h, w))
    return found


def dream(
    climb: Callable[[Any], Any],
    picture: np.ndarray,
    *,
    side: int,
    octaves: Count = 5,
    scale: Positive = 1.4,
    steps: Count = 10,
    rate: Positive = 0.01,
    jitter: Whole = 32,
    chunk: Count = 4,
    seed: int = 0,
) -> np.ndarray:
    """`picture` [h w 3] uint8, dreamt into: the same size, uint8.

    climb: tiles [chunk side side 3] float32 in 0..1 -> their gradients; `gradient`,
        jitted, with its first arguments.
    side: of a tile, in pixels.
    octaves: sizes of the picture, each `scale` times the one before.
    scale: between octaves; above 1.
    steps: of the ascent in each octave.
    rate: how far a pixel moves in a step, on average; 1 is from black to white.
    jitter: pixels by which tiles are shifted at random; of a picture of several tiles
        up to a tile.
    chunk: tiles whose gradients are computed at once.
    seed: of the shifts.

    Detail that an octave is too small to hold is put back in the next one.
    """
    if scale <= 1:
        raise UserError(f"scale={scale} does not enlarge; give more than 1, as 1.4")
    rng = np.random.default_rng(seed)
    whole = picture.astype(np.float32) / 255
    h, w = whole.shape[:2]
    plan = sizes((h, w), octaves, scale)
    added = np.zeros((*plan[0], 3), np.float32)
    for size in plan:
        base = resized(whole, size)
        added = resized(added, size)
        for _ in range(steps):
            found = tiled(climb, base + added, side, chunk, rng, jitter)
            added = np.clip(base + added + rate * found, 0, 1) - base
    return np.round(255 * np.clip(base + added, 0, 1)).astype(np.uint8)


def tiled(
    climb: Callable[[Any], Any],
    picture: np.ndarray,
    side: int,
    chunk: int,
    rng: np.random.Generator,
    jitter: int,
) -> np.ndarray:
    """The gradients [h w 3] of a picture, a tile at a time, under a random shift.

    What tiles hold beyond the picture is its mirror image, whose gradients are dropped.
    """
    h, w = picture.shape[:2]
    # Of several tiles any pixel may be a border; of one the shift is the jitter alone.
    most = [side - 1 if n > side else min(jitter, n - 1) for n in (h, w)]
    top, left = (int(rng.integers(0, n + 1)) for n in most)
    rows, columns = (-(-(n + by) // side) for n, by in ((h, top), (w, left)))
    around = cv2.copyMakeBorder(
        picture,
        *(top, rows * side - h - top, left, columns * side - w - left),
        borderType=cv2.BORDER_REFLECT,
    )
    tiles = around.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    tiles = tiles.reshape(-1, side, side, 3)
    # Filled up, so that all calls have one shape.
    count = -(-len(tiles) // chunk) * chunk
    tiles = tiles[np.arange(count) % len(tiles)]
    found = np.concatenate(
        [np.asarray(climb(part)) for part in np.split(tiles, count // chunk)]
    )[: rows * columns]
    found = found.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
    return found.reshape(rows * side, columns * side, 3)[top : top + h, left : left + w]


def resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`x` [h w 3] at another size (h, w)."""
    smaller = size[0] < x.shape[0]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(x, size[::-1], interpolation=kind).reshape(*size, 3)


def zoom(
    dreamt: Callable[[np.ndarray, int], np.ndarray],
    picture: np.ndarray,
    frames: int,
    factor: float = 1.04,
) -> Iterator[np.ndarray]:
    """Frames [h w 3] uint8 of a walk into the dream: each enlarged and dreamt again.

    dreamt: (picture, number of the frame) -> picture.
    factor: by which the middle of a frame is larger in the next.
    """
    h, w = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), 0, factor)
    for number in range(frames):
        picture = dreamt(picture, number)
        yield picture
        picture = cv2.warpAffine(picture, matrix, (w, h), borderMode=cv2.BORDER_REFLECT)
