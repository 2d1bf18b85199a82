"""Imports a published weight file as a folder for prediction and for new runs."""

import inspect
import json
import pathlib

from detjax import files, import_darknet, models
from detjax.data.classes import COCO, COCO_IDS, names_for
from detjax.errors import UserError
from detjax.weights import published
from detjax.weights.convert import Report

# The files of a run or of an earlier import.
LEFT = ("config.json", "metrics.jsonl", "checkpoints", "solved", "best", "eval.json")


def import_weights(
    path: str | pathlib.Path,
    *,
    source: str,
    model: str,
    out: str | pathlib.Path,
    allow: str | None = None,
    classes: list[str] | None = None,
) -> Report:
    """Writes the weights of a file to the folder `out`; prints a report.

    A file of darknet's (`source` "darknet") has its cfg file as `model`; others are
    torch's and safetensors. For a detector, and any network of darknet's, `out` also
    gets a config.json, for prediction. Without `classes` the names are COCO's, or those
    that `import_darknet.describe` finds. Raises UserError, with nothing written, if the
    file or the names do not fit the model, or if `out` holds a run or an earlier
    import.
    """
    out = pathlib.Path(out)
    check_free(out)
    kwargs = {"num_classes": len(classes)} if classes else {}
    described: dict | None
    if source == import_darknet.SOURCE:
        if allow:
            raise UserError("files of darknet have no names; leave out --allow")
        described = import_darknet.describe(model, classes)
        params, state, report = import_darknet.load(path, described["model"])
    else:
        # Before the file, which is slow to read.
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
    """Raises UserError if `out` is not a folder, or holds a run or an import."""
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
    """The config.json of the detector `model` with `classes`, or COCO's.

    Raises UserError if these names cannot be its classes.
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
    count = models.make(model, **kwargs).spec.outputs
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
        else tuple(
            known.get(name, i)
            # A background has no number among COCO's.
            for i, name in enumerate(names, start=0 if names[0] == "background" else 1)
        )
    )
    letterbox = model in models.LETTERBOXED
    side = models.LETTERBOXED.get(model) or models.SIDES.get(model, 550)
    return {
        "model": {"name": model, **kwargs},
        "data": {"size": (side, side), "letterbox": letterbox},
        "classes": names,
        "category_ids": ids,
    }
