"""Input pipelines: endless batches for training, one pass for evaluation.

A batch depends only on the seed and its position in the stream: `plan` selects its
records, and each example's random generator is seeded by the seed and the position. The
number of threads, workers and processes therefore changes nothing, and the position is
the entire loader state to checkpoint.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from detjax.data import ahead, lint, plan, sizing
from detjax.data.example import Prepare, decode
from detjax.data.records import Record
from detjax.data.rows import EvalBatches, Examples, TrainBatches
from detjax.errors import UserError
from detjax.types import Batch

__all__ = ["Prepare", "decode", "eval_loader", "train_loader"]


def train_loader(
    source: Sequence[Record],
    prepare: Prepare,
    *,
    batch_size: int,
    seed: int = 0,
    sizes: sizing.InputSizes | None = None,
    images: np.ndarray | None = None,
    repeats: np.ndarray | None = None,
    threads: int | None = None,
    workers: int | None = 0,
    on_error: str = "fail",
    max_skipped: int = 100,
    split: str = "train",
    process: int | None = None,
    processes: int | None = None,
) -> "TrainStream":
    """An endless stream of shuffled, augmented batches of this process's share.

    `batch_size` is global (all processes), and together the processes see the batches
    that a single one would. `sizes` declares the input sizes if they differ from
    `prepare.size`; `images` [n 2] are the records' (h, w), looked up when needed and
    not given, and `repeats` [n] how often an epoch shows each. `threads` fill rows in
    this process, one per core if None; `workers`, if not 0, are processes that do so
    instead, None as many as `ahead.processes` thinks worth it. `source` and `prepare`
    are pickled for them.

    With `on_error` "fail" an unreadable record is a UserError; with "skip" the next one
    replaces it, up to `max_skipped` records. Raises UserError for arguments that are
    inconsistent.
    """
    lint.check_choice(on_error)
    sizes = sizes or sizing.InputSizes((prepare.size,), prepare.letterbox)
    batches = TrainBatches(
        Examples(source, prepare, sizes, split),
        plan.Plan(
            known_sizes(source, sizes, images),
            sizes,
            batch_size=batch_size,
            seed=seed,
            repeats=repeats,
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
    sizes: sizing.InputSizes | None = None,
    images: np.ndarray | None = None,
    threads: int | None = None,
    workers: int | None = 0,
    on_error: str = "fail",
    split: str = "val",
    learnt: bool = False,
    process: int | None = None,
    processes: int | None = None,
) -> "EvalStream":
    """Every image once, bucket by bucket; the last batch of each is padded.

    Targets are those of `Prepare.evaluation`, or with `learnt` those of training. All
    processes see the same number of batches, of the same shapes: a `batch_size` that
    they do not divide is rounded up. With `on_error` "skip" an unreadable image is
    reported, replaced by grey and not `valid`. See `train_loader` for the other
    arguments.
    """
    lint.check_choice(on_error)
    sizes = sizes or sizing.InputSizes((prepare.size,), prepare.letterbox)
    process, processes = place_of(process, processes)
    batch_size += -batch_size % processes
    batches = EvalBatches(
        Examples(
            source,
            prepare.unaugmented() if learnt else prepare.evaluation(),
            sizes,
            split,
        ),
        plan.once(known_sizes(source, sizes, images), sizes, batch_size),
        batch_size,
        part(batch_size, process, processes),
        skip=on_error == "skip",
    )
    return EvalStream(batches, threads, workers)


@dataclasses.dataclass(frozen=True)
class EvalStream:
    """Batches of every image once; can be iterated over repeatedly."""

    batches: EvalBatches
    threads: int | None
    workers: int | None = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(ahead.prefetched(self.batches, self.threads, self.workers))


class TrainStream:
    """Endless batches, whose iterator has a settable position."""

    def __init__(
        self,
        batches: TrainBatches,
        threads: int | None,
        workers: int | None,
        limit: int,
    ):
        self._batches, self._limit = batches, limit
        self._threads, self._workers = threads, workers

    def __iter__(self) -> "TrainIterator":
        begin = functools.partial(
            ahead.prefetched, threads=self._threads, workers=self._workers
        )
        return TrainIterator(begin, self._batches, self._limit)


class TrainIterator(Iterator[Batch]):
    """Batches, and a count of the unreadable records.

    Each is reported once. Raises UserError when there are more than `limit`.
    """

    def __init__(
        self,
        begin: Callable[[TrainBatches], ahead.Ahead],
        batches: TrainBatches,
        limit: int,
    ):
        self._begin, self._all, self._limit = begin, batches, limit
        self._examples = batches.examples
        self._batch_size = batches.batch_size
        self._taken = 0  # images of all processes; the only position
        # From there on, started at the first request.
        self._batches: ahead.Ahead | None = None
        self.skipped: set[int] = set()  # their indices
        self._told: set[int] = set()  # not reset with the position

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._begin(self._all)
            if self._taken:
                self._batches.seek(self._taken)
        batch = next(self._batches)
        new = set(batch.skipped[batch.skipped >= 0].tolist()) - self.skipped
        for index in sorted(new - self._told):
            print(
                f"warning: {self._examples.name(index)} cannot be read and is skipped",
                file=sys.stderr,
            )
        self._told |= new
        skipped = self.skipped | new
        if len(skipped) > self._limit:
            raise UserError(
                f"{len(skipped)} records of split {self._examples.split!r} cannot "
                f"be read, the last {self._examples.name(max(new or skipped))}; "
                f"data.max_skipped={self._limit} allows no more: mend the data set or "
                "raise it"
            )
        self._taken += self._batch_size
        self.skipped = skipped
        return batch

    def images(self) -> jax.ShapeDtypeStruct:
        """The shape and type of the images of the next batch, which is not read."""
        batches = self._all.begun(self._taken)
        row = batches.empty(batches.bucket(0), 1).inputs.images
        return jax.ShapeDtypeStruct((batches.rows, *row.shape[1:]), row.dtype)

    def names(self, batch: Batch) -> list[str]:
        """The names in messages of the images of a batch of this process."""
        return [self._examples.name(index) for index in batch.index.tolist()]

    def close(self) -> None:
        """Releases threads and worker processes once their work is done."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def get_state(self) -> dict[str, Any]:
        """The position in images and the records skipped so far, as JSON."""
        return {"images": self._taken, "skipped": sorted(self.skipped)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the position of `get_state`, for any number of threads or workers.

        Raises UserError where `state` is not what it returned.
        """
        taken, skipped = state.get("images"), state.get("skipped")
        if not (isinstance(taken, int) and taken >= 0 and isinstance(skipped, list)):
            raise UserError(f"{state} is not the position of a loader")
        if self._batches is not None:
            self._batches.seek(taken)
        self._taken = taken
        self.skipped = set(skipped)
        self._told |= self.skipped


def image_sizes(source: Sequence[Record]) -> np.ndarray:
    """The (h, w) [n 2] of all records; reads them all."""
    found = [(r.height, r.width) for r in (source[i] for i in range(len(source)))]
    return np.array(found, np.int32).reshape(-1, 2)


def known_sizes(
    source, sizes: sizing.InputSizes, images: np.ndarray | None
) -> np.ndarray:
    """`images`, or an empty placeholder where sizes are not needed."""
    if images is not None:
        return images
    if sizes.need_images:
        return image_sizes(source)
    return np.ones((len(source), 2), np.int32)


def place_of(process: int | None, processes: int | None) -> tuple[int, int]:
    """This process's index and the process count, unless given."""
    return (
        jax.process_index() if process is None else process,
        jax.process_count() if processes is None else processes,
    )


def part(batch_size: int, process: int, processes: int) -> slice:
    """This process's share of a global batch.

    Raises UserError where the batch does not divide among the processes.
    """
    if batch_size % processes:
        raise UserError(
            f"data.batch_size={batch_size} does not divide among {processes} "
            "processes; make it a multiple"
        )
    local = batch_size // processes
    return slice(process * local, (process + 1) * local)
