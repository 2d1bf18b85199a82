"""The sampler: the record at each place of a stream, and its input size.

Nothing here reads pixels: a place depends on the sizes, a seed and the position, so
every process can compute any place and all see the same stream.
"""

import bisect
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.data import repeats as repeating
from detjax.errors import UserError

# Settings of a config's data section that determine how images are resized.
KEYWORDS = ("size", "buckets", "short_side", "long_side", "letterbox")
# Padding shares that differ by less are considered equal.
TOLERANCE = 0.01
# Small data sets are planned several epochs at a time, at least this many images.
ROUND = 16_384


class Resize(NamedTuple):
    """How an image is resized to its input.

    size       (h, w) of the input, in pixels
    letterbox  keep the aspect ratio and pad, instead of stretching
    scale      input pixels per image pixel, both ways; None fits the input
    """

    size: tuple[int, int]
    letterbox: bool
    scale: float | None = None


class InputSizes(NamedTuple):
    """The declared input sizes, and the rule that assigns one to an image.

    buckets      (h, w) of each
    letterbox    see `Resize`; several buckets or a short side always keep the aspect
    short_sides  pixels that an image's short side gets, one drawn an image; () for
                 images that are made as large as their bucket lets them
    long_side    pixels that its long side may not exceed then, or None
    """

    buckets: tuple[tuple[int, int], ...]
    letterbox: bool = False
    short_sides: tuple[int, ...] = ()
    long_side: int | None = None

    @property
    def need_images(self) -> bool:
        """Whether the image's own size matters."""
        return len(self.buckets) > 1 or bool(self.short_sides)

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
        keep = self.letterbox or len(self.buckets) > 1
        if not self.short_sides:
            return Resize((h, w), keep)
        rows, columns = max(int(image[0]), 1), max(int(image[1]), 1)
        wanted = float(self.scales(np.array([[rows, columns]]), short)[0])
        return Resize((h, w), True, min(wanted, h / rows, w / columns))


def input_sizes(
    *,
    size: Sequence[int] | None = None,
    buckets: Sequence[Sequence[int]] | None = None,
    short_side: int | Sequence[int] | None = None,
    long_side: int | None = None,
    letterbox: bool = False,
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
    )


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
    )
    options, count = declared.options(np.array([[h, w]]))
    return declared.resize((h, w), int(options[0, count[0] - 1]))


class Place(NamedTuple):
    """One place of a stream."""

    record: int  # its index in the source
    bucket: int
    short: int = -1  # the number of the short side that was drawn
    valid: bool = True  # False for a repeat that only pads a batch


class _Table(NamedTuple):
    """Places as columns, all of one length."""

    record: np.ndarray
    bucket: np.ndarray
    short: np.ndarray

    def take(self, rows: np.ndarray) -> "_Table":
        return _Table(*(column[rows] for column in self))


class Plan:
    """The endless stream of a training run: `plan[position]` is a `Place`.

    Each epoch visits every record once in a new random order, with a new short side
    and, among equally good buckets, a new bucket. With one bucket this order is the
    stream. With several, each aligned run of `batch_size` places shares a bucket, and a
    batch is emitted once its bucket has that many records; the remainder is carried
    over to later epochs. All records are thus shown equally often, except for the
    remainder; a bucket with fewer records than a batch repeats some within a batch.

    `images` [n 2] are the records' (h, w); where sizes are not needed, only n matters.
    With `repeats` [n] an epoch shows each image so often; see `repeats.factors`.
    """

    def __init__(
        self,
        images: np.ndarray,
        sizes: InputSizes,
        *,
        batch_size: int,
        seed: int,
        repeats: np.ndarray | None = None,
    ):
        if not len(images):
            raise UserError("there is no image to train on")
        self._batch, self._seed, self._repeats = batch_size, seed, repeats
        self._buckets, self._shorts = len(sizes.buckets), len(sizes.short_sides)
        self._options, self._counts = sizes.options(images)
        self._epochs = -(-ROUND // len(images))  # in a round
        # For each round reached: its first place and the remainder of earlier rounds.
        # Only these and the most recently used tables are kept.
        self._starts = [0]
        self._carried = [_Table(*(np.zeros(0, np.int32) for _ in range(3)))]
        self._tables: dict[int, _Table] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_tables")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _tables={})

    def __getitem__(self, position: int) -> Place:
        with self._lock:
            number = self._round_of(position)
            table = self._table(number)
            row = position - self._start(number)
        record, bucket, short = (int(column[row]) for column in table)
        return Place(record, bucket, short)

    @property
    def _single(self) -> bool:
        """Whether all rounds are of one length, and nothing is carried over."""
        return self._buckets == 1 and self._repeats is None

    def _start(self, number: int) -> int:
        if self._single:
            return number * self._epochs * len(self._counts)
        return self._starts[number]

    def _round_of(self, position: int) -> int:
        if self._single:
            return position // (self._epochs * len(self._counts))
        while self._starts[-1] <= position:
            number = len(self._starts) - 1
            table, rest = self._planned(number)
            self._remember(number, table)
            self._starts.append(self._starts[-1] + len(table.record))
            self._carried.append(rest)
        return bisect.bisect_right(self._starts, position) - 1

    def _table(self, number: int) -> _Table:
        if number not in self._tables:
            self._remember(number, self._planned(number)[0])
        return self._tables[number]

    def _remember(self, number: int, table: _Table) -> None:
        """Caches a round's table, and one other that may be in use concurrently."""
        self._tables = dict([*self._tables.items()][-1:]) | {number: table}

    def _planned(self, number: int) -> tuple[_Table, _Table]:
        """The places of a round, and the remainder."""
        rng = np.random.default_rng([self._seed, number])
        drawn = self._drawn(rng)
        if self._single:
            return drawn, drawn.take(np.zeros(0, np.int64))
        table = _Table(
            *map(np.concatenate, zip(self._carried[number], drawn, strict=True))
        )
        batches, rest = [], []
        for bucket in range(self._buckets):
            rows = np.flatnonzero(table.bucket == bucket)
            whole = len(rows) - len(rows) % self._batch
            batches.append(rows[:whole].reshape(-1, self._batch))
            rest.append(rows[whole:])
        rows = np.concatenate(batches)
        # A batch is emitted with its last image, so buckets mix as in the data.
        rows = rows[np.argsort(rows[:, -1])].ravel()
        return table.take(rows), table.take(np.sort(np.concatenate(rest)))

    def _drawn(self, rng: np.random.Generator) -> _Table:
        """The images of a round in order, with the draws for each."""
        count = len(self._counts)
        if self._repeats is None:
            each = np.tile(np.arange(count, dtype=np.int32), (self._epochs, 1))
            record = rng.permuted(each, axis=1).ravel()
        else:
            epochs = [repeating.epoch(rng, self._repeats) for _ in range(self._epochs)]
            record = np.concatenate(epochs)
        drawn = rng.random(len(record)) * self._counts[record]
        option = drawn.astype(np.int32)
        bucket = self._options[record, option].astype(np.int32)
        short = option if self._shorts else np.full_like(option, -1)
        return _Table(record, bucket, short)


def once(images: np.ndarray, sizes: InputSizes, batch_size: int) -> list[Place]:
    """The places of an evaluation: every record once, bucket by bucket, in order.

    Each bucket is padded to full batches with repeats that are not `valid`.
    """
    options, counts = sizes.options(images)
    buckets = options[np.arange(len(images)), counts - 1]
    places = []
    for bucket in range(len(sizes.buckets)):
        records = np.flatnonzero(buckets == bucket).tolist()
        places += [Place(record, bucket) for record in records]
        missing = -len(records) % batch_size
        places += [Place(r, bucket, valid=False) for r in records[-1:] * missing]
    return places
