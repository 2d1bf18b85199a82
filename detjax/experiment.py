"""A config's sections wired together: what the scripts call, for any model."""

import contextlib
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from detjax import cli, cluster, draw, files, models, optim, replay, sharding, train
from detjax import config as config_schema
from detjax import evaluate as evaluation
from detjax import predict as prediction
from detjax.checkpoint import Checkpoints, TrainState
from detjax.config import Settings
from detjax.data import dataset, plan
from detjax.data.builder import Info
from detjax.data.example import read
from detjax.data.records import Unreadable
from detjax.errors import UserError, mended_by

# What constructors raise for values of another kind than they are made for.
BAD_SETTINGS = (TypeError, ValueError)
SEE = "see the section {!r} of the config, and --debug for the trace"
config = config_schema.config  # what the files in configs/ call


def run(
    config: ConfigDict, workdir: str | pathlib.Path, profile: int = 0
) -> dict[str, float]:
    """Trains what `config` describes in `workdir`, evaluates it, and says how well.

    A `workdir` with a checkpoint in it goes on from there. Leaves config.json,
    metrics.jsonl, tensorboard/, checkpoints/, eval.json, results.json and
    predictions.png; finished/ where the model has a `finish`; see `train.fit` for
    `profile`.

    Raises UserError where the config does not fit the data.
    """
    settings = config_schema.resolve(config)
    workdir = cli.make_workdir(workdir)
    with contextlib.ExitStack() as held:
        if cluster.primary():
            held.enter_context(files.lock(workdir / "run.lock", "training"))
        return run_locked(settings, workdir, profile)


def run_locked(
    settings: Settings, workdir: pathlib.Path, profile: int
) -> dict[str, float]:
    """`run` in a `workdir` that nobody else writes to."""
    data = cluster.primary_first(lambda: dataset.make(**settings["data"]))
    settings["model"].setdefault("num_classes", len(data.info.classes))
    with mended_by(SEE.format("model"), BAD_SETTINGS):
        model = models.make(**settings["model"])
    described = describe(settings, data.info)
    cluster.primary_first(lambda: check(described, data.info, workdir))
    steps = settings["train"]["steps"]
    with mended_by(SEE.format("optimizer"), BAD_SETTINGS):
        optimizer, rate = optim.make(**settings["optimizer"], steps=steps)
    layout = sharding.make(**settings["sharding"])

    def score(state, **options):
        weights = (state.params, state.state)
        return measure(model, *weights, data, settings["eval"], layout, **options)

    state = train.fit(
        model,
        optimizer,
        rate,
        data.train,
        workdir=workdir,
        evaluate=lambda state, stop: score(state, stop=stop)[0],
        layout=layout,
        begun=lambda: write_config(described, workdir),
        profile=profile,
        **settings["train"],
    )
    if model.finish is not None:
        state = finished(model.finish, state, data.once, workdir, layout)
    metrics, found = score(state)
    params, statistics = layout.whole((state.params, state.state))
    if cluster.primary():
        evaluation.write(workdir, metrics, found.rows)
        trained = prediction.assemble(described, params, statistics, steps)
        show(workdir / "predictions.png", trained, data)
    return metrics


def finished(
    finish: Callable[..., Any],
    state: TrainState,
    once: Callable[[], Iterable],
    workdir: pathlib.Path,
    layout: sharding.Layout,
) -> TrainState:
    """`state` with what `finish` makes of its parameters; see `types.Model`.

    It is written to `workdir`/finished, and taken from there if it is of this step. The
    checkpoints stay as they are: training may go on from them.
    """
    step = int(state.step)
    folder = prediction.FINISHED
    with contextlib.closing(Checkpoints(workdir, keep=1, folder=folder)) as held:
        if held.latest() == step:
            return held.restore(state)[0]
        # Every process solves the same, on a device of its own.
        here = jax.device_put(layout.whole((state.params, state.state)))
        # What takes minutes is seen to go on.
        quiet = not cluster.primary()
        batches = tqdm.tqdm(once(), disable=quiet, desc="finish", unit="batch")
        params = layout.keep(finish(*here, batches))
        state = dataclasses.replace(state, params=params)
        held.save(step, state, {})
    return state


def replay_step(folder: str | pathlib.Path) -> str:
    """What the failed step in `folder`, a run's failed-<step>, says when done again.

    Raises UserError where there is none.
    """
    folder = pathlib.Path(folder)
    failed = replay.read(folder)
    config = prediction.read_config(folder.absolute().parent / "config.json")
    model = models.make(**config["model"])
    found = replay.replay_step(model, failed, train.step_key(failed.run))
    return replay.describe(failed.step, found)


def measure(model, params, state, data: dataset.Data, settings, layout=None, **options):
    """Metrics on the evaluation split, and what was found there.

    `options` are those of `evaluate.detect_all`.
    """
    ids = data.info.category_ids
    found = evaluation.detect_all(
        model,
        params,
        state,
        data.evaluation(),
        image_ids=data.image_ids,
        category_ids=ids,
        layout=layout,
        **options,
    )
    truth = evaluation.truth_of(data.truth, data.skip)
    metrics = evaluation.evaluate(
        found, truth, classes=data.info.classes, category_ids=ids, **settings
    )
    return metrics, found


def check(described: Settings, info: Info, workdir: pathlib.Path) -> None:
    """Raises UserError where the parts of an experiment do not fit one another.

    That is the model and the data set, or this config and the run in `workdir`.
    """
    data, model = described["data"], described["model"]
    have, want = len(info.classes), model["num_classes"]
    if have != want:
        raise UserError(
            f"the data set {info.name!r} has {have} classes, the model {want}; "
            f"leave model.num_classes out, or set --config.model.num_classes={have}"
        )
    if (data["mask_stride"] or data["mask_size"]) and not info.has_masks:
        raise UserError(
            f"the data set {info.name!r} has no masks; set data.mask_stride=None (and "
            "data.mask_size) and model.masks=False in the config to learn boxes"
        )
    path = workdir / "config.json"
    if path.exists():
        before = prediction.read_config(path)
        # A run that never came to a checkpoint holds nobody to its config.
        if any((workdir / "checkpoints").glob("[0-9]*")):
            compare(before, json.loads(json.dumps(described)), workdir)


def write_config(described: Settings, workdir: pathlib.Path) -> None:
    """Writes config.json, by the first process."""
    if cluster.primary():
        text = json.dumps(described, indent=1) + "\n"
        files.write_text(workdir / "config.json", text)


# What a run that goes on cannot change: its network, what it is shown, what its numbers
# mean, and what only a run's first step reads.
FIXED = re.compile(
    rf"model\.|classes$|category_ids$|data\.({'|'.join(plan.KEYWORDS)})$"
    r"|data\.seed$|train\.seed$"
)


def compare(before: Settings, now: Settings, workdir: pathlib.Path) -> None:
    """Says what a run that goes on does otherwise than before.

    Raises UserError where that is not possible.
    """
    changed = config_schema.changes(with_defaults(before, now), now)
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
    """An earlier config.json with the defaults of what was no setting then."""
    held = {
        section: before[section] if isinstance(before.get(section), dict) else {}
        for section in ("model", *config_schema.SECTIONS)
    }
    named = {**held, "model": {**held["model"], "name": now["model"]["name"]}}
    filled = json.loads(json.dumps(config_schema.complete(named)))
    filled["model"]["name"] = held["model"].get("name")
    return {**before, **filled}


def describe(settings: Settings, info: Info) -> dict[str, Any]:
    """What config.json holds: all settings, defaults included, and the classes."""
    return {
        **config_schema.complete(settings),
        "classes": list(info.classes),
        "category_ids": list(info.category_ids),
        # By which annotations that changed are noticed.
        "made_from": dict(info.made_from),
    }


def evaluate(workdir: str | pathlib.Path, best: bool = False) -> dict[str, float]:
    """Metrics of the newest checkpoint, or the `best`; writes eval.json and results.

    The run may have been trained on more devices than there are here. Raises UserError
    where the data set's classes are not those that the run has learnt.
    """
    loaded = prediction.load(workdir, best=best)
    path = pathlib.Path(workdir) / "config.json"
    with files.reading(path, "put back the one that the run wrote"):
        settings = {
            section: config_schema.plain(loaded.config[section])
            for section in config_schema.SECTIONS
        }
        for section, function in config_schema.SECTIONS.items():
            config_schema.check_keywords(section, function, settings[section])
    # A work directory is data: what it names is read, and nothing is made.
    data = cluster.primary_first(
        lambda: dataset.make(**{**settings["data"], "prepare": None})
    )
    layout = sharding.nearest(**settings["sharding"])
    if list(data.info.classes) != loaded.classes:
        raise UserError(
            f"the run in {workdir} has learnt the classes {', '.join(loaded.classes)}; "
            f"the data set {data.info.name!r} has {', '.join(data.info.classes)}: make "
            "it again with those classes, in that order"
        )
    metrics, found = measure(
        loaded.model, loaded.params, loaded.state, data, settings["eval"], layout
    )
    if cluster.primary():
        evaluation.write(workdir, metrics, found.rows)
    return metrics


def show(
    path: pathlib.Path, run: prediction.Run, data: dataset.Data, count: int = 9
) -> None:
    """Draws some unseen images into the file `path`, truth beside prediction."""
    predict = run.predictor()
    pictures = data.pictures
    chosen = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(int)
    records, found = [], []
    for i in chosen.tolist():
        with contextlib.suppress(Unreadable):  # the evaluation told of it
            record = pictures[i]
            image = read(record)
            records.append(record)
            found.append(predict(image, min_score=0.3, proposals=record.proposals))
    if records:
        draw.comparison(path, records, found, run.classes)
