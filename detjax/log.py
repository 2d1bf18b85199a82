"""A run's log: means of metrics into metrics.jsonl, TensorBoard and on stderr."""

import contextlib
import json
import os
import pathlib
import platform
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

import jax
import numpy as np
import tqdm

from detjax import cluster, compilation, files
from detjax.errors import UserError


class NonFiniteLoss(UserError):
    """A loss became infinite or NaN; the last good checkpoint is kept."""


# The prefix of the names of losses of evaluation images.
VALIDATION = "val/"

# Advice in errors about logs.
FOREIGN = (
    "was not written by a run of detjax; move that file away, or choose another "
    "--workdir"
)
ANEW = "there is no checkpoint beside it, so the run begins anew"


def check_finite(step: int, metrics: dict[str, Any]) -> None:
    """Raises NonFiniteLoss with the step and the losses."""
    if all(np.isfinite(metrics[k]) for k in ("loss", "grad_norm", "update_norm")):
        return
    parts = ", ".join(f"{k}={v:.4g}" for k, v in metrics.items())
    raise NonFiniteLoss(f"the loss is not finite at step {step}: {parts}")


class Log:
    """Logs means of metrics to files in `workdir`, in the first process.

    `sums` are the sums since the last line when the run stopped. Lines of steps after
    `first`, where the run resumes, are removed. `rate` is the learning rate by step,
    `warnings` is `Task.warnings`. With `progress` stderr has a bar where it is a
    terminal, and else, where a bar would fill a file, a line for each of the log's. The
    constructor and all methods that write raise OSError if a file cannot be written.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        rate: Callable[[int], Any],
        first: int,
        steps: int,
        sums: dict[str, Any],
        progress: bool,
        warnings: Callable[[dict[str, float]], dict[str, str]] = lambda sums: {},
    ):
        self.sums = sums
        self._warnings = warnings
        self._rate = rate
        path = workdir / "metrics.jsonl"
        self.rows = truncate(path, first)
        self._lines = self._events = None
        if cluster.primary():
            self._lines = path.open("a")
            self._events = events(workdir / "tensorboard", first)
        shown = progress and cluster.primary()
        self._steps, self._in_lines = steps, shown and not sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=steps,
            initial=first,
            disable=not shown or self._in_lines,
            unit="step",
            smoothing=0.1,
        )
        self._warned: set[str] = set()
        self._step = first
        self._programs = compilation.count()
        self.restart_clock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        try:
            close(self._lines)
        finally:
            close(self._events)

    def restart_clock(self) -> None:
        """Excludes the time up to now from images/s."""
        self._images, self._since = 0, time.perf_counter()
        self._timed = self._step

    def add(self, step: int, metrics: dict[str, Any], images: int) -> None:
        """Adds the metrics of one step; raises NonFiniteLoss.

        The means of `metrics` are logged, and the sums of its "counts".
        """
        metrics = jax.device_get(metrics)
        counts = {k: float(v) for k, v in metrics.pop("counts", {}).items()}
        metrics = {k: float(v) for k, v in metrics.items()}
        check_finite(step, metrics)
        held = self.sums
        for name, value in {**metrics, "steps": 1}.items():
            held[name] = held.get(name, 0) + value
        totals = held.setdefault("counts", {})
        for name, value in counts.items():
            totals[name] = totals.get(name, 0) + value
        self._step = step
        self._images += images
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)

    def put(self, row: dict[str, float]) -> None:
        """Writes one line of the file, and its numbers to TensorBoard."""
        self.rows.append(row)
        if self._lines and self._events:
            from tensorboardX.summary import scalar  # the first process only

            append(self._lines, json.dumps(row) + "\n")
            step = row["step"]
            shown = (scalar(name, row[name]) for name in row if name != "step")
            append(self._events, b"".join(record(step=step, summary=x) for x in shown))

    def show(self, step: int, summaries: Iterable[Any]) -> None:
        """Writes TensorBoard's `summaries` of `step`; see `detjax.tensorboard`."""
        if self._events:
            shown = (record(step=step, summary=x) for x in summaries)
            append(self._events, b"".join(shown))

    def write(self) -> None:
        """Writes the means since the last line."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        sums, self.sums = self.sums, {}
        counts = sums.pop("counts")
        steps = sums.pop("steps")
        programs, self._programs = self._programs, compilation.count()
        row = {
            "step": self._step,
            **{name: value / steps for name, value in sums.items()},
            "lr": float(self._rate(self._step - 1)),
            "images/s": self._images / seconds,
            **counts,
            "compilations": self._programs - programs,
        }
        self.put(row)
        if self._in_lines:
            self.say(
                f"step {self._step}/{self._steps}: loss={row['loss']:.4g} "
                f"lr={row['lr']:.3g} {self._pace(seconds, row['images/s'])}"
            )
        for subject, sentence in self._warnings(counts).items():
            self._warn(subject, sentence)
        self.restart_clock()

    def _pace(self, seconds: float, images: float) -> str:
        """The speed of the last `seconds`, and the time that is left at it."""
        each = seconds / max(self._step - self._timed, 1)
        minutes, rest = divmod(round(each * (self._steps - self._step)), 60)
        return (
            f"{images:.3g} images/s, {each:.3g} s/step, {minutes}:{rest:02} left, "
            "evaluations apart"
        )

    def say(self, text: str) -> None:
        """Prints a line to stderr, above the bar if there is one."""
        self._bar.write(text, file=sys.stderr)

    def _warn(self, subject: str, sentence: str) -> None:
        """Prints warnings about the steps so far, once per subject."""
        if subject not in self._warned:
            self._warned.add(subject)
            self.say(f"warning: up to step {self._step} {sentence}")


def append(file: IO, content: str | bytes) -> None:
    """Writes `content` and flushes it.

    Raises UserError if the file no longer exists.
    """
    if not os.fstat(file.fileno()).st_nlink:
        raise UserError(
            f"{file.name} was removed while the run wrote to it; start the same "
            "command again, in a folder that stays"
        )
    with files.writing(file.name):
        file.write(content)
        file.flush()


def close(file: IO | None) -> None:
    """Closes `file`, if there is one."""
    if file:
        with files.writing(file.name):
            file.close()


def events(folder: pathlib.Path, first: int) -> IO[bytes]:
    """A new TensorBoard file, which purges steps after `first` from earlier files.

    tensorboardX's own writer uses a thread that hangs once the disk is full.
    """
    from tensorboardX.proto.event_pb2 import SessionLog

    folder.mkdir(exist_ok=True)
    name = f"events.out.tfevents.{time.time():.6f}.{platform.node()}"
    file = (folder / name).open("wb")
    file.write(record(file_version="brain.Event:2"))
    start = SessionLog(status=SessionLog.START)
    file.write(record(step=first + 1, session_log=start))
    return file


def record(**fields: Any) -> bytes:
    """An event as a TFRecord: length, data, and checksums of both."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data = Event(wall_time=time.time(), **fields).SerializeToString()
    parts = struct.pack("<Q", len(data)), data
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in parts)


def truncate(path: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """The lines of the log at `path` up to `step`; later ones are removed from it.

    A partial line left by a killed process or a power cut is removed too. If more is
    unreadable, or a new run starts beside an old log, the old log is kept as
    metrics-before.jsonl. Raises UserError for a log that no run wrote.
    """
    rows: list[dict[str, Any]] = []
    if not (step or cluster.primary()):
        return rows  # the first process may be renaming the file
    lines = files.read_bytes(path).split(b"\n") if path.exists() else []
    broken: list[int] = []
    for number, line in enumerate(lines, 1):
        row = None
        with contextlib.suppress(ValueError):
            row = json.loads(line)
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
            last = number
        elif row is not None:
            raise UserError(f"{path}, line {number}, {FOREIGN}")
        elif line.strip(b"\0 \r"):
            broken.append(number)
    if broken and not rows and len(broken) > 1:
        raise UserError(f"{path}, line {broken[0]}, {FOREIGN}")
    inside = [number for number in broken if rows and number < last]
    if cluster.primary():
        if (rows and not step) or inside:
            why = f"its line {inside[0]} cannot be read" if inside else ANEW
            kept = files.unused(path.with_name("metrics-before.jsonl"))
            path.rename(kept)
            print(f"warning: {path}: {why}; it is kept as {kept}", file=sys.stderr)
        kept_rows = [row for row in rows if row["step"] <= step]
        files.write_text(path, "".join(f"{json.dumps(row)}\n" for row in kept_rows))
    return [row for row in rows if row["step"] <= step]
