"""What a run shows on the way: curves of its log, and pictures in TensorBoard."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detjax import cluster, draw, tensorboard
from detjax.data.dataset import Data
from detjax.data.example import read
from detjax.data.records import Unreadable
from detjax.log import Log, append, events, record
from detjax.plots import style
from detjax.plots.training import curves
from detjax.types import Task

PICTURES = 6  # evaluation images that TensorBoard shows
MORE = 8  # those that predictions.png shows
PANEL = 420  # pixels of a panel's longer side


class Progress:
    """Draws a run's curves and some of its answers after each evaluation.

    `kept` has, by place in the evaluation split, what was found in the images that are
    shown, on the way and at the end, None before. This process may not see all of them.
    """

    def __init__(self, workdir: pathlib.Path, data: Data, task: Task):
        self._workdir, self._data, self._task = workdir, data, task
        count = len(data.pictures)
        self._places = draw.spread(count, PICTURES)
        self.at_end = draw.spread(count, MORE)
        places = sorted({*self._places, *self.at_end})
        self.kept: dict[int, Any] = dict.fromkeys(places)
        self._shown: int | None = None  # the step of the last pictures

    def evaluated(self, log: Log, step: int) -> None:
        """Writes curves.png, and the pictures of `step` to TensorBoard."""
        if cluster.primary():
            self.draw_curves(log.rows)
            log.show(step, self._pictures())
            self._shown = step

    def finished(self, step: int) -> None:
        """Does so after the last evaluation, when the log is closed."""
        self.draw_curves(read_rows(self._workdir))
        if self._shown != step:
            file = events(self._workdir / "tensorboard", step)
            with contextlib.closing(file):
                for shown in self._pictures():
                    append(file, record(step=step, summary=shown))

    def draw_curves(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes curves.png of the rows of a log; what goes wrong is a warning."""
        style.save_all(self._workdir, {"curves.png": lambda: curves(rows)})

    def _pictures(self) -> Iterator[Any]:
        for place in self._places:
            found = self.kept[place]
            # Another process has seen it.
            if found is None:
                continue
            try:
                record = self._data.pictures[place]
                image = draw.pair(
                    read(record),
                    self._task.truth(record),
                    self._task.confident(found, self._task.least_score),
                    self._data.info.classes,
                    self._task,
                    PANEL,
                )
            except (Unreadable, ValueError, MemoryError):
                continue  # already told of by the evaluation
            yield tensorboard.picture(f"evaluation/{place}", image)


def read_rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of the log in `workdir`, as the run wrote them."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line]
