"""From a published weight file to a folder that predicts and that runs start from."""

import inspect
import json
import pathlib

from detjax import files, models
from detjax.data.classes import COCO, COCO_IDS, names_for
from detjax.errors import UserError
from detjax.weights import published
from detjax.weights.convert import Report

# What a run, or an earlier import, leaves in its folder.
LEFT = ("config.json", "metrics.jsonl", "checkpoints", "finished", "best", "eval.json")


def import_weights(
    path: str | pathlib.Path,
    *,
    source: str,
    model: str,
    out: str | pathlib.Path,
    allow: str | None = None,
    classes: list[str] | None = None,
) -> Report:
    """Writes the weights of a torch file to the folder `out`; says what was taken.

    For a detector `out` gets a config.json too, so that it can be predicted with.
    Without `classes` the names are COCO's. Raises UserError, with nothing written,
    where the file or the names do not fit the model, and where `out` holds a run or an
    earlier import.
    """
    out = pathlib.Path(out)
    check_free(out)
    kwargs = {"num_classes": len(classes)} if classes else {}
    # Before the file, which takes long to read.
    described = describe(model, classes) if model in models.MODELS else None
    params, state, report = published.load(
        path, source=source, model=model, allow=allow, **kwargs
    )
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    published.save(out, params, state)
    if described is not None:
        files.write_text(out / "config.json", json.dumps(described, indent=1) + "\n")
    return report


def check_free(out: pathlib.Path) -> None:
    """Raises UserError where `out` is no folder, or holds a run or an import."""
    with files.reading(out):
        held = [name for name in LEFT if (out / name).exists()]
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file; choose another --out")
    if held:
        raise UserError(
            f"{out} holds a run, or weights imported before ({', '.join(held)}); "
            "choose another --out, or remove that folder first"
        )


def describe(model: str, classes: list[str] | None) -> dict:
    """What config.json says of the detector `model` with `classes`, or COCO's.

    Raises UserError where these names cannot be its classes.
    """
    for name in classes or ():
        if not name.strip() or classes.count(name) > 1:
            raise UserError(
                f"--classes={','.join(classes)} names {name!r} "
                f"{classes.count(name)} times; every class has a name of its own"
            )
    asked = inspect.signature(models.MODELS[model]).parameters["num_classes"]
    if not classes and asked.default is asked.empty:
        raise UserError(
            f"{model} has classes of any number; name the file's with --classes, or "
            f"choose one of {', '.join(models.SIDES | models.LETTERBOXED)}"
        )
    kwargs = {"num_classes": len(classes)} if classes else {}
    count = models.make(model, **kwargs).net.num_classes
    names = tuple(classes or names_for(count))
    if len(names) != count:
        raise UserError(
            f"{model} has {count} classes, {len(names)} were named; name all with "
            "--classes"
        )
    known = dict(zip(COCO, COCO_IDS, strict=True))
    ids = (
        tuple(range(1, count + 1))
        if classes
        else tuple(known.get(name, i) for i, name in enumerate(names, start=1))
    )
    letterbox = model in models.LETTERBOXED
    side = models.LETTERBOXED.get(model) or models.SIDES.get(model, 550)
    return {
        "model": {"name": model, **kwargs},
        "data": {"size": (side, side), "letterbox": letterbox},
        "classes": names,
        "category_ids": ids,
    }
