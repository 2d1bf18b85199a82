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
    check(settings, data)
    model = models.make(**settings["model"])
    save_config(workdir, settings, data.info)
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


def check(settings: dict[str, Any], data: dataset.Data) -> None:
    """Raises ValueError where the model cannot learn the data set."""
    have, want = len(data.info.classes), settings["model"]["num_classes"]
    if have > want:
        raise ValueError(
            f"the data set {settings['data']['name']!r} has {have} classes, the model "
            f"{want}; set --config.model.num_classes={have}"
        )
    if settings["data"]["mask_stride"] and not data.info.has_masks:
        raise ValueError(
            f"the data set {settings['data']['name']!r} has no masks; set "
            "config.data.mask_stride=None and config.model.masks=False to learn boxes"
        )


def save_config(workdir: pathlib.Path, settings: dict[str, Any], info: Any) -> None:
    """Writes config.json: the sections, defaults included, and the classes' names."""
    name = settings["model"]["name"]
    described = {
        **settings,
        "model": {"name": name, **complete(models.MODELS[name], settings["model"])},
        "data": complete(dataset.make, settings["data"]),
        "classes": list(info.classes),
        "category_ids": list(info.category_ids),
    }
    (workdir / "config.json").write_text(json.dumps(described, indent=1) + "\n")


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
    for i, path in enumerate(prediction.image_files(paths), start=1):
        try:
            image = prediction.read_image(path)
        except ValueError as error:
            complaints.append(str(error))
            continue
        found = call(image, min_score=min_score)
        draw.save(out / f"{path.stem}.png", draw.detections(image, found, run.classes))
        entries = prediction.to_results(found, i, run.category_ids)
        for row, label in zip(entries, found.labels, strict=True):
            name = run.classes[label]
            rows.append({**row, "file_name": str(path), "category": name})
    (out / "predictions.json").write_text(json.dumps(rows))
    return complaints
