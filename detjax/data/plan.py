"""Which record stands at which place of a stream, and what input size it goes to.

Nothing here reads pixels: sizes, a seed and a position decide. So every process can ask
for any place, and all of them see one stream.
"""

import bisect
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.errors import UserError

# What of a config's data section decides how pictures are brought into the input.
KEYWORDS = ("size", "buckets", "short_side", "long_side", "letterbox")
# Padding shares that differ by less are taken to be equal.
TOLERANCE = 0.01
# Small data sets are planned some epochs at a time: as many as show this many images.
ROUND = 16_384


class Fit(NamedTuple):
    """How an image is brought into its input.

    size       (h, w) of the input, in pixels
    letterbox  keep the aspect ratio and fill up, instead of stretching
    scale      input pixels an image pixel, both ways; None is what fills the input
    """

    size: tuple[int, int]
    letterbox: bool
    scale: float | None = None


class Sizes(NamedTuple):
    """The declared input sizes, and the rule by which an image finds its own.

    buckets      (h, w) of each
    letterbox    see `Fit`; several buckets or a short side always keep the aspect
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
        """Whether an image's own size plays a part."""
        return len(self.buckets) > 1 or bool(self.short_sides)

    def scales(self, images: np.ndarray, short: int = -1) -> np.ndarray:
        """The scale [n] that short side number `short` asks of `images` [n 2]."""
        images = np.maximum(images, 1)
        scales = self.short_sides[short] / images.min(axis=1)
        if self.long_side is not None:
            scales = np.minimum(scales, self.long_side / images.max(axis=1))
        return scales

    def options(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The buckets that each of `images` [n 2], (h, w), may go to.

        They are numbers [n k], of which the first count [n] are meant. Training draws
        among them; evaluation takes the last.

        With short sides there is one option for each of them: the smallest bucket that
        holds the scaled image, or where none does the one in which it stays largest.
        Without, options are the buckets with the least padding, smallest first.
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
        # Of buckets that leave an image equally large the smallest is taken.
        most = fills >= fills.max(axis=1, keepdims=True) * (1 - 1e-9)
        largest = np.where(most, areas, np.inf).argmin(axis=1)
        return np.where(holds.any(axis=1), smallest, largest)

    def _fills(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scales [n b] at which images fill the buckets, and the buckets' areas."""
        buckets = np.array(self.buckets, np.float64)
        return (buckets / np.maximum(images, 1)[:, None]).min(axis=2), buckets.prod(1)

    def fit(self, image: Sequence[int], bucket: int, short: int = -1) -> Fit:
        """How an image of size (h, w) `image` is brought into bucket number `bucket`.

        It may be any bucket: what it cannot hold is scaled down until it does.
        """
        h, w = self.buckets[bucket]
        keep = self.letterbox or len(self.buckets) > 1
        if not self.short_sides:
            return Fit((h, w), keep)
        rows, columns = max(int(image[0]), 1), max(int(image[1]), 1)
        wanted = float(self.scales(np.array([[rows, columns]]), short)[0])
        return Fit((h, w), True, min(wanted, h / rows, w / columns))


def sizes(
    *,
    size: Sequence[int] | None = None,
    buckets: Sequence[Sequence[int]] | None = None,
    short_side: int | Sequence[int] | None = None,
    long_side: int | None = None,
    letterbox: bool = False,
) -> Sizes:
    """What these keywords of a config's data section declare.

    Raises UserError where they contradict one another or hold no sizes.
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
        if not _whole(one, 2):
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
        if not _whole([side], 1):
            raise UserError(
                f"{side!r} in data.short_side or data.long_side is not a whole number "
                "above 0"
            )
    return Sizes(
        buckets=pairs,
        letterbox=letterbox or buckets is not None,
        short_sides=tuple(map(int, sides)),
        long_side=long_side,
    )


def _whole(numbers: Any, count: int) -> bool:
    """Whether `numbers` are `count` whole numbers above 0."""
    return (
        isinstance(numbers, Sequence)
        and len(numbers) == count
        and all(isinstance(n, int | np.integer) and n > 0 for n in numbers)
    )


def _shown(value: Any) -> str:
    """`value` as a config's file would have it."""
    return repr(tuple(value) if isinstance(value, list) else value)


def fit_for(
    h: int,
    w: int,
    *,
    size: Sequence[int] | None = None,
    buckets: Sequence[Sequence[int]] | None = None,
    short_side: int | Sequence[int] | None = None,
    long_side: int | None = None,
    letterbox: bool = False,
) -> Fit:
    """How one image of h x w pixels is brought into its input, as evaluation does it.

    The keywords are those of a config's data section; see `sizes`.
    """
    declared = sizes(
        size=size,
        buckets=buckets,
        short_side=short_side,
        long_side=long_side,
        letterbox=letterbox,
    )
    options, count = declared.options(np.array([[h, w]]))
    return declared.fit((h, w), int(options[0, count[0] - 1]))


class Place(NamedTuple):
    """What stands at one place of a stream."""

    record: int  # its index in the source
    bucket: int
    short: int = -1  # the number of the short side that was drawn
    valid: bool = True  # False for a repeat that only fills up a batch


class _Table(NamedTuple):
    """Places as columns, all of one length."""

    record: np.ndarray
    bucket: np.ndarray
    short: np.ndarray

    def take(self, rows: np.ndarray) -> "_Table":
        return _Table(*(column[rows] for column in self))


class Plan:
    """The endless stream of a training run: `plan[position]` is a `Place`.

    An epoch draws every record once, in an order, a short side and, where several do as
    well, a bucket that are drawn anew. With one bucket its places are the stream's.
    With several each `batch_size` places from a multiple of it share a bucket, and a
    batch comes when its bucket has drawn so many: what is left over waits for later
    epochs. So all records are shown equally often but for what waits, while a batch of
    a bucket that has fewer records than a batch shows some of them more than once.

    `images` [n 2] are the records' (h, w); where sizes play no part, only their number
    counts.
    """

    def __init__(self, images: np.ndarray, sizes: Sizes, *, batch_size: int, seed: int):
        if not len(images):
            raise UserError("there is no image to train on")
        self._batch, self._seed = batch_size, seed
        self._buckets, self._shorts = len(sizes.buckets), len(sizes.short_sides)
        self._options, self._counts = sizes.options(images)
        self._epochs = -(-ROUND // len(images))  # in a round
        # Of each round that was reached: its first place, what it had left over from
        # the rounds before. Those alone are kept, and the tables last asked for.
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
        return self._buckets == 1

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
        """Keeps a round's table, and that of another round, which may go on beside."""
        self._tables = dict([*self._tables.items()][-1:]) | {number: table}

    def _planned(self, number: int) -> tuple[_Table, _Table]:
        """The places of a round, and what is left over of them."""
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
        # A batch comes when its last image has: buckets are mixed as in the data.
        rows = rows[np.argsort(rows[:, -1])].ravel()
        return table.take(rows), table.take(np.sort(np.concatenate(rest)))

    def _drawn(self, rng: np.random.Generator) -> _Table:
        """The images of a round in their order, with what is drawn for each."""
        count = len(self._counts)
        each = np.tile(np.arange(count, dtype=np.int32), (self._epochs, 1))
        record = rng.permuted(each, axis=1).ravel()
        drawn = rng.random(len(record)) * self._counts[record]
        option = drawn.astype(np.int32)
        bucket = self._options[record, option].astype(np.int32)
        short = option if self._shorts else np.full_like(option, -1)
        return _Table(record, bucket, short)


def once(images: np.ndarray, sizes: Sizes, batch_size: int) -> list[Place]:
    """The places of an evaluation: every record once, bucket by bucket, in order.

    Each bucket's are filled up to whole batches with repeats that are not `valid`.
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
