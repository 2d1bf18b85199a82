"""Worker processes that fill the rows of batches, in memory that they share.

A process is started that imports what rows need, once, and forks the workers, which
share that with it. It has one thread and knows no device, so that forking it is safe,
and it runs no `__main__` of the caller: scripts and notebooks need no guard. Workers
take rows from one pipe, in order, and say in another which are done; both carry a few
bytes a row. Reading ends for them when this process is gone, for whatever reason.
"""

import contextlib
import dataclasses
import gc
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
import weakref
from collections import deque
from collections.abc import Iterator

from detjax.data import slots
from detjax.data.ahead import AHEAD, Batches
from detjax.errors import UserError
from detjax.types import Batch

# The first image of the stream, the batch's number, its slot, the row. A page holds a
# whole number of them: pipes are read and written one by one.
_TASK = struct.Struct("<qqqq")
# The batch's number, the row, how it went, and the bytes of text that follow.
_RESULT = struct.Struct("<qqqq")
_DONE, _REFUSED, _FAILED, _ENDED = range(4)
_TEXT = select.PIPE_BUF - _RESULT.size  # what is written at once is not divided
_QUEUED = 1024  # rows in the pipe, which holds twice as many
# -P keeps the working directory out of sys.path.
_MAIN = ("-P", "-c", "from detjax.data import workers; workers.serve()")


@dataclasses.dataclass
class _Under:
    """A batch that is being filled."""

    bucket: int
    slot: int
    left: int  # rows that are not filled
    error: Exception | None = None


class Workers(Iterator[Batch]):
    """Batches in order, filled by up to `workers` processes some batches ahead.

    A row's UserError is raised with its batch. Raises UserError if a worker has ended,
    for example killed by the OOM killer.
    """

    def __init__(self, batches: Batches, workers: int):
        most = (AHEAD + 1) * batches.rows
        self._batches, self._workers = batches, max(1, min(workers, most))
        layouts = [
            slots.layout(batches.empty(bucket, 1), batches.rows)
            for bucket in range(batches.buckets)
        ]
        self._slots = slots.Slots(layouts, kept=AHEAD + 2)
        self._first, self._next, self._taken = 0, 0, 0
        self._under: dict[int, _Under] = {}
        self._waiting: deque[bytes] = deque()
        self._queued, self._unread = 0, b""
        self._crew: _Crew | None = None

    def __next__(self) -> Batch:
        if self._crew is None:
            self._crew = _Crew(self._batches, self._workers, self._slots)
        while len(self._under) <= AHEAD and self._next < len(self._batches):
            self._start(self._next)
            self._next += 1
        if not self._under:
            self.close()
            raise StopIteration
        self._send()
        under = self._under[self._taken]
        while under.left:
            self._receive()
        del self._under[self._taken]
        self._taken += 1
        if under.error is not None:
            self._slots.put_back(under.slot, under.bucket)
            raise under.error
        return self._slots.give(under.slot, under.bucket)

    def _start(self, number: int) -> None:
        rows, bucket = self._batches.rows, self._batches.bucket(number)
        slot = self._slots.take(bucket)
        self._under[number] = _Under(bucket, slot, rows)
        self._waiting += (
            _TASK.pack(self._first, number, slot, row) for row in range(rows)
        )

    def _send(self) -> None:
        while self._waiting and self._queued < _QUEUED:
            self._crew.send(self._waiting.popleft())
            self._queued += 1

    def _receive(self) -> None:
        """Notes what has been done, of which there is something to come."""
        self._unread += self._crew.receive()
        while len(self._unread) >= _RESULT.size:
            number, _, how, length = _RESULT.unpack_from(self._unread)
            end = _RESULT.size + length
            if len(self._unread) < end:
                break
            text = self._unread[_RESULT.size : end].decode(errors="replace")
            self._unread = self._unread[end:]
            if how == _ENDED:
                self.close()
                raise UserError(text)
            under = self._under[number]
            under.left -= 1
            self._queued -= 1
            if how != _DONE and under.error is None:
                under.error = (UserError if how == _REFUSED else RuntimeError)(text)
        self._send()

    @property
    def pids(self) -> list[int]:
        """Of the processes that run: the first has started the others."""
        return [] if self._crew is None else self._crew.pids()

    def seek(self, first: int) -> None:
        """Goes on with the batches after the `first` images of the stream."""
        self._waiting.clear()
        while self._queued:  # until then memory is written
            self._receive()
        for under in self._under.values():
            self._slots.put_back(under.slot, under.bucket)
        self._under.clear()
        self._batches = self._batches.begun(first)
        self._first, self._next, self._taken = first, 0, 0

    def close(self) -> None:
        """Ends the processes; batches that were handed out stay valid."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None
        self._slots.close()


class _Crew:
    """The processes and their two pipes."""

    def __init__(self, batches: Batches, count: int, memory: slots.Slots):
        self._count = count
        reads, self._tasks = os.pipe()
        self._results, writes = os.pipe()
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        # Threads of libraries would make forking unsafe, and rows have none to spare.
        alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # glibc gives pictures back to the system, page by page, and asks for them anew
        # with the next: 300 faults an image, an eighth of its time.
        kept = {
            "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
            "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
        }
        passed = (reads, writes, memory.fd)
        self._process = subprocess.Popen(
            [sys.executable, *_MAIN, *map(str, (*passed, memory.length, count))],
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno() if _has_stderr() else None,
            pass_fds=passed,
            env={
                **os.environ,
                **alone,
                **kept,
                "PYTHONPATH": path,
                "JAX_PLATFORMS": "cpu",
            },
            process_group=0,  # Ctrl-C is handled by this process only
        )
        os.close(writes)
        self.close = weakref.finalize(
            self, _end, self._process, reads, self._tasks, self._results
        )
        with contextlib.suppress(BrokenPipeError):  # told by `receive`
            pickle.dump(batches, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.close()

    def send(self, task: bytes) -> None:
        os.write(self._tasks, task)

    def receive(self) -> bytes:
        """Some results, once there are some. Raises UserError if none will come."""
        while True:
            # Asked first: what it said last has been written then.
            over = self._process.poll() is not None
            if select.select([self._results], [], [], 0 if over else 1)[0]:
                found = os.read(self._results, 1 << 16)
                if found:
                    return found
            if over:
                status = self._process.returncode
                self.close()
                raise UserError(ended(self._count, f"status {status}"))

    def pids(self) -> list[int]:
        first = self._process.pid
        with open(f"/proc/{first}/task/{first}/children") as file:
            return [first, *map(int, file.read().split())]


def ended(count: int, how: str) -> str:
    """The sentence about a worker process that has ended by itself."""
    return (
        f"one of data.workers={count} worker processes has ended ({how}); where memory "
        "is short, set data.workers lower, and start the same command again"
    )


def _has_stderr() -> bool:
    try:
        return sys.stderr.fileno() >= 0
    except (AttributeError, OSError, ValueError):  # a notebook's, or none
        return False


def _end(process: subprocess.Popen, reads: int, tasks: int, results: int) -> None:
    """Lets workers finish their rows, and ends them if that takes long."""
    os.set_blocking(reads, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(reads, 1 << 16):
            pass
    for pipe in (reads, tasks, results):
        os.close(pipe)
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def serve() -> None:
    """The process that forks workers; see `_Crew`."""
    tasks, results, memory, length, count = map(int, sys.argv[1:])
    parent = os.getppid()
    # This process's parent finishes its step first on those.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Workers find out by their pipe; this process's results need no handler.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        batches = pickle.load(sys.stdin.buffer)
    except EOFError:
        os._exit(0)  # the parent is gone, or has closed
    except Exception as error:
        why = (
            f"worker processes cannot load the data set ({type(error).__name__}: "
            f"{error}); where it is of a class that a script or notebook defines, move "
            "that into a module, or set data.workers=0"
        )
        os.write(results, _result(-1, 0, _ENDED, why))
        os._exit(1)
    gc.collect()
    gc.freeze()  # so that workers share pages instead of marking them
    pids = set()
    for _ in range(count):
        pid = os.fork()
        if not pid:
            _work(batches, tasks, results, slots.Mapped(memory, length))
        pids.add(pid)
    os.close(tasks)
    while pids and os.getppid() == parent:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            time.sleep(0.2)
            continue
        pids.remove(pid)
        if status:
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"status {code}"
            os.write(results, _result(-1, 0, _ENDED, ended(count, how)))
            break
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _result(number: int, row: int, how: int, text: str = "") -> bytes:
    said = text.encode()[:_TEXT]
    return _RESULT.pack(number, row, how, len(said)) + said


def _work(batches: Batches, tasks: int, results: int, memory: slots.Mapped) -> None:
    """Fills rows until there are no more; does not return."""
    begin, layouts, server = 0, {}, os.getppid()
    while os.getppid() == server and (message := os.read(tasks, _TASK.size)):
        first, number, slot, row = _TASK.unpack(message)
        how, said = _DONE, ""
        try:
            if first != begin:
                begin, batches = first, batches.begun(first)
            bucket = batches.bucket(number)
            if bucket not in layouts:
                room = batches.empty(bucket, 1)
                layouts[bucket] = slots.layout(room, batches.rows)
            batch = slots.batch_in(memory[slot], layouts[bucket])
            batches.clear(batch, row)
            batches.fill(batch, row, number, row)
        except UserError as error:
            how, said = _REFUSED, str(error)
        except Exception as error:
            how = _FAILED
            said = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        os.write(results, _result(number, row, how, said))
    os._exit(0)
