"""Several tasks of the same pictures as one.

What a task has of its own is held in a dict by its name: the truth, targets, answers,
what is found. Names of features, counts and metrics are "TASK/NAME".
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from detjax import settings
from detjax.data.records import Record
from detjax.data.summary import Facts
from detjax.ops.tiling import Stitched, Tiling
from detjax.tasks.joint.parts import Meter, Targets, named, of, side_by_side
from detjax.types import Asked, Inputs, Quantity, Question, Task

GAP = 6  # pixels between drawings


def joint(name: str, *tasks: Task) -> Task:
    """`tasks` as one task called `name`, the first of which has the data set's classes.

    A setting that several of them know is set for all of these.
    """
    own, first = Functions(tasks), tasks[0]
    return Task(
        name=name,
        target=Structs(tuple((t.name, t.target) for t in tasks)),  # type: ignore[arg-type]
        features=own.features,
        encode=own.encode,
        decode=own.decode,
        fault=own.fault,
        facts=own.facts,
        regions=own.regions,
        targets=Maker("targets", tasks, Targets),
        warnings=own.warnings,
        shrink=own.shrink,
        mirror=own.mirror,
        rescale=own.rescale,
        merge=own.merge,
        restore=own.restore,
        confident=own.confident,
        meter=Maker("meter", tasks, Meter),
        entries=own.entries,
        truth=own.truth,
        draw=own.draw,
        least_score=first.least_score,
        stitch=own.stitch if all(t.stitch for t in tasks) else None,
        quantities={
            f"{t.name}/{of}": OfPart(t.name, quantity)
            for t in tasks
            for of, quantity in t.quantities.items()
        },
        ask=own.ask,
        files=own.files,
        endings=own.endings(),
    )


@dataclasses.dataclass(frozen=True)
class OfPart:
    """A quantity of the answers of one of several tasks."""

    task: str
    quantity: Quantity

    def __call__(self, answers: Mapping[str, Any], **which: Any) -> Any:
        return self.quantity(answers[self.task], **which)


@dataclasses.dataclass(frozen=True)
class AskedOfPart:
    """What is asked of the answers of one of several tasks."""

    task: str
    quantity: Quantity

    def __call__(self, answers: Mapping[str, Any], which: Any) -> Any:
        return self.quantity(answers[self.task], which)


@dataclasses.dataclass(frozen=True)
class Structs:
    """The targets of several tasks, of their fields by the tasks' names."""

    kinds: tuple[tuple[str, type], ...]

    def __call__(self, **fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: kind(**fields[name]) for name, kind in self.kinds}


class Maker:
    """What the functions called `field` of several tasks make, as one object.

    Its settings, and what is said of them, are those of these functions.
    """

    def __init__(self, field: str, tasks: Sequence[Task], made: Callable[..., Any]):
        self._field, self._tasks, self._made = field, tuple(tasks), made
        functions = [getattr(t, field) for t in tasks]
        self.__doc__ = "\n\n".join(inspect.getdoc(f) or "" for f in functions)

    @property
    def __signature__(self) -> inspect.Signature:
        """The settings of all, after the first one's other arguments."""
        functions = [getattr(t, self._field) for t in self._tasks]
        first = inspect.signature(functions[0]).parameters.values()
        plain = [p for p in first if p.kind is not p.KEYWORD_ONLY]
        own = {
            k: p for f in reversed(functions) for k, p in settings.keywords(f).items()
        }
        return inspect.Signature([*plain, *own.values()])

    def __call__(self, *args: Any, **how: Any) -> Any:
        known = [settings.keywords(getattr(t, self._field)) for t in self._tasks]
        return self._made(
            self._tasks,
            *args,
            each=[{k: v for k, v in how.items() if k in own} for own in known],
            **{k: v for k, v in how.items() if not any(k in own for own in known)},
        )


@dataclasses.dataclass(frozen=True)
class Functions:
    """The functions of a task, each of those of several."""

    tasks: tuple[Task, ...]

    def features(self, schema: Any) -> dict[str, Any]:
        """The features of each task by its name."""
        return {t.name: t.features(schema) for t in self.tasks}

    def encode(self, record: Record, schema: Any) -> dict[str, Any]:
        """The truths of a record as those features."""
        return {
            f"{t.name}/{key}": value
            for t in self.tasks
            for key, value in t.encode(of(record, t), schema).items()
        }

    def decode(self, held: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """The truths of an image, of its example's features."""
        return {t.name: t.decode(named(held, t), size) for t in self.tasks}

    def fault(self, truth: Any, num_classes: int) -> str | None:
        """The problem of truths from a file, if any."""
        for t in self.tasks:
            if not isinstance(truth, Mapping) or t.name not in truth:
                return f"there is no truth of {t.name}"
            found = t.fault(truth[t.name], num_classes)
            if found:
                return found
        return None

    def facts(self, truth: Mapping[str, Any]) -> Facts:
        """Statistics of an image: the first task's labels, and the counts of all."""
        first, *others = (t.facts(truth[t.name]) for t in self.tasks)
        counts = {k: v for one in others for k, v in one.counts.items()}
        return first._replace(counts={**counts, **first.counts})

    def regions(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Those of the first task."""
        first = self.tasks[0]
        return first.regions(of(record, first))

    def warnings(self, sums: Mapping[str, float]) -> dict[str, str]:
        """Those of each task."""
        return {
            f"{t.name}/{subject}": sentence
            for t in self.tasks
            for subject, sentence in t.warnings(named(sums, t)).items()
        }

    def shrink(self, answers: Any) -> dict[str, Any]:
        return {t.name: t.shrink(answers[t.name]) for t in self.tasks}

    def mirror(self, answers: Any, *how: Any) -> dict[str, Any]:
        return {t.name: t.mirror(answers[t.name], *how) for t in self.tasks}

    def rescale(self, answers: Any, scale: tuple[float, float]) -> dict[str, Any]:
        return {t.name: t.rescale(answers[t.name], scale) for t in self.tasks}

    def merge(self, answers: Sequence[Any], iou: float) -> dict[str, Any]:
        return {t.name: t.merge([a[t.name] for a in answers], iou) for t in self.tasks}

    def restore(self, answer: Any, *how: Any, **more: Any) -> dict[str, Any]:
        return {t.name: t.restore(answer[t.name], *how, **more) for t in self.tasks}

    def confident(self, found: Any, min_score: float) -> dict[str, Any]:
        return {t.name: t.confident(found[t.name], min_score) for t in self.tasks}

    def stitch(self, answer: Any, tiling: Tiling) -> Stitched:
        """Each task's own, of answers that the network gives at once."""
        made = {
            t.name: t.stitch(answer[t.name], tiling) for t in self.tasks if t.stitch
        }

        def add(sums: Any, answer: Any, place: Any) -> dict[str, Any]:
            return {k: m.add(sums[k], answer[k], place) for k, m in made.items()}

        def done(sums: Any) -> dict[str, Any]:
            return {k: m.done(sums[k]) for k, m in made.items()}

        blank = {k: m.blank for k, m in made.items()}
        return Stitched(blank, add, done, any(m.fine for m in made.values()))

    def entries(
        self, found: Any, image_id: int | str, category_ids: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Those of each task; categories are the first one's."""
        return [
            row
            for i, t in enumerate(self.tasks)
            for row in t.entries(found[t.name], image_id, () if i else category_ids)
        ]

    def truth(self, record: Record) -> dict[str, Any]:
        return {t.name: t.truth(of(record, t)) for t in self.tasks}

    def draw(
        self, image: Any, found: Any, classes: Sequence[str], **how: Any
    ) -> np.ndarray:
        """The drawings of the tasks side by side, together within `most_side`."""
        most = how.get("most_side")
        if most is not None:
            side = max((most - GAP * (len(self.tasks) - 1)) // len(self.tasks), 1)
            how = {**how, "most_side": side, "least_side": side}
        drawn = [
            t.draw(image, found[t.name], own, **how)
            for t, own in zip(self.tasks, self._classes(classes), strict=True)
        ]
        return side_by_side(drawn, GAP)

    def files(self, found: Any, classes: Sequence[str]) -> dict[str, bytes]:
        """Those of each task; see `endings`."""
        held: dict[str, bytes] = {}
        for t, own in zip(self.tasks, self._classes(classes), strict=True):
            made = t.files(found[t.name], own) if t.files else {}
            held |= {_free(k, held, t): data for k, data in made.items()}
        return held

    def endings(self) -> tuple[str, ...]:
        """Those of each task; where two are alike the later one has its task's name."""
        held: dict[str, None] = {}
        for t in self.tasks:
            held |= dict.fromkeys(_free(ending, held, t) for ending in t.endings)
        return tuple(held)

    def ask(self, answers: Any, inputs: Inputs, question: Question) -> Asked:
        """What the task asks that the quantity's name begins with."""
        name, _, quantity = question.quantity.partition("/")
        place = [t.name for t in self.tasks].index(name)
        t, own = self.tasks[place], self._classes(question.classes)[place]
        found = t.ask(
            answers[name], inputs, question._replace(quantity=quantity, classes=own)
        )
        return found._replace(quantity=AskedOfPart(name, found.quantity))

    def _classes(self, classes: Sequence[str]) -> list[Sequence[str]]:
        """The classes of each task: of others than the first its own name."""
        return [(t.name,) if i else classes for i, t in enumerate(self.tasks)]


def _free(ending: str, taken: Mapping[str, Any], task: Task) -> str:
    return f"-{task.name}{ending}" if ending in taken else ending
