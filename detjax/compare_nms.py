"""Every method of suppression on one trained model, in one pass over a split.

One program has all of them behind one network: XLA finds that what comes before
suppression is the same in each.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detjax import cli, cluster, evaluate, files, models, run, sharding, tables, tta
from detjax.eval.collected import Parts
from detjax.ops.nms import METHODS
from detjax.plots import methods as plot
from detjax.plots import style
from detjax.types import Model, Table, Task

# Of the metrics those that are printed, where the task has them.
SHOWN = ("AP", "AP50", "AP75", "AR100", "AR")


def compare(
    workdir: str | pathlib.Path,
    methods: Sequence[str] = METHODS,
    best: bool = False,
    changes: Mapping[str, Any] | None = None,
    out: str | pathlib.Path | None = None,
) -> dict[str, dict[str, float]]:
    """The metrics of a run's newest checkpoint, or the `best`, by method by name.

    `changes` are settings that are to be others than the run's, as of `run.evaluate`.
    Writes nms.json and nms.png to `workdir`, or the folder `out`, and prints a table.

    Raises UserError for a model without the setting model.detect.nms, for methods that
    it does not know, and as `run.evaluate` does.
    """
    workdir, changes = pathlib.Path(workdir), dict(changes or {})
    loaded, settings, data = run.opened(workdir, best, changes)
    testing, _ = tta.split_settings(settings["eval"])
    told = {k: v for k, v in settings["eval"].items() if k != "loss"}
    made = []
    for method in methods:
        known = run.changed_for_evaluation(
            settings, {"model": {"detect": {"nms": method}}}
        )
        model = models.make(**{**loaded.config["model"], **known["model"]})
        names = data.info.keypoints
        made.append(tta.augmented(model, loaded.task, names, **testing))
    first = evaluate.meter_of(loaded.task, data, **told)
    meters = Meters([first, *(first.again() for _ in methods[1:])])
    parts = evaluate.predict_all(
        together(made),
        task_of(loaded.task),
        loaded.params,
        loaded.state,
        data.evaluation(),
        meters,
        layout=sharding.nearest(**settings["sharding"]),
    )
    found = dict(zip(methods, meters.results(parts), strict=True))
    if cluster.primary():
        folder = cli.make_workdir(out or workdir)
        held = {"step": loaded.step, "changes": changes, "methods": found}
        files.write_text(folder / "nms.json", json.dumps(held, indent=1) + "\n")
        drawn = style.save_all(folder, {"nms.png": lambda: plot.methods(found)})
        print(tables.text(table(found), None))
        written = " and ".join(["nms.json", *drawn])
        print(f"{len(data.truth)} images; written to {folder}: {written}")
    return found


def together(made: Sequence[Model]) -> Model:
    """A model that answers with the answers of several that share their weights."""

    def predict(params, state, inputs):
        return tuple(model.predict(params, state, inputs) for model in made)

    return made[0]._replace(predict=predict)


def task_of(task: Task) -> Task:
    """`task` for the answers of `together`."""

    def shrink(answers):
        return tuple(map(task.shrink, answers))

    def restore(answers, *where):
        return [task.restore(answer, *where) for answer in answers]

    return task._replace(shrink=shrink, restore=restore)


class Meters:
    """A meter of what several models find: one meter each."""

    def __init__(self, meters: Sequence[Any]):
        self._meters = list(meters)

    def add(self, place: int, found: Sequence[Any]) -> None:
        """Collects what each has found in the image at `place`."""
        for meter, one in zip(self._meters, found, strict=True):
            meter.add(place, one)

    @property
    def parts(self) -> Parts:
        """The parts of all meters, by the number of the meter before their name."""
        return {
            f"{i}/{name}": column
            for i, meter in enumerate(self._meters)
            for name, column in meter.parts.items()
        }

    def results(self, parts: Parts) -> list[dict[str, float]]:
        """The metrics of each, of the parts of all processes."""
        return [
            meter.result(
                {
                    name.partition("/")[2]: column
                    for name, column in parts.items()
                    if name.startswith(f"{i}/")
                }
            )
            for i, meter in enumerate(self._meters)
        ]


def table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """The metrics that are shown, a row a method, the lowest AP first."""
    columns = shown(found)
    rows = [(m, *(metrics[c] for c in columns)) for m, metrics in found.items()]
    return Table(("nms", *columns), rows, 1)


def shown(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The names of the metrics that a table has room for."""
    known = next(iter(found.values()))
    return [name for name in known if name.rpartition("/")[2] in SHOWN]
