"""Work on many things at once, its results in their order, whoever does it.

`few` takes threads of this process. `many` takes processes of their own, for work that
holds Python's lock. Those share nothing with this one but two pipes: when it dies,
however it does, they end.
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

# Things sent at once, and how many of such lots wait for a process. Their results are
# held in memory, images and all.
_LOT, _AHEAD = 2, 2
_MOST = 16  # processes
# What a process is started with; -P leaves the working directory out of sys.path.
_MAIN = ("-P", "-c", "from detjax.data import crew; crew.serve()")


def few(
    work: Callable[[Any], Any], things: Iterable[Any]
) -> Generator[Any, None, None]:
    """What `work` makes of each of `things`; a few are taken ahead."""
    threads = min(_MOST, len(os.sched_getaffinity(0)))
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


def many(
    work: Callable[[Any], Any], things: Iterable[Any]
) -> Generator[Any, None, None]:
    """What `work` makes of each of `things`, by processes; both can be pickled.

    What `work` raises is raised here.
    """
    hands = [Hand(work) for _ in range(min(_MOST, len(os.sched_getaffinity(0))))]
    try:
        # Lot i is of process i modulo their number, so that results keep their order.
        turns = itertools.cycle(hands)
        waiting: collections.deque = collections.deque()
        for lot in _lots(things):
            hand = next(turns)
            hand.send(lot)
            waiting.append(hand)
            if len(waiting) >= _AHEAD * len(hands):
                yield from waiting.popleft().receive()
        while waiting:
            yield from waiting.popleft().receive()
    finally:
        for hand in hands:
            hand.end()


def _lots(things: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(things)
    while lot := list(itertools.islice(rest, _LOT)):
        yield lot


class Hand:
    """A process that does `work` on what it is sent."""

    def __init__(self, work: Callable[[Any], Any]):
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, *_MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C is for the one that was started by hand.
            process_group=0,
        )
        self.send(work)

    def send(self, thing: Any) -> None:
        """Puts `thing` into the pipe. Raises OSError where the process is gone."""
        with self._living():
            pickle.dump(thing, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()

    def receive(self) -> list[Any]:
        """What was made of the first lot that was not received yet."""
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
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def serve() -> None:
    """What a `Hand` runs: results to stdout for what comes in on stdin, until its end.

    stdin is read by a thread, so that it is noticed at once when the other side dies.
    """
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed must not end up among the results
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
            os._exit(0)  # nobody listens any more


def _portable(error: Exception) -> Exception:
    """`error`, or one of the same words where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(
            f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        )
    return error
