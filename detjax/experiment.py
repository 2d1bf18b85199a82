"""A config's sections wired together: what the scripts call, for any model."""

import contextlib
import dataclasses
import inspect
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict, config_dict

from detjax import cli, cluster, draw, files, models, optim, replay, sharding, train
from detjax import evaluate as evaluation
from detjax import predict as prediction
from detjax.checkpoint import Checkpoints, TrainState
from detjax.data import dataset
from detjax.data.builder import Info
from detjax.data.classes import COCO, COCO_IDS, names_for
from detjax.data.example import read
from detjax.data.records import Unreadable
from detjax.weights import convert, published

# Whose keywords a section holds; the model's is the constructor of its name.
SECTIONS: dict[str, Callable[..., Any]] = {
    "data": dataset.make,
    "optimizer": optim.make,
    "eval": evaluation.evaluate,
    "sharding": sharding.make,
    "train": train.fit,
}
# Keywords that no config can hold.
NOT_SETTINGS = {"devices", "evaluate", "layout", "profile", "progress"}


def config(sections: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """A config of `sections`, with the default of every setting that they leave out.

    So every setting can be overridden by a flag; one that is None takes a literal of
    Python.
    """
    filled = ConfigDict(sections)
    name = sections["model"]["name"]
    functions = {**SECTIONS, "model": models.MODELS.get(name, dict)}
    for section, function in functions.items():
        if section not in filled:
            filled[section] = {}
        for setting, parameter in inspect.signature(function).parameters.items():
            if parameter.default is parameter.empty or setting in NOT_SETTINGS:
                continue
            value = filled[section].get(setting, parameter.default)
            unset = config_dict.placeholder(object)
            filled[section][setting] = unset if value is None else value
    return filled


def run(
    config: ConfigDict, workdir: str | pathlib.Path, profile: int = 0
) -> dict[str, float]:
    """Trains what `config` describes in `workdir`, evaluates it, and says how well.

    A `workdir` with a checkpoint in it goes on from there. Leaves config.json,
    metrics.jsonl, tensorboard/, checkpoints/, eval.json, results.json and
    predictions.png; finished/ where the model has a `finish`; see `train.fit` for
    `profile`.

    Raises ValueError where the config does not fit the data.
    """
    workdir = cli.make_workdir(workdir)
    settings = cli.plain(config)
    data = cluster.primary_first(lambda: dataset.make(**settings["data"]))
    described = describe(settings, data.info)
    cluster.primary_first(lambda: check(described, data.info, workdir))
    model = models.make(**settings["model"])
    steps = settings["train"]["steps"]
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
        profile=profile,
        **settings["train"],
    )
    if model.finish is not None:
        state = finished(model.finish, state, data.once, workdir, layout)
    metrics, rows = score(state)
    params, statistics = layout.whole((state.params, state.state))
    if cluster.primary():
        evaluation.write(workdir, metrics, rows)
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


def again(folder: str | pathlib.Path) -> str:
    """What the failed step in `folder`, a run's failed-<step>, says when done again.

    Raises FileNotFoundError where there is none.
    """
    folder = pathlib.Path(folder)
    step, state, batch = replay.read(folder)
    config = prediction.read_config(folder.absolute().parent / "config.json")
    model = models.make(**config["model"])
    found = replay.again(model, state, batch, train.step_key(state))
    return replay.told(step, found)


def import_weights(
    path: str | pathlib.Path,
    *,
    source: str,
    model: str,
    out: str | pathlib.Path,
    allow: str | None = None,
    classes: list[str] | None = None,
) -> convert.Report:
    """Writes the weights of a torch file to the folder `out`; says what was taken.

    For a detector `out` gets a config.json too, so that it can be predicted with.
    Without `classes` the names are COCO's. Raises ValueError where the file or the
    names do not fit the model.
    """
    kwargs = {"num_classes": len(classes)} if classes else {}
    params, state, report = published.load(
        path, source=source, model=model, allow=allow, **kwargs
    )
    out = cli.make_workdir(out)
    if model in models.MODELS:
        made = models.make(model, **kwargs)
        names = tuple(classes or names_for(made.net.num_classes))
        known = dict(zip(COCO, COCO_IDS, strict=True))
        ids = (
            tuple(range(1, len(names) + 1))
            if classes
            else tuple(known.get(name, i) for i, name in enumerate(names, start=1))
        )
        if len(names) != made.net.num_classes:
            raise ValueError(
                f"{model} has {made.net.num_classes} classes, {len(names)} were named"
            )
        letterbox = model in models.LETTERBOXED
        side = models.LETTERBOXED.get(model) or models.SIDES.get(model, 550)
        described = {
            "model": {"name": model, **kwargs},
            "data": {"size": (side, side), "letterbox": letterbox},
            "classes": names,
            "category_ids": ids,
        }
        files.write(out / "config.json", json.dumps(described, indent=1) + "\n")
    published.save(out, params, state)
    return report


def measure(model, params, state, data: dataset.Data, settings, layout=None, **options):
    """Metrics on the evaluation split, and the COCO results entries behind them.

    `options` are those of `evaluate.detect_all`.
    """
    ids = data.info.category_ids
    rows = evaluation.detect_all(
        model,
        params,
        state,
        data.evaluation(),
        category_ids=ids,
        layout=layout,
        **options,
    )
    metrics = evaluation.evaluate(
        rows, data.truth, classes=data.info.classes, category_ids=ids, **settings
    )
    return metrics, rows


def check(described: dict[str, Any], info: Info, workdir: pathlib.Path) -> None:
    """Writes config.json. Raises ValueError where the parts do not fit one another.

    That is the model and the data set, or this config and the run in `workdir`.
    """
    data, model = described["data"], described["model"]
    have, want = len(info.classes), model["num_classes"]
    if have != want:
        raise ValueError(
            f"the data set {info.name!r} has {have} classes, the model {want}; "
            f"set --config.model.num_classes={have}"
        )
    if data["mask_stride"] and not info.has_masks:
        raise ValueError(
            f"the data set {info.name!r} has no masks; set data.mask_stride=None and "
            "model.masks=False in the config to learn boxes"
        )
    path = workdir / "config.json"
    # A run that never came to a checkpoint holds nobody to its config.
    if path.exists() and any((workdir / "checkpoints").glob("[0-9]*")):
        before = prediction.read_config(path)
        now = json.loads(json.dumps(described))
        for section, keys in (("model", now["model"]), ("data", prediction.SIZES)):
            for key in keys:
                was, wanted = before[section].get(key), now[section][key]
                if was != wanted:
                    raise ValueError(
                        f"{workdir} holds a run with {section}.{key}={was}, the config "
                        f"says {wanted}; choose another --workdir"
                    )
    if cluster.primary():
        files.write(path, json.dumps(described, indent=1) + "\n")


def describe(settings: dict[str, Any], info: Info) -> dict[str, Any]:
    """What config.json holds: the sections, defaults included, and the classes."""
    name = settings["model"]["name"]
    model = settings["model"]
    if name in models.MODELS:
        model = {"name": name, **complete(models.MODELS[name], model)}
    return {
        **settings,
        "model": model,
        "data": complete(dataset.make, settings["data"]),
        "classes": list(info.classes),
        "category_ids": list(info.category_ids),
    }


def complete(function: Any, section: dict[str, Any]) -> dict[str, Any]:
    """`section` with the defaults of the `function` whose keywords it holds."""
    signature = inspect.signature(function)
    known = {k: v for k, v in section.items() if k in signature.parameters}
    bound = signature.bind(**known)
    bound.apply_defaults()
    return dict(bound.arguments)


def evaluate(workdir: str | pathlib.Path, best: bool = False) -> dict[str, float]:
    """Metrics of the newest checkpoint, or the `best`; writes eval.json and results.

    The run may have been trained on more devices than there are here.
    """
    loaded = prediction.load(workdir, best=best)
    settings = cli.plain(loaded.config)
    data = cluster.primary_first(lambda: dataset.make(**settings["data"]))
    layout = sharding.nearest(**settings["sharding"])
    metrics, rows = measure(
        loaded.model, loaded.params, loaded.state, data, settings["eval"], layout
    )
    if cluster.primary():
        evaluation.write(workdir, metrics, rows)
    return metrics


def show(
    path: pathlib.Path, run: prediction.Run, data: dataset.Data, count: int = 9
) -> None:
    """Draws some unseen images into the file `path`, truth beside prediction."""
    predict = run.predictor()
    chosen = np.linspace(0, len(data.truth) - 1, min(count, len(data.truth))).astype(
        int
    )
    records, found = [], []
    for i in chosen.tolist():
        with contextlib.suppress(Unreadable):  # the evaluation told of it
            record = data.truth[i]
            image = read(record)
            records.append(record)
            found.append(predict(image, min_score=0.3, proposals=record.proposals))
    if records:
        draw.comparison(path, records, found, run.classes)


def predict(
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    paths: list[str],
    *,
    min_score: float = 0.3,
    best: bool = False,
) -> list[str]:
    """Draws the detections on every image of `paths` into `out`; returns complaints.

    Writes a picture an image and predictions.json: COCO results with the file name, in
    the pixels of the upright original. Files that cannot be read are passed over, and
    each is a sentence of what is returned.
    """
    run = prediction.load(workdir, best=best)
    call = run.predictor()
    out = cli.make_workdir(out)
    rows: list[dict[str, Any]] = []
    complaints = []
    files = [f for f in prediction.image_files(paths) if out not in f.parents]
    if not files:
        raise ValueError(f"there is no image in {', '.join(map(str, paths))}")
    taken: set[str] = set()
    for i, path in enumerate(files, start=1):
        try:
            image = prediction.read_image(path)
        except ValueError as error:
            complaints.append(str(error))
            continue
        found = call(image, min_score=min_score)
        # Two files may share a name in two folders, or but for their suffix.
        name = path.stem if path.stem not in taken else f"{path.stem}-{i}"
        taken.add(name)
        draw.save(out / f"{name}.png", draw.detections(image, found, run.classes))
        entries = prediction.to_results(found, i, run.category_ids)
        for row, label in zip(entries, found.labels, strict=True):
            category = run.classes[label]
            rows.append({**row, "file_name": str(path), "category": category})
    (out / "predictions.json").write_text(json.dumps(rows))
    return complaints
