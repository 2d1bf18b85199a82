"""Weight files of darknet, with their cfg, as checkpoints and configs."""

import collections
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from detjax import files, models
from detjax.data.classes import COCO, COCO_IDS, VOC
from detjax.errors import UserError
from detjax.models.darknet import ends
from detjax.models.darknet import tree as trees
from detjax.weights import darknet
from detjax.weights.convert import Report

SOURCE = "darknet"
# Names by number, of files that come without.
NAMES = {len(COCO): COCO, len(VOC): VOC}


def load(path: str | pathlib.Path, settings: dict[str, Any]) -> tuple[Any, Any, Report]:
    """Params and state of the model of `settings` from a file of darknet.

    Of a file that ends before the last layer those behind it are freshly initialised
    and listed in the report. Raises UserError if it does not fit.
    """
    model, cfg = models.make(**settings), ends.described(settings["cfg"])
    size = cfg.net.whole("height"), cfg.net.whole("width")
    fresh: Any = model.init, jax.random.key(0, impl="rbg")
    image = jnp.zeros((1, *size, 3), jnp.uint8)
    held = jax.eval_shape(*fresh, image)
    try:
        complete = darknet.whole(path, *held)
    except UserError as error:
        if settings["num_classes"] == cfg.classes:
            raise
        raise UserError(
            f"{error}; leave out --classes where the file has the {cfg.classes} "
            "classes of its cfg: a run of others starts from the folder, with "
            "train.init_allow for the layers before the heads"
        ) from None
    if not complete:
        init, key = fresh
        held = jax.jit(init)(key, image)
    return darknet.load(path, *held)


def describe(cfg: str | pathlib.Path, classes: list[str] | None) -> dict[str, Any]:
    """The config.json of the network of a cfg file, which has the file's text.

    `classes` are the names of its classes, or a file of them, a line each; without them
    those of a tree, or of COCO or VOC where there are so many. Other numbers than the
    cfg's change its heads. Raises UserError if it is no network of classes.
    """
    text = files.read_text(cfg)
    read = ends.described(cfg)
    name = "darknet" if read.heads else "darknet_classifier"
    settings: dict[str, Any] = {"name": name, "cfg": text}
    tree = next(filter(None, map(_tree, read.layers)), None)
    if tree is not None:
        settings["tree"] = trees.text(tree[0])
    names = named(classes) or (tree and list(tree[1]))
    count = models.make(**settings).spec.outputs
    names = names or list(NAMES.get(count, [f"class {i}" for i in range(count)]))
    if len(names) != count:
        settings["num_classes"] = count = len(names)
        models.make(**settings)
    settings["num_classes"] = count
    known = dict(zip(COCO, COCO_IDS, strict=True)) if tuple(names) == COCO else {}
    return {
        "model": settings,
        "data": {
            "size": (read.net.whole("height"), read.net.whole("width")),
            # YOLOv1 and classifiers see pictures stretched.
            "letterbox": any(read.layers[i].kind != "detection" for i in read.heads),
            "fill": (127, 127, 127),
        },
        "classes": names,
        "category_ids": [known.get(name, i) for i, name in enumerate(names, start=1)],
    }


def named(classes: list[str] | None) -> list[str] | None:
    """The names that are given, or those of the file that is.

    Raises UserError where one comes twice or is empty.
    """
    if not classes:
        return None
    if len(classes) == 1 and pathlib.Path(classes[0]).is_file():
        classes = [
            line.strip() for line in files.read_text(classes[0]).strip().splitlines()
        ]
    for name, times in collections.Counter(classes).items():
        if not name.strip() or times > 1:
            raise UserError(
                f"--classes names {name!r} {times} times; every class has a name of "
                "its own"
            )
    return classes


def _tree(section: Any) -> Any:
    """The file and the names of the tree of a section, if it has one."""
    if not section.text("tree"):
        return None
    return ends.tree_file(section), ends.tree_of(section).names
