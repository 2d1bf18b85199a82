"""A model's metrics and losses on a data set, whatever its task."""

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple

import jax
import tqdm

from detjax import answers, cluster, files, sharding, tables, tta
from detjax.errors import UserError
from detjax.eval.collected import Parts
from detjax.log import VALIDATION
from detjax.plots import style
from detjax.preemption import Interrupted
from detjax.sharding import Layout
from detjax.types import Batch, Model, Table, Task


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
    meter: Any = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
    **settings: Any,
) -> tuple[dict[str, float], Callable[[], "Results"]]:
    """Metrics on the evaluation split of `data`, a `data.dataset.Data`.

    loss: also the mean loss on the split, "val/loss", and its parts; see `losses`.

    `settings` are keywords of the task's meter and of `tta.augmented`. What is found in
    the images at the places `kept` has replaces what it has. Evaluations of a run give
    the `meter` that `meter_of` makes of the same settings, so that the truth is read
    once. Also returns a function that makes the results.
    """
    kept = {} if kept is None else kept
    options: dict[str, Any] = {"layout": layout, "stop": stop, "progress": progress}
    testing, _ = tta.split_settings(settings)
    tested = tta.augmented(model, task, data.info.keypoints, **testing)
    found = meter_of(task, data, **settings) if meter is None else meter.again()
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


def meter_of(task: Task, data: Any, **settings: Any) -> Any:
    """The meter of the evaluation split of `data`; `settings` as in `measure`."""
    _, judging = tta.split_settings(settings)
    return task.meter(data.truth, data.info, data.image_ids, data.skip, **judging)


def names(task: Task, data: Any, *, loss: bool = False, **settings: Any) -> list[str]:
    """The names of the metrics of `measure`, but for parts of the loss."""
    found = meter_of(task, data, **settings)
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

    def computed(batches: Iterable[Batch]) -> Iterator[Any]:
        for i, batch in enumerate(batches):
            rows = len(batch.index)
            batch = answers.filled_up(batch, layout.local_shares, rows)
            batch.inputs.view.valid[rows:] = False
            yield call(params, state, layout.put(batch), i)

    with contextlib.ExitStack() as held:
        batches = opened(held, loader, "validate", progress, stop)
        for count, values in answers.behind(computed(batches), answers.AHEAD):
            # Images of all processes: an empty last share is no mean of its own.
            images += float(count)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(count) * float(value)
    if not sums:
        raise UserError(
            "the evaluation split has no image, so that there is no loss on it; choose "
            "another data.eval_split, or set eval.loss=False"
        )
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


def opened(
    held: contextlib.ExitStack,
    loader: Iterable[Batch],
    what: str,
    progress: bool,
    stop: Callable[[], bool],
) -> Iterator[Batch]:
    """The batches of `loader`, whose threads end with `held`.

    With a progress bar, where stderr is a terminal. Raises Interrupted once `stop()` is
    true.
    """
    batches = iter(loader)
    if hasattr(batches, "close"):
        held.callback(batches.close)
    quiet = not progress or not cluster.primary()
    count = len(loader) if isinstance(loader, Sized) else None
    # None: no bar where stderr is a file, which it would fill.
    shown = tqdm.tqdm(
        batches, disable=True if quiet else None, desc=what, unit="batch", total=count
    )
    held.callback(shown.close)
    for batch in shown:
        if stop():
            raise Interrupted
        yield batch


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
) -> Parts:
    """Adds predictions for valid images to `meter`; returns all processes' parts.

    In the loader's order, whatever threads do. The device has its next batches while
    answers are fetched and restored; a few batches are held at a time. Every process
    reads its share of the images. Raises Interrupted once `stop()` is true.
    """
    layout = layout or sharding.make()
    params, state = layout.keep((params, state))
    call = functools.partial(
        answers.jitted(model.predict, task.shrink, layout), params, state
    )
    with contextlib.ExitStack() as held:
        read = opened(held, loader, "evaluate", progress, stop)
        inputs = ((batch.index, batch.inputs) for batch in read)
        images = (
            (int(index[i]), image)
            for index, given, said in answers.answered(call, inputs, layout)
            for i, image in answers.images_of(given, said)
        )
        found = held.enter_context(contextlib.closing(answers.restored(task, images)))
        for place, what in found:
            meter.add(place, what)
    return cluster.gather_columns(meter.parts)


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
    def parts(self) -> Parts:
        return self._meter.parts


class Results(NamedTuple):
    """What an evaluation leaves beside its metrics."""

    # By file name: JSON content, or a function that returns an iterator over entries
    files: Mapping[str, Any]
    plots: style.Makers
    table: Table


def results(meter: Any, parts: Parts) -> Results:
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
        if callable(content):
            files.write_rows(workdir / name, content())
        else:
            files.write_text(workdir / name, json.dumps(content))
    files.write_text(workdir / "classes.csv", tables.as_csv(found.table))
    # After all but the plots, so that the result files exist whenever the metrics do.
    files.write_text(workdir / "eval.json", text + "\n")
    style.save_all(workdir, found.plots)
