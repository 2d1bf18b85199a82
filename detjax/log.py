"""A run's log: means of metrics into metrics.jsonl, TensorBoard and a progress bar."""

import json
import pathlib
import platform
import struct
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


class NonFiniteLoss(ArithmeticError):
    """A loss became infinite or not a number; the last good checkpoint is kept."""


def check_finite(step: int, metrics: dict[str, Any], ids: np.ndarray) -> None:
    """Raises NonFiniteLoss with the step, the losses and the batch's image ids."""
    if np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"]):
        return
    parts = ", ".join(f"{k}={float(v):.4g}" for k, v in metrics.items())
    raise NonFiniteLoss(
        f"the loss is not finite at step {step}: {parts}; image ids of the batch: "
        f"{ids.tolist()}; the last good checkpoint is kept: lower the learning rate, "
        "set optimizer.clip_norm, or look at these images"
    )


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
        self._cut_told = False
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

    def add(self, step: int, metrics: dict[str, Any], ids, images: int) -> None:
        """Counts one step in; raises NonFiniteLoss."""
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        check_finite(step, metrics, ids)
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
        cut, count = sums.pop("cut"), sums.pop("steps")
        programs, self._programs = self._programs, compilation.count()
        self.put(
            {
                "step": self._step,
                **{name: value / count for name, value in sums.items()},
                "lr": float(self._rate(self._step - 1)),
                "images/s": self._images / seconds,
                "objects cut": cut,
                "compilations": self._programs - programs,
            }
        )
        if cut and not self._cut_told:
            self._cut_told = True
            self._bar.write(
                f"warning: {cut:.0f} objects up to step {self._step} did not fit into "
                "data.max_objects and were not learnt; raise it to keep them"
            )
        self.restart_clock()


def append(file: IO, content: str | bytes) -> None:
    """Writes `content`, which readers see at once."""
    with files.told(file.name):
        file.write(content)
        file.flush()


def finish(file: IO | None) -> None:
    """Closes `file`, if there is one."""
    if file:
        with files.told(file.name):
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

    A line that a killed process wrote by half goes with them.
    """
    rows: list[dict[str, Any]] = []
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step:
            rows.append(row)
    if cluster.primary():
        files.write(path, "".join(f"{json.dumps(row)}\n" for row in rows))
    return rows
