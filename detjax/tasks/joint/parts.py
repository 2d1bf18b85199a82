"""Targets and meters of several tasks as one."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.data.frames import Seen
from detjax.data.records import Record
from detjax.types import Table, Task


class Truth(NamedTuple):
    """The truths of one image by task, and all boxes that a crop has to keep."""

    each: dict[str, Any]
    boxes: np.ndarray  # [m 4]


class Targets:
    """The targets of several tasks by name, and their counts as "TASK/NAME"."""

    def __init__(
        self, tasks: Sequence[Task], info: Any, *, each: Sequence[dict[str, Any]]
    ):
        self._tasks = tuple(tasks)
        self._own = {
            t.name: t.targets(info, **how) for t, how in zip(tasks, each, strict=True)
        }

    def evaluation(self) -> "Targets":
        """The same with no more than an evaluation reads."""
        made = object.__new__(Targets)
        made._tasks = self._tasks
        made._own = {name: own.evaluation() for name, own in self._own.items()}
        return made

    def empty(
        self, count: int, size: tuple[int, int]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Room for the targets of `count` images of `size` (h, w)."""
        rooms: dict[str, Any] = {}
        counts: dict[str, Any] = {}
        for name, own in self._own.items():
            rooms[name], found = own.empty(count, size)
            counts |= prefixed(name, found)
        return rooms, counts

    def clear(self, target: Mapping[str, Any]) -> None:
        """Makes an image's room empty again."""
        for name, own in self._own.items():
            own.clear(target[name])

    def read(self, record: Record, outlines: bool = False) -> Truth:
        """The truths of a record. Raises Unreadable."""
        found = {
            t.name: self._own[t.name].read(of(record, t), outlines) for t in self._tasks
        }
        return Truth(found, np.concatenate([one.boxes for one in found.values()]))

    def fill(
        self, target: Mapping[str, Any], seen: Sequence[Seen], size: tuple[int, int]
    ) -> dict[str, int]:
        """Writes the truths, each task's own; returns their counts."""
        counts: dict[str, Any] = {}
        for name, own in self._own.items():
            parts = [one._replace(truth=one.truth.each[name]) for one in seen]
            counts |= prefixed(name, own.fill(target[name], parts, size))
        return counts


class Meter:
    """The meters of several tasks: columns, metrics and files are "TASK/NAME"."""

    def __init__(
        self,
        tasks: Sequence[Task],
        records: Sequence[Record],
        info: Any,
        image_ids: Sequence[int | str],
        skip: bool = False,
        *,
        each: Sequence[dict[str, Any]],
    ):
        self._own = {}
        for i, (t, how) in enumerate(zip(tasks, each, strict=True)):
            # The data set's classes are the first task's; the others' is their name.
            described = info if i == 0 else Described((t.name,), (1,))
            held = Records(records, t)
            self._own[t.name] = t.meter(held, described, image_ids, skip, **how)

    def again(self) -> "Meter":
        """A meter of the same split, of nothing yet."""
        made = object.__new__(Meter)
        made._own = {name: own.again() for name, own in self._own.items()}
        return made

    def add(self, place: int, found: Mapping[str, Any]) -> None:
        """Adds what is found in the image at `place`."""
        for name, own in self._own.items():
            own.add(place, found[name])

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The columns of all."""
        return self._joined(lambda name, own: own.parts)

    def result(self, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metrics of all."""
        return self._joined(lambda name, own: own.result(_named(parts, name)))

    def names(self) -> list[str]:
        """The names of these, before anything is read."""
        return [
            f"{name}/{one}" for name, own in self._own.items() for one in own.names()
        ]

    def files(self, parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The files of all, "TASK-NAME"."""
        return self._joined(lambda name, own: own.files(_named(parts, name)), "-")

    def plots(self, parts: Mapping[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
        """The plots of all, "TASK-NAME"."""
        return self._joined(lambda name, own: own.plots(_named(parts, name)), "-")

    def table(self, parts: Mapping[str, np.ndarray]) -> Table:
        """The table of the first."""
        name, own = next(iter(self._own.items()))
        return own.table(_named(parts, name))

    def _joined(
        self, call: Callable[[str, Any], Any], mark: str = "/"
    ) -> dict[str, Any]:
        return {
            key: value
            for name, own in self._own.items()
            for key, value in prefixed(name, call(name, own), mark).items()
        }


class Described(NamedTuple):
    """What a meter reads of a data set's description."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]


class Records(Sequence[Record]):
    """Records with the truth of one of several tasks."""

    def __init__(self, records: Sequence[Record], task: Task):
        self._records, self._task = records, task

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: Any) -> Any:
        return of(self._records[place], self._task)


def of(record: Record, task: Task) -> Record:
    """A record with the truth of one of its tasks."""
    return dataclasses.replace(record, truth=record.truth[task.name])


def named(held: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What `held` has for a task, without its name."""
    return _named(held, task.name)


def prefixed(name: str, held: Mapping[str, Any], mark: str = "/") -> dict[str, Any]:
    """`held` with names that begin with a task's."""
    return {f"{name}{mark}{key}": value for key, value in held.items()}


def _named(held: Mapping[str, Any], name: str) -> dict[str, Any]:
    start = f"{name}/"
    return {k.removeprefix(start): held[k] for k in held if k.startswith(start)}


def side_by_side(pictures: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Pictures [h w 3] in a row on white, at the top."""
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    sheet = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for picture in pictures:
        h, w = picture.shape[:2]
        sheet[:h, left : left + w] = picture
        left += w + gap
    return sheet
