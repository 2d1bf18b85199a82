"""A config's sections wired together: what the scripts call, for any model."""

import inspect
import json
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from detjax import cli, draw, models, optim, train
from detjax import evaluate as evaluation
from detjax import predict as prediction
from detjax.data import dataset
from detjax.data.builder import Info
from detjax.data.classes import COCO, COCO_IDS
from detjax.weights import convert, published


def run(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Trains what `config` describes in `workdir`, evaluates it, and says how well.

    A `workdir` with a checkpoint in it goes on from there. Leaves config.json,
    metrics.jsonl, checkpoints/, eval.json, results.json and predictions.png.

    Raises ValueError where the config does not fit the data.
    """
    workdir = cli.make_workdir(workdir)
    settings = cli.plain(config)
    data = dataset.make(**settings["data"])
    described = describe(settings, data.info)
    check(described, data.info, workdir)
    model = models.make(**settings["model"])
    optimizer, rate = optim.make(
        **settings["optimizer"], steps=settings["train"]["steps"]
    )

    def score(state):
        return measure(model, state.params, state.state, data, settings["eval"])

    state = train.fit(
        model,
        optimizer,
        rate,
        data.train,
        workdir=workdir,
        evaluate=lambda state: score(state)[0],
        **settings["train"],
    )
    metrics, rows = score(state)
    evaluation.write(workdir, metrics, rows)
    show(workdir, data)
    return metrics


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
        names = tuple(classes or COCO)
        ids = COCO_IDS if names == COCO else tuple(range(1, len(names) + 1))
        made = models.make(model, **kwargs)
        if len(names) != made.net.num_classes:
            raise ValueError(
                f"{model} has {made.net.num_classes} classes, {len(names)} were named"
            )
        side = models.SIDES.get(model, 550)
        described = {
            "model": {"name": model, **kwargs},
            "data": {"size": (side, side), "letterbox": False},
            "classes": names,
            "category_ids": ids,
        }
        (out / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    published.save(out, params, state)
    return report


def measure(model, params, state, data: dataset.Data, settings: dict[str, Any]):
    """Metrics on the evaluation split, and the COCO results entries behind them."""
    ids = data.info.category_ids
    rows = evaluation.detect_all(
        model, params, state, data.evaluation(), category_ids=ids
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
    if path.exists() and (workdir / "checkpoints").is_dir():
        before = json.loads(path.read_text())
        now = json.loads(json.dumps(described))
        for section, keys in (("model", now["model"]), ("data", ("size", "letterbox"))):
            for key in keys:
                was, wanted = before[section].get(key), now[section][key]
                if was != wanted:
                    raise ValueError(
                        f"{workdir} holds a run with {section}.{key}={was}, the config "
                        f"says {wanted}; choose another --workdir"
                    )
    path.write_text(json.dumps(described, indent=1) + "\n")


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


def evaluate(workdir: str | pathlib.Path) -> dict[str, float]:
    """Metrics of the newest checkpoint; writes eval.json and results.json again."""
    loaded = prediction.load(workdir)
    settings = cli.plain(loaded.config)
    data = dataset.make(**settings["data"])
    metrics, rows = measure(
        loaded.model, loaded.params, loaded.state, data, settings["eval"]
    )
    evaluation.write(workdir, metrics, rows)
    return metrics


def show(workdir: pathlib.Path, data: dataset.Data, count: int = 9) -> None:
    """Writes predictions.png: some unseen images, truth beside prediction."""
    run = prediction.load(workdir)
    predict = run.predictor()
    chosen = np.linspace(0, len(data.truth) - 1, min(count, len(data.truth))).astype(
        int
    )
    records = [data.truth[int(i)] for i in chosen]
    found = [predict(draw.decode(r.image), min_score=0.3) for r in records]
    draw.comparison(workdir / "predictions.png", records, found, run.classes)


def predict(
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    paths: list[str],
    *,
    min_score: float = 0.3,
) -> list[str]:
    """Draws the detections on every image of `paths` into `out`; returns complaints.

    Writes a picture an image and predictions.json: COCO results with the file name, in
    the pixels of the upright original. Files that cannot be read are passed over, and
    each is a sentence of what is returned.
    """
    run = prediction.load(workdir)
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
