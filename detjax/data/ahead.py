"""Prefetching of batches, by threads or worker processes.

The prefetch depth is counted in batches, not in threads or workers, so that memory does
not grow with the number of cores: the rows of `AHEAD` batches are filled in parallel.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from typing import Protocol

from detjax.data.crew import cores
from detjax.types import Batch

AHEAD = 2  # batches prefetched beside the current one
# Threads hold the GIL for a quarter of a row's time: more than these wait for each
# other.
_THREADS = 4
_MOST = 32  # worker processes that are started unasked
# Images that threads have prepared before worker processes are there.
FEW = 1000


class Batches(Protocol):
    """Batches by index, whose rows can be filled one by one in any order."""

    @property
    def rows(self) -> int:
        """This process's rows per batch."""

    @property
    def buckets(self) -> int:
        """How many kinds of batches there are, each of one shape."""

    def __len__(self) -> int:
        """The number of batches."""

    def bucket(self, number: int) -> int:
        """The kind of batch `number`."""

    def begun(self, first: int) -> "Batches":
        """The batches after the `first` images of the stream, counted from there."""

    def empty(self, bucket: int, rows: int) -> Batch:
        """An empty batch of `rows` rows."""

    def clear(self, batch: Batch, at: int) -> None:
        """Makes row `at` of `batch` empty again, but for its image."""

    def fill(self, batch: Batch, at: int, number: int, row: int) -> None:
        """Writes `row` of batch `number` to row `at` of `batch`."""


class Ahead(Protocol):
    """Batches in order, from a position that can be set."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def seek(self, first: int) -> None:
        """Goes on with the batches after the `first` images of the stream."""

    def close(self) -> None:
        """Ends what runs; batches that were handed out stay valid."""


def prefetched(
    batches: Batches, threads: int | None = None, workers: int | None = 0
) -> Ahead:
    """The batches in order, filled by `workers` processes, or by threads if 0.

    `threads` None is one per core; for `workers` None see `processes`.
    """
    count = processes(len(batches) * batches.rows) if workers is None else workers
    if count:
        from detjax.data.workers import Workers

        return Workers(batches, count)
    return Threads(batches, threads or cores())


def processes(images: int) -> int:
    """The worker processes that are worth it here for so many images; 0 is threads.

    None up to four cores, where threads are as fast, nor for fewer than a thousand
    images, which are prepared before processes are started; else one a core up to 32,
    but for a core that is left to this process. On Linux only: elsewhere forking is not
    safe.
    """
    if sys.platform != "linux" or cores() <= _THREADS or images < FEW:
        return 0
    return min(cores() - 1, _MOST)


class Threads(Iterator[Batch]):
    """Batches in order, prefetched by threads that fill rows in place."""

    def __init__(self, batches: Batches, threads: int):
        self._batches, self._next = batches, 0
        self._threads = threads
        self._pool = self._new_pool()
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

    def _new_pool(self) -> futures.ThreadPoolExecutor:
        return futures.ThreadPoolExecutor(self._threads, thread_name_prefix="rows")

    def seek(self, first: int) -> None:
        """Goes on with the batches after the `first` images of the stream."""
        self.close()
        self._pool = self._new_pool()
        self._batches, self._next = self._batches.begun(first), 0

    def _start(self, number: int) -> None:
        rows = self._batches.rows
        batch = self._batches.empty(self._batches.bucket(number), rows)
        fill = self._batches.fill
        tasks = [
            self._pool.submit(fill, batch, row, number, row) for row in range(rows)
        ]
        self._started.append((batch, tasks))

    def close(self) -> None:
        """Cancels what has not started and waits for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._started.clear()
