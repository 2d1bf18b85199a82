"""Entry points of the scripts: train and evaluate a config, for any model and task.

Models and tasks do not know each other: here a model finds its task by name.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
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
    replay,
    sharding,
    tasks,
)
from detjax import evaluate as evaluation
from detjax import predict as prediction
from detjax.checkpoint import Checkpoints, TrainState
from detjax.data import dataset, plan
from detjax.data.builder import Info
from detjax.data.example import read
from detjax.data.records import Unreadable
from detjax.errors import UserError
from detjax.experiment import Settings
from detjax.train import fit, step_key
from detjax.types import Model, Task


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
    model = models.make(**settings["model"])
    described = describe(settings, data.info)
    cluster.primary_first(lambda: check(described, data.info, workdir))
    steps = settings["train"]["steps"]
    check_names(model, data, settings["optimizer"])
    optimizer, rate = optim.make(
        **settings["optimizer"], steps=steps, groups=model.spec.groups
    )
    layout = sharding.make(**settings["sharding"])

    def score(state, **options):
        weights = (state.params, state.state)
        return measure(model, task, *weights, data, settings["eval"], layout, **options)

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
        profile=profile,
        **settings["train"],
    )
    if model.solve is not None:
        state = solved(model.solve, state, data.once, workdir, layout)
    metrics, results = score(state)
    params, statistics = layout.on_host((state.params, state.state))
    if cluster.primary():
        evaluation.write(workdir, metrics, results())
        trained = prediction.assemble(described, params, statistics, steps)
        show(workdir / "predictions.png", trained, data)
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


def measure(
    model: Model,
    task: Task,
    params: Any,
    state: Any,
    data: dataset.Data,
    settings: Mapping[str, Any],
    layout: sharding.Layout | None = None,
    **options: Any,
) -> tuple[dict[str, float], Callable[[], dict[str, Any]]]:
    """Metrics on the evaluation split, and a function that makes the result files.

    `settings` are the task's of the section eval, `options` those of
    `evaluate.predict_all`.
    """
    meter = task.meter(data.truth, data.info, data.image_ids, data.skip, **settings)
    parts = evaluation.predict_all(
        model, task, params, state, data.evaluation(), meter, layout=layout, **options
    )
    # Evaluations on the way write no files.
    return meter.result(parts), functools.partial(meter.files, parts)


def check_names(model: Model, data: dataset.Data, optimizer: Mapping[str, Any]) -> None:
    """Raises UserError if settings of the optimizer match no parameter."""
    if not any(optimizer.get(name) for name in ("no_decay", "freeze", "rates")):
        return
    images = np.zeros((1, *data.size, 3), np.uint8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    optim.check_names(params, model.spec.groups, **optimizer)


def check(described: Settings, info: Info, workdir: pathlib.Path) -> None:
    """Raises UserError if the parts of an experiment are inconsistent.

    That is the model and the data set, or this config and the run in `workdir`.
    """
    have, want = len(info.classes), described["model"]["num_classes"]
    if have != want:
        raise UserError(
            f"the data set {info.name!r} has {have} classes, the model {want}; "
            f"leave model.num_classes out, or set --config.model.num_classes={have}"
        )
    path = workdir / "config.json"
    if path.exists():
        before = prediction.read_config(path)
        # A run without a checkpoint does not constrain the config.
        if any((workdir / "checkpoints").glob("[0-9]*")):
            compare(before, json.loads(json.dumps(described)), workdir)


def write_config(described: Settings, workdir: pathlib.Path) -> None:
    """Writes config.json, by the first process."""
    if cluster.primary():
        text = json.dumps(described, indent=1) + "\n"
        files.write_text(workdir / "config.json", text)


# Settings that a resumed run cannot change: its network, its data, the meaning of its
# metrics, and what is read only at the first step.
FIXED = re.compile(
    rf"model\.|classes$|category_ids$|data\.({'|'.join(plan.KEYWORDS)})$"
    r"|data\.seed$|train\.seed$"
)


def compare(before: Settings, now: Settings, workdir: pathlib.Path) -> None:
    """Prints the settings that a resumed run changes.

    Raises UserError for those that cannot change.
    """
    changed = experiment.changes(with_defaults(before, now), now)
    bucketed = len(now["data"].get("buckets") or ()) > 1
    for name, (was, wanted) in changed.items():
        if FIXED.match(name) or (bucketed and name == "data.batch_size"):
            raise UserError(
                f"{workdir} holds a run with {name}={was}, the config says {wanted}; "
                "set it back, or choose another --workdir"
            )
    if changed and cluster.primary():
        listed = ", ".join(f"{k} {was} -> {now}" for k, (was, now) in changed.items())
        print(f"{workdir} goes on with other settings: {listed}", file=sys.stderr)


def with_defaults(before: Settings, now: Settings) -> Settings:
    """An earlier config.json with defaults for settings added since."""
    held = {
        section: before[section] if isinstance(before.get(section), dict) else {}
        for section in experiment.SECTIONS
    }
    named = {**held, "model": {**held["model"], "name": now["model"]["name"]}}
    filled = json.loads(json.dumps(experiment.complete(named)))
    filled["model"]["name"] = held["model"].get("name")
    return {**before, **filled}


def describe(settings: Settings, info: Info) -> dict[str, Any]:
    """The content of config.json: all settings, defaults included, and the classes."""
    return {
        **experiment.complete(settings),
        "classes": list(info.classes),
        "category_ids": list(info.category_ids),
        # Detects changed annotations.
        "made_from": dict(info.made_from),
    }


def evaluate(workdir: str | pathlib.Path, best: bool = False) -> dict[str, float]:
    """Metrics of the newest checkpoint, or the `best`; writes eval.json and results.

    The run may have been trained on more devices. Raises UserError if the data set's
    classes are not those of the run.
    """
    loaded = prediction.load(workdir, best=best)
    path = pathlib.Path(workdir) / "config.json"
    with files.reading(path, "put back the one that the run wrote"):
        settings = experiment.check(
            {
                section: experiment.plain(loaded.config[section])
                for section in experiment.SECTIONS
            }
        )
    # A work directory is data: the data set it names is read, never prepared.
    task = loaded.task
    data = cluster.primary_first(
        lambda: dataset.make(task, **{**settings["data"], "prepare": None})
    )
    layout = sharding.nearest(**settings["sharding"])
    if list(data.info.classes) != loaded.classes:
        raise UserError(
            f"the run in {workdir} has learnt the classes {', '.join(loaded.classes)}; "
            f"the data set {data.info.name!r} has {', '.join(data.info.classes)}: make "
            "it again with those classes, in that order"
        )
    weights = loaded.params, loaded.state
    metrics, results = measure(
        loaded.model, task, *weights, data, settings["eval"], layout
    )
    if cluster.primary():
        evaluation.write(workdir, metrics, results())
    return metrics


def show(
    path: pathlib.Path, run: prediction.TrainedModel, data: dataset.Data, count: int = 9
) -> None:
    """Draws some evaluation images into the file `path`, truth beside prediction."""
    predict = run.predictor()
    pictures = data.pictures
    chosen = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(int)
    records, found = [], []
    for i in chosen.tolist():
        with contextlib.suppress(Unreadable):  # already reported by the evaluation
            record = pictures[i]
            image = read(record)
            records.append(record)
            found.append(predict(image, min_score=0.3, proposals=record.proposals))
    if records:
        draw.comparison(path, records, found, run.classes, run.task)
