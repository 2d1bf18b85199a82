"""Prefetching of batches, by threads or worker processes.

The prefetch depth is counted in batches, not in threads or workers, so that memory does
not grow with the number of cores: threads fill the rows of `AHEAD` batches in parallel,
and worker processes, each of which buffers some rows, are limited to what twice as many
batches need.
"""

import dataclasses
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from typing import Protocol

import grain
import jax
import numpy as np
from absl import flags

from detjax.errors import UserError
from detjax.types import Batch

AHEAD = 2  # batches prefetched beside the current one
# Rows that grain holds per worker process at buffer size 1; at n it holds 2 n + 3.
HELD = 5


class Batches(Protocol):
    """Batches by index, whose rows can be filled one by one in any order."""

    @property
    def rows(self) -> int:
        """This process's rows per batch."""

    def __len__(self) -> int:
        """The number of batches."""

    def empty(self, number: int, rows: int) -> Batch:
        """An empty batch of `rows` rows."""

    def fill(self, batch: Batch, at: int, number: int, row: int) -> None:
        """Writes `row` of batch `number` to row `at` of `batch`."""


def by_threads(batches: Batches, threads: int | None) -> "Threads":
    """The batches in order, filled by `threads` threads; one per core if None."""
    return Threads(batches, threads or len(os.sched_getaffinity(0)))


class Threads(Iterator[Batch]):
    """Batches in order, prefetched by threads that fill rows in place."""

    def __init__(self, batches: Batches, threads: int):
        self._batches, self._next = batches, 0
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="rows")
        self._started: deque[tuple[Batch, list[futures.Future]]] = deque()

    def __next__(self) -> Batch:
        while len(self._started) <= AHEAD and self._next < len(self._batches):
            self._start(self._next)
            self._next += 1
        if not self._started:
            self.close()
            raise StopIteration
        batch, rows = self._started.popleft()
        for row in rows:
            row.result()
        return batch

    def _start(self, number: int) -> None:
        rows = self._batches.rows
        batch = self._batches.empty(number, rows)
        fill = self._batches.fill
        tasks = [
            self._pool.submit(fill, batch, row, number, row) for row in range(rows)
        ]
        self._started.append((batch, tasks))

    def close(self) -> None:
        """Cancels what has not started and waits for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._started.clear()


class Workers(Iterator[Batch]):
    """Batches in order, prefetched by up to `workers` processes.

    Raises UserError if a worker died, for example killed by the OOM killer.
    """

    def __init__(self, batches: Batches, workers: int):
        # grain reads absl flags, which are not parsed in a notebook.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        most = 2 * AHEAD * batches.rows
        workers = max(1, min(workers, most // HELD))
        self._batches, self._next, self._workers = batches, 0, workers
        rows = grain.MapDataset.source(_Rows(batches))
        each = max(1, (most // workers - 3) // 2)
        self._rows = iter(
            rows.to_iter_dataset(
                grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            ).mp_prefetch(
                grain.MultiprocessingOptions(workers, per_worker_buffer_size=each),
                worker_init_fn=_follow_the_parent,
            )
        )

    def __next__(self) -> Batch:
        if self._next >= len(self._batches):
            self.close()
            raise StopIteration
        self._next += 1
        try:
            rows = [next(self._rows) for _ in range(self._batches.rows)]
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise UserError(
                f"one of data.workers={self._workers} worker processes has ended "
                f"({str(error).split('. ')[0]}); where memory is short, set "
                "data.workers lower, and start the same command again"
            ) from error
        return jax.tree.map(lambda *x: np.stack(x), *rows)

    def close(self) -> None:
        """Ends the processes."""
        self._rows.close()  # type: ignore[attr-defined]  # grain's iterators have it


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows of all batches, one after the other."""

    batches: Batches

    def __len__(self) -> int:
        rows = self.batches.rows
        return min(len(self.batches), sys.maxsize // rows) * rows

    def __getitem__(self, index: int) -> Batch:
        number, row = divmod(index, self.batches.rows)
        batch = self.batches.empty(number, 1)
        self.batches.fill(batch, 0, number, row)
        return jax.tree.map(lambda x: x[0], batch)


def _follow_the_parent(*_) -> None:
    """Ends this process with its parent, but not on signals to the process group.

    The parent finishes its step first on those.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
