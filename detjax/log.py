"""A run's log: means of metrics into metrics.jsonl, TensorBoard and a progress bar."""

import contextlib
import json
import os
import pathlib
import platform
import struct
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import jax
import numpy as np
import tqdm
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from detjax import cluster, compilation, files
from detjax.errors import UserError


class NonFiniteLoss(UserError):
    """A loss became infinite or not a number; the last good checkpoint is kept."""


# What is said of logs.
FOREIGN = (
    "was not written by a run of detjax; move that file away, or choose another "
    "--workdir"
)
ANEW = "there is no checkpoint beside it, so the run begins anew"
# Counts among the metrics of a step, which are summed and not averaged in the log.
COUNTS = ("objects", "cut", "small")


def check_finite(step: int, metrics: dict[str, Any]) -> None:
    """Raises NonFiniteLoss with the step and the losses."""
    if all(np.isfinite(metrics[k]) for k in ("loss", "grad_norm", "update_norm")):
        return
    parts = ", ".join(f"{k}={v:.4g}" for k, v in metrics.items() if k not in COUNTS)
    raise NonFiniteLoss(f"the loss is not finite at step {step}: {parts}")


class Log:
    """Means of metrics over some steps, into files of `workdir`, by the first process.

    `sums` is what was summed since the last line when the run stopped. Lines of steps
    after `first`, which the run goes on from, are taken back. `rate` is the learning
    rate by step. Raises OSError, there and wherever it is written to, when a file
    cannot be written.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        rate: Callable[[int], Any],
        first: int,
        steps: int,
        sums: dict[str, Any],
        progress: bool,
    ):
        self.sums = sums
        self._rate = rate
        path = workdir / "metrics.jsonl"
        self.rows = take_back(path, first)
        self._lines = self._events = None
        if cluster.primary():
            self._lines = path.open("a")
            self._events = events(workdir / "tensorboard", first)
        self._bar = tqdm.tqdm(
            total=steps,
            initial=first,
            disable=not progress or not cluster.primary(),
            unit="step",
            smoothing=0.1,
        )
        self._told: set[str] = set()
        self._step = first
        self._programs = compilation.count()
        self.restart_clock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        try:
            finish(self._lines)
        finally:
            finish(self._events)

    def restart_clock(self) -> None:
        """Leaves the time up to now out of images/s."""
        self._images, self._since = 0, time.perf_counter()

    def add(self, step: int, metrics: dict[str, Any], images: int) -> None:
        """Counts one step of so many images in; raises NonFiniteLoss."""
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        check_finite(step, metrics)
        for name, value in {**metrics, "steps": 1}.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self._step = step
        self._images += images
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)

    def put(self, row: dict[str, float]) -> None:
        """One line of the file, and its numbers in TensorBoard."""
        self.rows.append(row)
        if self._lines and self._events:
            append(self._lines, json.dumps(row) + "\n")
            step = row["step"]
            shown = (scalar(name, row[name]) for name in row if name != "step")
            append(self._events, b"".join(record(step=step, summary=x) for x in shown))

    def write(self) -> None:
        """One line of the means since the last."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        sums, self.sums = self.sums, {}
        objects, cut, small = (sums.pop(name) for name in COUNTS)
        count = sums.pop("steps")
        programs, self._programs = self._programs, compilation.count()
        self.put(
            {
                "step": self._step,
                **{name: value / count for name, value in sums.items()},
                "lr": float(self._rate(self._step - 1)),
                "images/s": self._images / seconds,
                "objects": objects,
                "objects cut": cut,
                "objects too small": small,
                "compilations": self._programs - programs,
            }
        )
        if cut:
            self._tell(
                f"{cut:.0f} objects", "did not fit into data.max_objects", "raise"
            )
        if small > objects:
            self._tell("most objects", "are smaller than data.min_size", "lower")
        self.restart_clock()

    def _tell(self, which: str, why: str, change: str) -> None:
        """Says once that objects were left out, and what to do."""
        if why not in self._told:
            self._told.add(why)
            self._bar.write(
                f"warning: {which} up to step {self._step} {why} and were not learnt; "
                f"{change} it to keep them",
                file=sys.stderr,
            )


def append(file: IO, content: str | bytes) -> None:
    """Writes `content`, which readers see at once.

    Raises UserError where the file is there no more.
    """
    if not os.fstat(file.fileno()).st_nlink:
        raise UserError(
            f"{file.name} was removed while the run wrote to it; start the same "
            "command again, in a folder that stays"
        )
    with files.writing(file.name):
        file.write(content)
        file.flush()


def finish(file: IO | None) -> None:
    """Closes `file`, if there is one."""
    if file:
        with files.writing(file.name):
            file.close()


def events(folder: pathlib.Path, first: int) -> IO[bytes]:
    """A new file for TensorBoard, which hides what others say of steps after `first`.

    tensorboardX's own writer has a thread, and once the disk is full it never returns.
    """
    folder.mkdir(exist_ok=True)
    name = f"events.out.tfevents.{time.time():.6f}.{platform.node()}"
    file = (folder / name).open("wb")
    file.write(record(file_version="brain.Event:2"))
    start = SessionLog(status=SessionLog.START)
    file.write(record(step=first + 1, session_log=start))
    return file


def record(**fields: Any) -> bytes:
    """An event as TensorBoard reads it: its length, itself, and checksums of both."""
    data = Event(wall_time=time.time(), **fields).SerializeToString()
    parts = struct.pack("<Q", len(data)), data
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in parts)


def take_back(path: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """The lines of the log at `path` up to `step`; later ones are removed from it.

    What a killed process or a power cut left at its end goes with them. Where there is
    more that cannot be read, and where a run begins anew beside an old log, that is
    kept as metrics-before.jsonl. Raises UserError for a log that no run wrote.
    """
    rows: list[dict[str, Any]] = []
    if not (step or cluster.primary()):
        return rows  # the first process puts the file away meanwhile
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
