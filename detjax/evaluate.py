"""A model's metrics and losses on a data set, whatever its task."""

import functools
import json
import pathlib
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from detjax import cluster, files, sharding, tables, tta
from detjax.log import VALIDATION
from detjax.plots import style
from detjax.predict import weights_checked
from detjax.preemption import Interrupted
from detjax.sharding import Layout
from detjax.types import Batch, Inputs, Model, Table, Task


def measure(
    model: Model,
    task: Task,
    params: Any,
    state: Any,
    data: Any,
    *,
    loss: bool = False,
    kept: dict[int, Any] | None = None,
    layout: Layout | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
    **settings: Any,
) -> tuple[dict[str, float], Callable[[], "Results"]]:
    """Metrics on the evaluation split of `data`, a `data.dataset.Data`.

    loss: also the mean loss on the split, "val/loss", and its parts; see `losses`.

    `settings` are keywords of the task's meter and of `tta.augmented`. What is found in
    the images at the places `kept` has replaces what it has. Also returns a function
    that makes the results.
    """
    kept = {} if kept is None else kept
    options: dict[str, Any] = {"layout": layout, "stop": stop, "progress": progress}
    testing, judging = tta.divided(settings)
    tested = tta.augmented(model, task, data.info.keypoints, **testing)
    found = task.meter(data.truth, data.info, data.image_ids, data.skip, **judging)
    keeping = Keeping(found, kept)
    parts = predict_all(
        tested, task, params, state, data.evaluation(), keeping, **options
    )
    kept.update(keeping.kept)
    metrics = found.result(parts)
    if loss:
        metrics |= losses(model, params, state, data.validation(), **options)
    # Evaluations on the way write no files.
    return metrics, functools.partial(results, found, parts)


def names(task: Task, data: Any, *, loss: bool = False, **settings: Any) -> list[str]:
    """The names of the metrics of `measure`, but for parts of the loss."""
    _, judging = tta.divided(settings)
    found = task.meter(data.truth, data.info, data.image_ids, data.skip, **judging)
    return found.names() + [f"{VALIDATION}loss"] * loss


def losses(
    model: Model,
    params: Any,
    state: Any,
    loader: Iterable[Batch],
    *,
    layout: Layout | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> dict[str, float]:
    """The mean loss of images and its parts, by name after "val/".

    It is the loss that training minimises, of the weights that learn (not their
    average), with batch statistics of the batch and random numbers that are the same in
    every evaluation. Every process reads its share of the images. Raises Interrupted
    once `stop()` is true.
    """
    layout = layout or sharding.make()
    params, state = layout.keep((params, state))
    call = loss_of(model.loss, layout)
    sums: dict[str, float] = {}
    images = 0.0
    for i, batch in enumerate(shown(loader, "validate", progress)):
        if stop():
            raise Interrupted
        rows = len(batch.index)
        batch = filled_up(batch, layout.local_shares, rows)
        batch.inputs.view.valid[rows:] = False
        count, values = call(params, state, layout.put(batch), i)
        # Images of all processes: an empty last share is no mean of its own.
        images += float(count)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(count) * float(value)
    means = {name: value / max(images, 1) for name, value in sums.items()}
    parts = {name: means[name] for name in means if name != "loss"}
    return {f"{VALIDATION}{k}": v for k, v in ({"loss": means["loss"]} | parts).items()}


@functools.lru_cache(maxsize=8)
def loss_of(loss: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """The jitted (params, state, batch, i) -> number of images, losses by name."""

    @functools.partial(jax.jit, out_shardings=layout.replicated())
    def call(params, state, batch, i):
        key = jax.random.fold_in(jax.random.key(0), i)
        with layout.traced():
            value, (_, parts) = loss(layout.gather(params), state, batch, key)
        return batch.inputs.view.valid.sum(), {"loss": value, **parts}

    return call


def shown(loader: Iterable[Batch], what: str, progress: bool) -> Iterable[Batch]:
    """`loader` with a progress bar, where stderr is a terminal."""
    quiet = not progress or not cluster.primary()
    # None: no bar where stderr is a file, which it would fill.
    disable = True if quiet else None
    return tqdm.tqdm(loader, disable=disable, desc=what, unit="batch")


def predict_all(
    model: Model,
    task: Task,
    params: Any,
    state: Any,
    loader: Iterable[Batch],
    meter: Any,
    *,
    layout: Layout | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> list[Any]:
    """Adds predictions for valid images to `meter`; returns all processes' parts.

    Every process reads its share of the images. Raises Interrupted once `stop()` is
    true.
    """
    layout = layout or sharding.make()
    params, state = layout.keep((params, state))
    predict = predictor(model.predict, task.shrink, layout)
    for batch in shown(loader, "evaluate", progress):
        if stop():
            raise Interrupted
        inputs = filled_up(batch.inputs, layout.local_shares, len(batch.index))
        with weights_checked():
            answers = layout.local(predict(params, state, layout.put_inputs(inputs)))
        view = batch.inputs.view
        for i in np.flatnonzero(view.valid):
            found = task.restore(
                jax.tree.map(lambda x, i=i: x[i], answers),
                view.affine[i],
                tuple(view.sizes[i].tolist()),
                batch.inputs.images.shape[1:3],
            )
            meter.add(int(batch.index[i]), found)
    return cluster.gather(meter.parts)


@functools.lru_cache(maxsize=8)
def predictor(
    predict: Callable[[Any, Any, Inputs], Any],
    shrink: Callable[[Any], Any],
    layout: Layout,
) -> Callable[[Any, Any, Inputs], Any]:
    """A model's jitted `predict` and `shrink` on `layout`: (params, state, inputs).

    Cached by its arguments, so that only the first evaluation compiles.
    """

    @functools.partial(jax.jit, out_shardings=layout.by_image())
    def call(params, state, inputs):
        with layout.traced():
            return shrink(predict(layout.gather(params), state, inputs))

    return call


def filled_up(rows: Any, shares: int, count: int) -> Any:
    """Arrays [count ...] padded with the last row until `shares` divides `count`."""
    missing = -count % shares
    return jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), rows
    )


class Keeping:
    """A meter that keeps what is found in the images at some places of the split.

    Of those this process sees: `kept` has them by place.
    """

    def __init__(self, meter: Any, places: Container[int]):
        self.kept: dict[int, Any] = {}
        self._meter, self._places = meter, places

    def add(self, place: int, found: Any) -> None:
        if place in self._places:
            self.kept[place] = found
        self._meter.add(place, found)

    @property
    def parts(self) -> list[Any]:
        return self._meter.parts


class Results(NamedTuple):
    """What an evaluation leaves beside its metrics."""

    files: Mapping[str, Any]  # JSON content by file name
    plots: style.Makers
    table: Table


def results(meter: Any, parts: Any) -> Results:
    """The results of `parts` by the meter of a task."""
    return Results(meter.files(parts), meter.plots(parts), meter.table(parts))


def write(
    workdir: str | pathlib.Path, metrics: Mapping[str, float], found: Results
) -> None:
    """Writes the metrics to eval.json, and results: files, classes.csv and plots.

    A plot that cannot be drawn is a warning.
    """
    workdir = pathlib.Path(workdir)
    text = json.dumps(metrics, indent=1, allow_nan=False)
    for name, content in found.files.items():
        files.write_text(workdir / name, json.dumps(content))
    files.write_text(workdir / "classes.csv", tables.as_csv(found.table))
    # After all but the plots, so that the result files exist whenever the metrics do.
    files.write_text(workdir / "eval.json", text + "\n")
    style.save_all(workdir, found.plots)
