"""The best checkpoint of a run, by a metric of its evaluations."""

import contextlib
import operator
import pathlib
from collections.abc import Callable
from typing import Any

from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import UserError
from detjax.log import VALIDATION

Better = Callable[[float, float], bool]


def comparison(metric: str, which: str | None) -> Better:
    """(new, old) -> whether a value of `metric` is better: "highest" or "lowest".

    If `which` is None, of the losses on evaluation images the lowest is best.
    """
    loss = metric.startswith(VALIDATION)
    lowest = which == "lowest" or (which is None and loss)
    return operator.lt if lowest else operator.gt


def keep_best(
    workdir: pathlib.Path,
    metric: str,
    row: dict[str, float],
    train_state: TrainState,
    position: dict[str, Any],
    better: Better,
) -> bool:
    """Saves `train_state` in `workdir`/best if its `metric` beats the saved one.

    Returns whether it does. Raises UserError if `row` has no such metric.
    """
    step = int(train_state.step)
    if metric not in row:
        raise UserError(
            f"train.best={metric!r} is not a metric; choose one of {', '.join(row)}"
        )
    with contextlib.closing(Checkpoints(workdir, keep=None, folder="best")) as held:
        values = {
            before: held.position(before).get("metrics", {}).get(metric)
            for before in held.steps()
        }
        known = [value for value in values.values() if value is not None]
        new = all(better(row[metric], value) for value in known)
        if new:
            if step in values:
                # From before this run fell back to an earlier step, which `checkpoints`
                # has too.
                held.delete(step)
            held.save(step, train_state, {**position, "metrics": row})
            held.wait()
            values[step] = row[metric]
        # Last, so that a kill at any moment leaves the best so far.
        top = None
        for before, value in sorted(values.items()):
            rated = value is not None
            if rated and (top is None or better(value, values[top])):
                top = before
        for other in values.keys() - {top}:
            held.delete(other)
    return new
