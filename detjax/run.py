"""Entry points of the scripts: train and evaluate a config, for any model and task.

Models and tasks do not know each other: here a model finds its task by name.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from detjax import (
    cli,
    cluster,
    draw,
    experiment,
    files,
    models,
    optim,
    parameters,
    priors,
    replay,
    resume,
    sharding,
    tables,
    tasks,
    tensorboard,
)
from detjax import evaluate as evaluation
from detjax import predict as prediction
from detjax.checkpoint import Checkpoints, TrainState
from detjax.data import dataset
from detjax.data.builder import Info
from detjax.data.example import read
from detjax.data.records import Unreadable
from detjax.errors import UserError
from detjax.experiment import Settings
from detjax.progress import Progress
from detjax.settings import nearest
from detjax.train import fit, step_key
from detjax.types import Model, Task
from detjax.weights import source


def train(
    config: ConfigDict, workdir: str | pathlib.Path, profile: int = 0
) -> dict[str, float]:
    """Trains `config` in `workdir`, evaluates it and returns the metrics.

    Resumes from a checkpoint in `workdir`. Writes config.json, metrics.jsonl,
    tensorboard/, checkpoints/, eval.json, results.json and predictions.png; solved/ if
    the model has a `solve`; see `train.fit` for `profile`.

    Raises UserError if the config does not fit the data.
    """
    settings = experiment.resolve(config)
    workdir = cli.make_workdir(workdir)
    with contextlib.ExitStack() as held:
        if cluster.primary():
            held.enter_context(files.lock(workdir / "run.lock", "training"))
        return train_locked(settings, workdir, profile)


def train_locked(
    settings: Settings, workdir: pathlib.Path, profile: int
) -> dict[str, float]:
    """`train` with the lock of `workdir` held."""
    task = tasks.TASKS[models.task_of(settings["model"]["name"])]
    data = cluster.primary_first(lambda: dataset.make(task, **settings["data"]))
    settings["model"].setdefault("num_classes", len(data.info.classes))
    settings["model"] = models.standing(settings["model"])
    model = models.make(**settings["model"])
    described = describe(settings, data.info)
    cluster.primary_first(lambda: resume.check(described, data.info, workdir))
    steps = settings["train"]["steps"]
    check_names(model, data, settings["optimizer"])
    check_best(task, data, settings)
    optimizer, rate = optim.make(
        **settings["optimizer"], steps=steps, groups=model.spec.groups
    )
    layout = sharding.make(**settings["sharding"])
    if cluster.primary():
        print(introduction(settings, data), file=sys.stderr)
        look_at_priors(model, settings, data, task)
        warn_of_warmup(settings)
        warn_of_classes(settings, data.info)
    progress = Progress(workdir, data, task)
    judging = {key: value for key, value in settings["eval"].items() if key != "loss"}
    meter = evaluation.meter_of(task, data, **judging)

    def score(state, **options):
        options |= settings["eval"] | {"kept": progress.kept, "meter": meter}
        return evaluation.measure(
            model, task, state.params, state.state, data, layout=layout, **options
        )

    state = fit(
        model,
        optimizer,
        rate,
        data.train,
        workdir=workdir,
        evaluate=lambda state, stop: score(state, stop=stop)[0],
        layout=layout,
        warnings=task.warnings,
        begun=lambda: write_config(described, workdir),
        opened=lambda log, step: log.show(
            step, [tensorboard.text("config", tensorboard.config(described))]
        ),
        evaluated=progress.evaluated,
        profile=profile,
        **settings["train"],
    )
    if model.solve is not None:
        state = solved(model.solve, state, data.once, workdir, layout)
    metrics, results = score(state)
    params, statistics = layout.on_host((state.params, state.state))
    if cluster.primary():
        publish(workdir, metrics, results())
        progress.finished(steps)
        trained = prediction.assemble(described, params, statistics, steps)
        kept = {place: progress.kept[place] for place in progress.at_end}
        show(workdir / "predictions.png", trained, data, kept)
    return metrics


def solved(
    solve: Callable[..., Any],
    state: TrainState,
    once: Callable[[], Iterable],
    workdir: pathlib.Path,
    layout: sharding.Layout,
) -> TrainState:
    """`state` with the parameters returned by `solve`; see `types.Model`.

    It is written to `workdir`/solved, or restored from there if that is of this step.
    The checkpoints stay as they are, so that training may resume from them.
    """
    step = int(state.step)
    folder = prediction.SOLVED
    with contextlib.closing(Checkpoints(workdir, keep=1, folder=folder)) as held:
        if held.latest() == step:
            return held.restore(state)[0]
        # Every process solves the same problem, on a device of its own.
        here = jax.device_put(layout.on_host((state.params, state.state)))
        # A progress bar, since this takes minutes.
        quiet = not cluster.primary()
        batches = tqdm.tqdm(once(), disable=quiet, desc="solve", unit="batch")
        params = layout.keep(solve(*here, batches))
        state = dataclasses.replace(state, params=params)
        held.save(step, state, {})
    return state


def replay_step(folder: str | pathlib.Path) -> str:
    """Diagnostics of replaying the failed step in `folder`, a run's failed-<step>.

    Raises UserError if there is none.
    """
    folder = pathlib.Path(folder)
    replay.shares(folder)  # before anything else is said to be missing
    config = prediction.read_config(folder.absolute().parent / "config.json")
    model = models.make(**config["model"])
    failed = replay.read(folder, tasks.TASKS[model.spec.task].target)
    found = replay.replay_step(model, failed, step_key(failed.run))
    return replay.describe(failed.step, found)


def publish(
    workdir: pathlib.Path | str,
    metrics: dict[str, float],
    found: evaluation.Results,
    rows: int | None = tables.MOST_ROWS,
) -> None:
    """Writes an evaluation's files, and prints `rows` of its table of classes."""
    evaluation.write(workdir, metrics, found)
    print(tables.text(found.table, rows))


def look_at_priors(
    model: Model, settings: Settings, data: dataset.Data, task: Task
) -> None:
    """Warns where the model's priors fit few of the training objects."""
    least = settings["data"].get("min_size", 1.0)
    said = priors.warning(
        model, settings["model"], data.learnt, task, data.sizes, least
    )
    if said:
        print(f"warning: {said}", file=sys.stderr)


def check_names(model: Model, data: dataset.Data, optimizer: Mapping[str, Any]) -> None:
    """Raises UserError if settings of the optimizer match no parameter."""
    named = ("no_decay", "freeze", "unfreeze", "rates")
    if not any(optimizer.get(name) for name in named):
        return
    images = np.zeros((1, *data.size, 3), np.uint8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters.check_names(params, model.spec.groups, **optimizer)


def introduction(settings: Settings, data: dataset.Data) -> str:
    """What is trained on what, for how long."""
    split = settings["data"].get("train_split", "train")
    # A part of a split has no number there: "train[:10%]".
    images = data.info.splits.get(split) or len(data.learnt())
    count, kind = len(jax.devices()), jax.default_backend()
    return (
        f"{settings['model']['name']} on {images} images of {data.info.name} "
        f"({len(data.info.classes)} classes), {settings['data']['batch_size']} a step, "
        f"up to step {settings['train']['steps']}, on {count} "
        f"{kind} device{'s' * (count > 1)}; the first step compiles"
    )


def warn_of_warmup(settings: Settings) -> None:
    """Warns where the learning rate never comes to its peak."""
    steps = settings["train"]["steps"]
    warmup = settings["optimizer"]["schedule"].get("warmup_steps", 0)
    if 0 < steps <= warmup:
        print(
            f"warning: optimizer.schedule.warmup_steps={warmup} are all of "
            f"train.steps={steps}: the learning rate never comes to its peak",
            file=sys.stderr,
        )


def warn_of_classes(settings: Settings, info: Info) -> None:
    """Warns where a head is taken that has learnt other classes."""
    init_from = settings["train"].get("init_from")
    theirs = init_from and source.other_classes(init_from, info.classes)
    if theirs:
        print(
            f"warning: {init_from} has learnt {', '.join(theirs[:5])}, the data set "
            f"has {', '.join(info.classes[:5])}: as many, so the head that fits begins "
            "with what it knows of the others",
            file=sys.stderr,
        )


def check_best(task: Task, data: dataset.Data, settings: Settings) -> None:
    """Raises UserError if train.best names no metric of the evaluations."""
    best = settings["train"].get("best")
    if not best or not settings["train"].get("evaluate_every"):
        return  # what is missing then is said by `fit`
    known = evaluation.names(task, data, **settings["eval"])
    if best.startswith(evaluation.VALIDATION) and not settings["eval"].get("loss"):
        raise UserError(f"train.best={best!r} is of validation; set eval.loss=True too")
    if best not in known and not best.startswith(evaluation.VALIDATION):
        raise UserError(
            f"train.best={best!r} is not a metric{nearest(best, known)}; choose one of "
            f"{', '.join(known[:20])}{', ...' * (len(known) > 20)}"
        )


def write_config(described: Settings, workdir: pathlib.Path) -> None:
    """Writes config.json, by the first process."""
    if cluster.primary():
        text = json.dumps(described, indent=1) + "\n"
        files.write_text(workdir / "config.json", text)


def describe(settings: Settings, info: Info) -> dict[str, Any]:
    """The content of config.json: all settings, defaults included, and the classes."""
    return {
        **experiment.complete(settings),
        "classes": list(info.classes),
        "category_ids": list(info.category_ids),
        "keypoints": list(info.keypoints),
        # Detects changed annotations.
        "made_from": dict(info.made_from),
    }


def evaluate(
    workdir: str | pathlib.Path,
    best: bool = False,
    changes: Mapping[str, Any] | None = None,
    out: str | pathlib.Path | None = None,
    rows: int | None = tables.MOST_ROWS,
) -> dict[str, float]:
    """Metrics of the newest checkpoint, or the `best`; writes eval.json and results.

    `changes` are settings by section that are to be others than the run's. With any
    the files are written to `workdir`/eval-<split>, with the changes in changes.json,
    without to `workdir`, unless `out` names a folder. Prints the table of classes,
    `rows` of it at most. The run may have been trained on more devices.

    Raises UserError if the data set's classes are not those of the run, for settings
    that no evaluation reads, and for weights that do not fit the changed model.
    """
    workdir = pathlib.Path(workdir)
    loaded, settings, data = opened(workdir, best, changes)
    if changes:
        out = out or workdir / f"eval-{settings['data'].get('eval_split', 'val')}"
    layout = sharding.nearest(**settings["sharding"])
    metrics, results = evaluation.measure(
        loaded.model,
        loaded.task,
        loaded.params,
        loaded.state,
        data,
        layout=layout,
        **settings["eval"],
    )
    if cluster.primary():
        folder = cli.make_workdir(out or workdir)
        found = results()
        if changes:
            held = {"changes.json": experiment.plain(changes)}
            found = found._replace(files={**found.files, **held})
        publish(folder, metrics, found, rows)
        split = settings["data"].get("eval_split", "val")
        print(
            f"{len(data.truth)} images of {data.info.name}, split {split!r}, by the "
            f"{'best' if best else 'newest'} checkpoint, of step {loaded.step}; "
            f"written to {folder}"
        )
    return metrics


def opened(
    workdir: pathlib.Path, best: bool = False, changes: Mapping[str, Any] | None = None
) -> tuple[prediction.TrainedModel, Settings, dataset.Data]:
    """The trained model of a run, its settings with `changes`, and its data.

    Raises UserError as `evaluate` does.
    """
    loaded = prediction.load(workdir, best=best)
    path = workdir / "config.json"
    with files.reading(path, "put back the one that the run wrote"):
        settings = experiment.check(
            {
                section: experiment.plain(loaded.config[section])
                for section in experiment.SECTIONS
            }
        )
    if changes:
        settings = changed_for_evaluation(settings, changes)
        model = models.make(**{**loaded.config["model"], **settings["model"]})
        loaded = loaded._replace(model=model)
    # A work directory is data: the data set it names is read, never prepared.
    data = cluster.primary_first(
        lambda: dataset.make(loaded.task, **{**settings["data"], "prepare": None})
    )
    if list(data.info.classes) != loaded.classes:
        raise UserError(
            f"the run in {workdir} has learnt the classes {', '.join(loaded.classes)}; "
            f"the data set {data.info.name!r} has {', '.join(data.info.classes)}: make "
            "it again with those classes, in that order"
        )
    return loaded, settings, data


def changed_for_evaluation(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """`settings` of a run with `changes`, checked.

    Raises UserError for changes of what an evaluation does not read.
    """
    for section in changes:
        if section in ("optimizer", "train"):
            raise UserError(
                f"no evaluation reads the section {section!r}; set those of "
                "model, data, eval and sharding"
            )
    config = experiment.config(settings)
    config.update(changes)
    return experiment.resolve(config)


def show(
    path: pathlib.Path,
    run: prediction.TrainedModel,
    data: dataset.Data,
    kept: Mapping[int, Any],
) -> None:
    """Draws evaluation images into the file `path`, truth beside prediction.

    `kept` is what the evaluation found in them by place, None where another process saw
    the image, which is predicted again then.
    """
    predict = functools.cache(run.predictor)
    records, found = [], []
    for place, answer in kept.items():
        with contextlib.suppress(Unreadable):  # already reported by the evaluation
            record = data.pictures[place]
            image = read(record)
            if answer is None:
                answer = predict()(image, run.task.least_score, record.proposals)
            records.append(record)
            found.append(run.task.confident(answer, run.task.least_score))
    if records:
        draw.comparison(path, records, found, run.classes, run.task)
