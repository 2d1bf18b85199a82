"""The sizes of a network's inputs, and which of them an image is brought to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.errors import UserError

# Settings of a config's data section that determine how images are resized.
KEYWORDS = ("size", "buckets", "short_side", "long_side", "letterbox", "fill")
# The colour of padding: ImageNet's mean, which normalisation turns into zeros.
FILL = (124, 117, 104)
# Padding shares that differ by less are considered equal.
TOLERANCE = 0.01
# The third number of the seeds of drawn sizes; the streams of `data.rows` have others.
_SIZE = 7


class Resize(NamedTuple):
    """How an image is resized to its input.

    size       (h, w) of the input, in pixels
    letterbox  keep the aspect ratio and pad, instead of stretching
    scale      input pixels per image pixel, both ways; None fits the input
    fill       RGB of what the image does not cover
    """

    size: tuple[int, int]
    letterbox: bool
    scale: float | None = None
    fill: tuple[int, int, int] = FILL


class InputSizes(NamedTuple):
    """The declared input sizes, and the rule that assigns one to an image.

    buckets      (h, w) of each
    letterbox    see `Resize`; several buckets or a short side always keep the aspect
    short_sides  pixels that an image's short side gets, one drawn an image; () for
                 images that are made as large as their bucket lets them
    long_side    pixels that its long side may not exceed then, or None
    every        batches of training that have one size, whatever their images are: a
                 bucket is drawn for so many; None for buckets that suit the images
    fill         see `Resize`
    """

    buckets: tuple[tuple[int, int], ...]
    letterbox: bool = False
    short_sides: tuple[int, ...] = ()
    long_side: int | None = None
    every: int | None = None
    fill: tuple[int, int, int] = FILL

    @property
    def suited(self) -> bool:
        """Whether there are several buckets, of which each image gets its own."""
        return len(self.buckets) > 1 and self.every is None

    @property
    def need_images(self) -> bool:
        """Whether the image's own size matters."""
        return self.suited or bool(self.short_sides)

    def drawn(self, seed: int, batch: int) -> int:
        """The bucket of batch number `batch` of a run, where buckets are drawn."""
        assert self.every is not None
        rng = np.random.default_rng([seed, batch // self.every, _SIZE])
        return int(rng.integers(len(self.buckets)))

    def scales(self, images: np.ndarray, short: int = -1) -> np.ndarray:
        """The scale [n] of `images` [n 2] at short side number `short`."""
        images = np.maximum(images, 1)
        scales = self.short_sides[short] / images.min(axis=1)
        if self.long_side is not None:
            scales = np.minimum(scales, self.long_side / images.max(axis=1))
        return scales

    def options(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bucket candidates of each of `images` [n 2], (h, w).

        Returns indices [n k] and counts [n] of valid ones. Training draws among them;
        evaluation takes the last.

        With short sides there is one candidate each: the smallest bucket that holds the
        scaled image, or if none does, the one in which it stays largest. Without,
        candidates are the buckets with the least padding, smallest first.
        """
        if self.short_sides:
            columns = [self._held(images, i) for i in range(len(self.short_sides))]
            return np.stack(columns, 1), np.full(len(images), len(columns))
        if self.every is not None:
            return np.zeros((len(images), 1), np.int64), np.ones(len(images), np.int64)
        fills, areas = self._fills(images)
        padding = 1 - fills**2 * np.maximum(images, 1).prod(axis=1)[:, None] / areas
        equal = padding <= padding.min(axis=1, keepdims=True) + TOLERANCE
        ranks = np.where(equal, areas, np.inf)
        return np.argsort(ranks, axis=1, kind="stable"), equal.sum(axis=1)

    def _held(self, images: np.ndarray, short: int) -> np.ndarray:
        """The bucket [n] of each image at short side number `short`."""
        fills, areas = self._fills(images)
        holds = fills >= self.scales(images, short)[:, None] * (1 - 1e-9)
        smallest = np.where(holds, areas, np.inf).argmin(axis=1)
        # Ties in scale are broken by the smallest bucket.
        most = fills >= fills.max(axis=1, keepdims=True) * (1 - 1e-9)
        largest = np.where(most, areas, np.inf).argmin(axis=1)
        return np.where(holds.any(axis=1), smallest, largest)

    def _fills(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scales [n b] at which images fit the buckets, and the buckets' areas."""
        buckets = np.array(self.buckets, np.float64)
        return (buckets / np.maximum(images, 1)[:, None]).min(axis=2), buckets.prod(1)

    def resize(self, image: Sequence[int], bucket: int, short: int = -1) -> Resize:
        """The resize of an image of size (h, w) `image` into bucket number `bucket`.

        Any bucket works: an image that is too large is scaled down until it fits.
        """
        h, w = self.buckets[bucket]
        keep = self.letterbox or self.suited
        if not self.short_sides:
            return Resize((h, w), keep, fill=self.fill)
        rows, columns = max(int(image[0]), 1), max(int(image[1]), 1)
        wanted = float(self.scales(np.array([[rows, columns]]), short)[0])
        return Resize((h, w), True, min(wanted, h / rows, w / columns), self.fill)


def input_sizes(
    *,
    size: Sequence[int] | None = None,
    buckets: Sequence[Sequence[int]] | None = None,
    short_side: int | Sequence[int] | None = None,
    long_side: int | None = None,
    letterbox: bool = False,
    fill: Sequence[int] = FILL,
) -> InputSizes:
    """The input sizes declared by keywords of a config's data section.

    Raises UserError if they conflict or are not sizes.
    """
    if (size is None) == (buckets is None):
        raise UserError(
            f"data.size is {_shown(size)} and data.buckets is {_shown(buckets)}; set "
            "one of them, the other to None"
        )
    declared = [size] if buckets is None else list(buckets)
    if not declared:
        raise UserError("data.buckets is empty; declare at least one (height, width)")
    for one in declared:
        if not _are_counts(one, 2):
            raise UserError(
                f"{_shown(one)} in data.{'size' if buckets is None else 'buckets'} is "
                "not a (height, width) of whole numbers above 0"
            )
    pairs = tuple((int(h), int(w)) for h, w in declared)
    if len(set(pairs)) < len(pairs):
        raise UserError(f"data.buckets names a size twice: {_shown(pairs)}")
    if short_side is None and long_side is not None:
        raise UserError(
            f"data.long_side={long_side} limits data.short_side, which is None; set it"
        )
    sides = [short_side] if isinstance(short_side, int) else list(short_side or ())
    for side in sides if long_side is None else [*sides, long_side]:
        if not _are_counts([side], 1):
            raise UserError(
                f"{side!r} in data.short_side or data.long_side is not a whole number "
                "above 0"
            )
    return InputSizes(
        buckets=pairs,
        letterbox=letterbox or buckets is not None,
        short_sides=tuple(map(int, sides)),
        long_side=long_side,
        fill=_colour(fill),
    )


def changing(
    sizes: InputSizes, others: Sequence[Sequence[int]] | None, every: int
) -> InputSizes:
    """`sizes` of evaluation as those of training: one of `others` for `every` batches.

    None is the same sizes. Raises UserError where there is not one size to change.

    Redmon and Farhadi 2017 (YOLO9000), section 2, "multi-scale training".
    """
    if others is None:
        return sizes
    if len(sizes.buckets) > 1 or sizes.short_sides:
        raise UserError(
            "data.sizes changes the size of training from time to time, and "
            "data.buckets and data.short_side fit it to the images; set one of them"
        )
    pairs = tuple(dict.fromkeys((int(h), int(w)) for h, w in others))
    return sizes._replace(buckets=pairs, every=every)


def _colour(fill: Sequence[int]) -> tuple[int, int, int]:
    red, green, blue = map(int, fill)
    return red, green, blue


def _are_counts(numbers: Any, count: int) -> bool:
    """Whether `numbers` are `count` positive integers."""
    return (
        isinstance(numbers, Sequence)
        and len(numbers) == count
        and all(isinstance(n, int | np.integer) and n > 0 for n in numbers)
    )


def _shown(value: Any) -> str:
    """`value` as a config file spells it."""
    return repr(tuple(value) if isinstance(value, list) else value)


def resize_for(
    h: int,
    w: int,
    *,
    size: Sequence[int] | None = None,
    buckets: Sequence[Sequence[int]] | None = None,
    short_side: int | Sequence[int] | None = None,
    long_side: int | None = None,
    letterbox: bool = False,
    fill: Sequence[int] = FILL,
) -> Resize:
    """The resize of an image of h x w pixels at evaluation.

    The keywords are those of a config's data section; see `sizes`.
    """
    declared = input_sizes(
        size=size,
        buckets=buckets,
        short_side=short_side,
        long_side=long_side,
        letterbox=letterbox,
        fill=fill,
    )
    options, count = declared.options(np.array([[h, w]]))
    return declared.resize((h, w), int(options[0, count[0] - 1]))
