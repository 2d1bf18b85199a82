"""Streams of batches, with grain: what training reads without end, evaluation once.

A batch is a function of (seed, its number) alone: `plan` says which records are in it,
and an example's generator is made of the seed and its place. So the number of threads,
workers and processes changes nothing, and a checkpoint of the position is a checkpoint
of the loader.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import grain
import jax
import numpy as np
from absl import flags

from detjax.data import augment, lint, plan
from detjax.data.example import Prepare, decode
from detjax.data.records import Record, Unreadable
from detjax.types import Batch

__all__ = ["Prepare", "decode", "eval_loader", "train_loader"]


def train_loader(
    source: Sequence[Record],
    prepare: Prepare,
    *,
    batch_size: int,
    seed: int = 0,
    sizes: plan.Sizes | None = None,
    images: np.ndarray | None = None,
    threads: int | None = None,
    workers: int = 0,
    on_error: str = "fail",
    max_skipped: int = 100,
    split: str = "train",
    process: int | None = None,
    processes: int | None = None,
) -> "TrainStream":
    """An endless stream of shuffled, augmented batches of this process's share.

    `batch_size` counts the images of all processes; together they see the batches that
    one would. `sizes` declares the inputs' sizes, where that is not `prepare.size`, and
    `images` [n 2] are the records' (h, w), which are looked up where they are needed
    and not given. `threads` decode in this process, one a core if None; `workers`,
    where set, are processes that do it instead.

    With `on_error` "fail" a record that cannot be read is a ValueError; with "skip" the
    next one stands in, up to `max_skipped` records. Raises ValueError for what does not
    go together.
    """
    lint.check_choice(on_error)
    sizes = sizes or plan.Sizes((prepare.size,), prepare.letterbox)
    batches = TrainBatches(
        Examples(source, prepare, sizes, split),
        plan.Plan(
            known_sizes(source, sizes, images), sizes, batch_size=batch_size, seed=seed
        ),
        batch_size,
        part(batch_size, *place_of(process, processes)),
        seed,
        tries=1 if on_error == "fail" else max_skipped + 1,
    )
    return TrainStream(batches, threads, workers, max_skipped)


def eval_loader(
    source: Sequence[Record],
    prepare: Prepare,
    *,
    batch_size: int,
    sizes: plan.Sizes | None = None,
    images: np.ndarray | None = None,
    threads: int | None = None,
    on_error: str = "fail",
    split: str = "val",
    process: int | None = None,
    processes: int | None = None,
) -> grain.IterDataset:
    """Every image once, in order of buckets, the last batch of each filled up.

    All processes see as many batches, of the same shapes: where `batch_size` does not
    divide among them it is rounded up. With `on_error` "skip" an image that cannot be
    read is told of and shown grey, and is not `valid`. See `train_loader` for the rest.
    """
    lint.check_choice(on_error)
    sizes = sizes or plan.Sizes((prepare.size,), prepare.letterbox)
    plain = dataclasses.replace(prepare, augment=None)
    process, processes = place_of(process, processes)
    batch_size += -batch_size % processes
    batches = EvalBatches(
        Examples(source, plain, sizes, split),
        plan.once(known_sizes(source, sizes, images), sizes, batch_size),
        batch_size,
        part(batch_size, process, processes),
        skip=on_error == "skip",
    )
    return grain.MapDataset.source(batches).to_iter_dataset(reading(threads))


@dataclasses.dataclass(frozen=True)
class Examples:
    """Records of a split, to be put into rows of batches."""

    source: Sequence[Record]
    prepare: Prepare
    sizes: plan.Sizes
    split: str

    def batch(self, places: Sequence[plan.Place]) -> Batch:
        """An empty batch for `places`, which share a bucket."""
        # OpenCV's own threads would be in the way of those that prepare batches, and
        # what it prints about broken files is said in sentences here.
        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        size = self.sizes.buckets[places[0].bucket]
        return self.prepare.empty(len(places), size)

    def put(self, batch, row, index, place, rng=None) -> None:
        """Puts record number `index` into a row for `place`.

        Raises Unreadable that names it; of what can be read the id is put there.
        """
        record = None
        try:
            record = self.source[index]
            batch.ids[row] = record.id
            fit = self.sizes.fit(
                (record.height, record.width), place.bucket, place.short
            )
            self.prepare.fill(batch, row, record, fit, rng)
        except Unreadable as error:
            raise Unreadable(f"{self._name(index, record)}: {error}") from None

    def name(self, index: int) -> str:
        """What a sentence calls record number `index`, as far as it can be read."""
        try:
            return self._name(index, self.source[index])
        except Unreadable:
            return self._name(index, None)

    def _name(self, index: int, record: Record | None) -> str:
        known = f" ({record.file_name}, image {record.id})" if record else ""
        return f"record {index} of split {self.split!r}{known}"


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """This process's rows of the batches of a run, by number.

    tries  how many records in a row are looked at for one that can be read, before it
           is a ValueError
    first  the number that counting begins at
    """

    examples: Examples
    plan: plan.Plan
    batch_size: int
    part: slice
    seed: int
    tries: int
    first: int = 0

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size - self.first

    def __getitem__(self, number: int) -> Batch:
        first = (self.first + number) * self.batch_size
        positions = range(first, first + self.batch_size)[self.part]
        places = [self.plan[position] for position in positions]
        batch = self.examples.batch(places)
        for row, (position, place) in enumerate(zip(positions, places, strict=True)):
            self._fill(batch, row, position, place)
        return batch

    def _fill(self, batch: Batch, row: int, position: int, place: plan.Place) -> None:
        """Puts the record of `place` into a row, or the next that can be read.

        Raises ValueError that names the last one tried.
        """
        for further in range(self.tries):
            index = (place.record + further) % len(self.examples.source)
            # The plan draws from seeds of two numbers, so that these are others.
            rng = np.random.default_rng([self.seed, position, 1])
            try:
                return self.examples.put(batch, row, index, place, rng)
            except Unreadable as error:
                batch.skipped[row] = place.record
                why = str(error)
        raise ValueError(
            f"{why}; set data.on_error='skip' to go on without it"
            if self.tries == 1
            else f"{self.tries} records in a row cannot be read, the last {why}"
        )


@dataclasses.dataclass(frozen=True)
class EvalBatches:
    """This process's rows of the batches of an evaluation, by number.

    skip  whether an image that cannot be read is left grey instead of a ValueError
    """

    examples: Examples
    places: Sequence[plan.Place]
    batch_size: int
    part: slice
    skip: bool

    def __len__(self) -> int:
        return len(self.places) // self.batch_size

    def __getitem__(self, number: int) -> Batch:
        first = number * self.batch_size
        places = self.places[first : first + self.batch_size][self.part]
        batch = self.examples.batch(places)
        for row, place in enumerate(places):
            try:
                self.examples.put(batch, row, place.record, place)
            except Unreadable as error:
                self._leave(batch, row, place, error)
            batch.valid[row] &= place.valid
        return batch

    def _leave(
        self, batch: Batch, row: int, place: plan.Place, error: Unreadable
    ) -> None:
        """Leaves a row as it is, and says so; raises ValueError without `skip`."""
        if not self.skip:
            raise ValueError(
                f"{error}; set data.on_error='skip' to count its objects as missed"
            )
        batch.images[row] = augment.FILL
        batch.skipped[row] = place.record
        if place.valid:  # repeats that fill up were told of
            print(f"warning: {error}; its objects count as missed", file=sys.stderr)


class TrainStream:
    """Endless batches; an iterator of them has a position that can be set."""

    def __init__(
        self, batches: TrainBatches, threads: int | None, workers: int, limit: int
    ):
        self._batches, self._limit = batches, limit
        self._threads, self._workers = threads, workers

    def __iter__(self) -> "TrainIterator":
        return TrainIterator(self.begin, self._batches.examples, self._limit)

    def begin(self, number: int) -> grain.DatasetIterator:
        """The batches from a `number` on, read ahead by threads or workers."""
        batches = dataclasses.replace(self._batches, first=number)
        read = grain.MapDataset.source(batches).to_iter_dataset(reading(self._threads))
        if self._workers:
            # grain asks absl's flags, which a notebook has not parsed.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(
                self._workers, per_worker_buffer_size=2
            )
            read = read.mp_prefetch(options)
        return iter(read)


class TrainIterator(Iterator[Batch]):
    """Batches, and a count of the records that could not be read.

    Each of those is told of once. Raises ValueError when there are more than `limit`.
    """

    def __init__(self, begin: Callable[[int], Any], examples: Examples, limit: int):
        self._begin, self._examples, self._limit = begin, examples, limit
        self._taken = 0  # batches; the only position, whoever reads ahead
        self._batches: Any = None  # from there on, begun when the first is asked for
        self.skipped: set[int] = set()  # their indices
        self._told: set[int] = set()  # not taken back where the position is

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._begin(self._taken)
        batch = next(self._batches)
        self._taken += 1
        new = set(batch.skipped[batch.skipped >= 0].tolist()) - self.skipped
        for index in sorted(new - self._told):
            print(
                f"warning: {self._examples.name(index)} cannot be read and is skipped",
                file=sys.stderr,
            )
        self.skipped |= new
        self._told |= new
        if len(self.skipped) > self._limit:
            raise ValueError(
                f"{len(self.skipped)} records of split {self._examples.split!r} cannot "
                f"be read, the last {self._examples.name(max(new or self.skipped))}; "
                f"data.max_skipped={self._limit} allows no more: mend the data set or "
                "raise it"
            )
        return batch

    def close(self) -> None:
        """Lets go of threads and worker processes, when what they do is done."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def get_state(self) -> dict[str, Any]:
        """The position, and what was skipped up to it, as JSON holds it."""
        return {"batches": self._taken, "skipped": sorted(self.skipped)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` was asked, with any threads or workers."""
        self.close()
        self._taken = state["batches"]
        self.skipped = set(state["skipped"])
        self._told |= self.skipped


def image_sizes(source: Sequence[Record]) -> np.ndarray:
    """The (h, w) [n 2] of all records, which are read for it."""
    found = [(r.height, r.width) for r in (source[i] for i in range(len(source)))]
    return np.array(found, np.int32).reshape(-1, 2)


def known_sizes(source, sizes: plan.Sizes, images: np.ndarray | None) -> np.ndarray:
    """`images`, or what stands for it: nothing where sizes play no part."""
    if images is not None:
        return images
    if sizes.need_images:
        return image_sizes(source)
    return np.ones((len(source), 2), np.int32)


def reading(threads: int | None) -> grain.ReadOptions:
    """Options for as many threads, or one a core, and two batches ahead for each."""
    threads = threads or len(os.sched_getaffinity(0))
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)


def place_of(process: int | None, processes: int | None) -> tuple[int, int]:
    """This process's number and how many there are, where a call does not say."""
    return (
        jax.process_index() if process is None else process,
        jax.process_count() if processes is None else processes,
    )


def part(batch_size: int, process: int, processes: int) -> slice:
    """The part of a global batch that is this process's.

    Raises ValueError where the batch does not divide among the processes.
    """
    if batch_size % processes:
        raise ValueError(
            f"data.batch_size={batch_size} does not divide among {processes} "
            "processes; make it a multiple"
        )
    local = batch_size // processes
    return slice(process * local, (process + 1) * local)
