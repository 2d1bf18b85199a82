"""Ordered parallel map, by threads or by processes.

`few` uses threads of this process. `many` uses worker processes, for work that holds
the GIL. They share only two pipes with this process and end when it dies for whatever
reason.
"""

import collections
import contextlib
import itertools
import os
import pickle
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2

# Items per chunk and chunks queued per process. Their results, images included, are
# held in memory.
_LOT, _AHEAD = 2, 2
_MOST = 16  # processes
# The worker's command line; -P keeps the working directory out of sys.path.
_MAIN = ("-P", "-c", "from detjax.data import crew; crew.serve()")


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serial(
    work: Callable[[Any], Any], things: Iterable[Any], threads: int | None = None
) -> Generator[Any, None, None]:
    """`work` mapped over `things` by threads, one a core if None; a few items ahead.

    In the things' order. The threads have ended when the iterator is closed.
    """
    threads = threads or min(_MOST, cores())
    waiting: collections.deque = collections.deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def parallel(
    work: Callable[[Any], Any], things: Iterable[Any]
) -> Generator[Any, None, None]:
    """`work` mapped over `things` by processes; both must be picklable.

    Exceptions of `work` are raised here.
    """
    processes = [WorkerProcess(work) for _ in range(min(_MOST, cores()))]
    try:
        # Chunk i goes to process i modulo their number, which keeps results in order.
        turns = itertools.cycle(processes)
        waiting: collections.deque = collections.deque()
        for lot in _lots(things):
            hand = next(turns)
            hand.send(lot)
            waiting.append(hand)
            if len(waiting) >= _AHEAD * len(processes):
                yield from waiting.popleft().receive()
        while waiting:
            yield from waiting.popleft().receive()
    finally:
        for hand in processes:
            hand.end()


def _lots(things: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(things)
    while lot := list(itertools.islice(rest, _LOT)):
        yield lot


class WorkerProcess:
    """A process that applies `work` to the items it is sent."""

    def __init__(self, work: Callable[[Any], Any]):
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, *_MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C is handled by the parent only.
            process_group=0,
        )
        self.send(work)

    def send(self, thing: Any) -> None:
        """Writes `thing` to the pipe. Raises OSError if the process is gone."""
        with self._living():
            pickle.dump(thing, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()

    def receive(self) -> list[Any]:
        """The results of the next chunk."""
        with self._living():
            made, error = pickle.load(self._process.stdout)
        if error is not None:
            raise error
        return made

    @contextlib.contextmanager
    def _living(self) -> Iterator[None]:
        try:
            yield
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            status = self._process.wait()
            raise OSError(
                f"a process that prepares images ended by itself (status {status}): "
                "most likely there was too little memory; start the same command again "
                "with more, or with fewer cores (taskset)"
            ) from None

    def end(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def serve() -> None:
    """Main loop of a `WorkerProcess`: items from stdin, results to stdout.

    stdin is read by a thread, so that the parent's death is noticed at once.
    """
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep printed output out of the results
    cv2.setNumThreads(1)
    come: queue.Queue = queue.Queue()

    def listen():
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                come.put(pickle.load(sys.stdin.buffer))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    work = come.get()
    result: tuple[list[Any] | None, Exception | None]
    while True:
        lot = come.get()
        try:
            result = [work(thing) for thing in lot], None
        except Exception as error:
            error.add_note(traceback.format_exc())
            result = None, _portable(error)
        try:
            pickle.dump(result, results, pickle.HIGHEST_PROTOCOL)
            results.flush()
        except BrokenPipeError:
            os._exit(0)  # the parent is gone


def _portable(error: Exception) -> Exception:
    """`error`, or one with the same message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(
            f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        )
    return error
