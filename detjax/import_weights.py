"""Imports a published weight file as a folder for prediction and for new runs."""

import inspect
import json
import pathlib
import sys

from detjax import files, import_darknet, models
from detjax.backbones import facts
from detjax.data.classes import COCO, COCO_IDS, names_for
from detjax.errors import UserError
from detjax.weights import names, published
from detjax.weights.convert import Report

BODY = "backbone"  # the part of a classifier that all its parameters are in
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
    torch's and safetensors. `out` also gets a config.json, for prediction; a backbone
    becomes a classifier, of images of its published size and normalisation. Without
    `classes`, names or a file of them, they are COCO's, or those that
    `import_darknet.describe` finds, and numbers for a classifier. Raises UserError,
    with nothing written, if the file or the names do not fit the model, or if `out`
    holds a run or an earlier import.
    """
    out = pathlib.Path(out)
    check_free(out)
    classes = import_darknet.named(classes) if source in names.SOURCES else classes
    kwargs = {"num_classes": len(classes)} if classes else {}
    if source == import_darknet.SOURCE:
        if allow:
            raise UserError("files of darknet have no names; leave out --allow")
        described = import_darknet.describe(model, classes)
        params, state, report = import_darknet.load(path, described["model"])
    else:
        # Before the file, which is slow to read.
        detector = model in models.MODELS
        described = describe(model, classes) if detector else {}
        params, state, report = published.load(
            path, source=source, model=model, allow=allow, **kwargs
        )
        if not detector:
            described = of_classifier(model, source, classes)
            params = {BODY: params}
            state = {name: {BODY: held} for name, held in state.items()}
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    published.save(out, params, state)
    files.write_text(out / "config.json", json.dumps(described, indent=1) + "\n")
    return report


def of_classifier(model: str, source: str, classes: list[str] | None) -> dict:
    """The config.json of the classifier whose backbone is called `model`."""
    fact = facts.FACTS[model]
    called = classes or [f"class {i}" for i in range(fact.classes)]
    described = {
        "name": "classifier",
        "backbone": {"name": model},
        "num_classes": len(called),
    }
    pixels = facts.pixels(model, source)
    if pixels:
        described["pixels"] = pixels
    else:
        print(
            f"warning: weights of {model} have learnt from images in a form that "
            "model.pixels does not know; answers will be worse than published",
            file=sys.stderr,
        )
    return {
        "model": described,
        "data": {"size": (fact.side, fact.side)},
        "classes": called,
        "category_ids": list(range(1, len(called) + 1)),
    }


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
    quantity = models.QUANTITIES.get(model)
    names = tuple(classes or ([quantity] if quantity else names_for(count)))
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
