"""The sampler: the record at each place of a stream, and its input size.

Nothing here reads pixels: a place depends on the sizes, a seed and the position, so
every process can compute any place and all see the same stream.
"""

import bisect
import threading
from typing import Any, NamedTuple

import numpy as np

from detjax.data import repeats as repeating
from detjax.data.sizing import InputSizes
from detjax.errors import UserError

# Small data sets are planned several epochs at a time, at least this many images.
ROUND = 16_384


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
    over to later epochs. Where buckets are drawn for batches the order is the stream
    too. All records are thus shown equally often, except for the
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
        self._drawn_sizes = sizes if sizes.every is not None else None
        self._buckets = len(sizes.buckets) if sizes.suited else 1
        self._shorts = len(sizes.short_sides)
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
        if self._drawn_sizes is not None:
            bucket = self._drawn_sizes.drawn(self._seed, position // self._batch)
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
