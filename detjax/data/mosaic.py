"""Mosaics: four pictures in one input (Bochkovskiy et al. 2020, YOLOv4, sec. 3.3).

The input is divided into four at a random point, and each part shows a picture of its
own, augmented as if it were alone, with a corner at that point. Where a picture does
not reach the edge of its part the fill colour is seen.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from detjax.data.frames import Frame, scaling
from detjax.data.sizing import Resize
from detjax.settings import Count, Fraction, Span
from detjax.types import Array

PICTURES = 4
# The dividing point lies in this range of the input's sides.
_MIDDLE = (0.25, 0.75)


class Layout:
    """The parts of one mosaic in an input of `size` (h, w), and its scale."""

    def __init__(
        self, rng: np.random.Generator, size: tuple[int, int], span: tuple[float, float]
    ):
        h, w = size
        y, x = (round(s * rng.uniform(*_MIDDLE)) for s in size)
        self.scale = float(rng.uniform(*span))
        # Upper left, upper right, lower left, lower right; (x1, y1, x2, y2).
        self.windows = [(0, 0, x, y), (x, 0, w, y), (0, y, x, h), (x, y, w, h)]

    def place(self, number: int, frame: Frame, fit: Resize, whole: bool) -> Frame:
        """`frame` in part `number`, from the part's own corner.

        Its size is that which `fit` would give it alone, times the scale. `whole` tells
        whether it is a whole picture, to which a scale of `fit` applies.
        """
        h, w = frame.size
        sy, sx = fit.size[0] / h, fit.size[1] / w
        if whole and fit.scale is not None:
            sx = sy = fit.scale
        elif fit.letterbox:
            sx = sy = min(sx, sy)
        sx, sy = sx * self.scale, sy * self.scale
        x1, y1, x2, y2 = self.windows[number]
        # Pictures on the left and at the top end at the dividing point.
        dx = 0 if number % 2 else x2 - x1 - sx * w
        dy = 0 if number > 1 else y2 - y1 - sy * h
        return Frame(scaling(sx, sy, dx, dy) @ frame.matrix, (y2 - y1, x2 - x1))


@dataclasses.dataclass(frozen=True)
class Mosaic:
    """Which rows of which batches are mosaics; see `mosaic`."""

    probability: float
    span: tuple[float, float]
    until: int | None

    def others(
        self, rng: np.random.Generator, batch: int, records: int
    ) -> tuple[int, ...]:
        """The further three of `records` in a row of batch number `batch`; () for none.

        Any of them, also the row's own.
        """
        if self.until is not None and batch >= self.until:
            return ()
        if rng.random() >= self.probability:
            return ()
        return tuple(rng.integers(records, size=PICTURES - 1).tolist())

    def layout(self, rng: np.random.Generator, size: tuple[int, int]) -> Layout:
        """A random layout in an input of `size` (h, w)."""
        return Layout(rng, size, self.span)


def mosaic(
    *,
    mosaic: Fraction = 0.0,
    mosaic_scale: Span = (0.5, 1.0),
    mosaic_until: Count | None = None,
) -> Mosaic | None:
    """The mosaics of a run; None for none.

    mosaic: the probability that an image of a batch is made of four.
    mosaic_scale: the range of their size, as a share of what they have alone.
    mosaic_until: the step after which there are none; None is never.

    Three more pictures are read and decoded for each; one is in memory at a time.
    """
    return Mosaic(mosaic, mosaic_scale, mosaic_until) if mosaic else None


def interleaved(parts: Iterable[Array]) -> Array:
    """Rows of several lists by turns: the first of each, then the second of each."""
    parts = list(parts)
    ranks = np.concatenate([np.arange(len(part)) for part in parts])
    return np.concatenate(parts)[np.argsort(ranks, kind="stable")]
