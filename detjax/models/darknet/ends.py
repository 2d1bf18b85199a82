"""What a network of darknet ends with: heads that find objects, or a classifier's."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from detjax.errors import UserError
from detjax.models.darknet import cfg as cfgs
from detjax.models.darknet import tree as trees
from detjax.models.darknet import yolo_later
from detjax.models.darknet.cfg import Cfg, Section
from detjax.models.darknet.detection import Detection, detection
from detjax.models.darknet.region import Region, region
from detjax.models.darknet.truths import Found, Sums, unplaced
from detjax.models.darknet.yolo import Yolo
from detjax.settings import Location
from detjax.types import Array, Objects

Head = Yolo | Region | Detection


def text(cfg: Location) -> str:
    """The text of a cfg file; `cfg` itself where it is one, of several lines.

    Raises UserError where it cannot be read.
    """
    return str(cfg) if "\n" in str(cfg) else cfgs.text(cfg)


def standing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model with the texts of its cfg and its tree, not their paths.

    Raises UserError where one cannot be read.
    """
    held = dict(settings)
    tree = held.get("tree")
    if "cfg" in held:
        read = described(held["cfg"])
        named = [section for section in read.layers if section.text("tree")]
        tree = tree_file(named[0]) if named and tree is None else tree
        held["cfg"] = text(held["cfg"])
    if tree is not None:
        held["tree"] = trees.text(tree)
    return held


def described(cfg: Location) -> Cfg:
    """The network of a file, or of the text of one (of several lines).

    Raises UserError if it is no cfg, or none for colour images.
    """
    read = cfgs.parse(str(cfg)) if "\n" in str(cfg) else cfgs.read(cfg)
    channels = read.net.whole("channels", 3)
    if channels != 3:
        read.net.refuse(f"channels={channels}; images have 3 here")
    return read


def heads(
    cfg: Cfg, tree: Location | None = None, tree_threshold: float = 0.5
) -> dict[int, Head]:
    """The heads of `cfg` by the layers that they are. Raises UserError without any."""
    if not cfg.heads:
        cfg.layers[-1].refuse(
            "it is the last layer, and no [yolo], [region] or [detection] is before "
            "it: no detector (a classifier has model.name='darknet_classifier')"
        )
    made: dict[int, Head] = {}
    for index in cfg.heads:
        section = cfg.layers[index]
        if section.kind == "region":
            known = tree_of(section, tree)
            made[index] = region(section, known, tree_threshold)
        elif section.kind == "detection":
            made[index] = detection(section)
        else:
            made[index] = yolo_later.told(section)
    counts = {head.classes for head in made.values()}
    if len(counts) > 1:
        cfg.layers[cfg.heads[-1]].refuse(
            f"heads have {sorted(counts)} classes, not one"
        )
    return made


def tree_of(section: Section, given: Location | None = None) -> trees.Tree | None:
    """The tree of the classes of a section, from the file that is `given` or its own.

    Raises UserError where there is none.
    """
    if not section.text("tree"):
        return None
    return trees.read(given or tree_file(section))


def tree_file(section: Section) -> pathlib.Path:
    """The file that a section names as tree=, from here or the folders of its cfg.

    That is the cfg's own and the one above it. Raises UserError where there is none.
    """
    own, below = section.text("tree"), pathlib.Path(section.file).parent
    paths = (pathlib.Path(own), below / own, below.parent / own)
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        section.refuse(f"there is no file {own}; name the tree's with model.tree")
    return found


def read_by(
    made: Mapping[int, Head], outputs: list[Array], cfg: Cfg
) -> dict[int, Array]:
    """What each head reads, of all layers' outputs [b ...].

    Raises UserError where that is not as wide as it takes.
    """
    for index, head in made.items():
        shape = outputs[index].shape
        width = 5 + head.classes
        if isinstance(head, Detection):
            wanted = head.side**2 * (head.classes + 5 * head.count)
            had = math.prod(shape[1:])
        else:
            count = head.mask if isinstance(head, Yolo) else head.anchors
            wanted, had = len(count) * width, shape[-1]
        if had != wanted:
            cfg.layers[index].refuse(
                f"it takes {wanted} numbers of {head.classes} classes, and the layer "
                f"before it has {had}"
            )
    return {index: outputs[index] for index in made}


def found(
    made: Mapping[int, Head], raws: Mapping[int, Array], size: tuple[int, int]
) -> Found:
    """What all heads find in one image, an input of `size` (h, w)."""
    parts = [head.found(raws[index], size) for index, head in made.items()]
    return Found(*map(jnp.concatenate, zip(*parts, strict=True)))


def losses(
    made: Mapping[int, Head],
    raws: Mapping[int, Array],
    objects: Objects,
    window: Array,
    seen: Array,
    size: tuple[int, int],
) -> Sums:
    """The losses of all heads of one image, after `seen` images.

    `window` [4] is where the picture lies in the input.
    """
    somewhere = unplaced(objects, window)
    parts = [
        head.losses(raws[index], objects, size, seen, somewhere)
        if isinstance(head, Region)
        else head.losses(raws[index], objects, size)
        for index, head in made.items()
    ]
    return Sums(*map(sum, zip(*parts, strict=True)))


class Classes(NamedTuple):
    """A classifier's end.

    With a softmax the loss is `factor` times the cross entropy: a [cost] behind it is
    one more. Else it is `scale` times what `cost` names, of the outputs themselves.
    """

    at: int  # the layer whose output is read
    softmax: Section | None
    cost: str
    factor: float
    tree: trees.Tree | None


def classes(cfg: Cfg, tree: Location | None = None) -> Classes:
    """The end of the classifier `cfg`. Raises UserError if it is none."""
    last = cfg.layers[-1]
    if cfg.heads:
        last.refuse("it ends a detector, which has model.name='darknet'")
    at = len(cfg.layers) - 1
    softmax, cost, factor = None, "", 0.0
    if last.kind == "cost":
        cost = last.one_of("type", COSTS, "sse")
        factor, at = last.number("scale", 1), at - 1
    if at >= 0 and cfg.layers[at].kind == "softmax":
        softmax = cfg.layers[at]
        if softmax.whole("groups", 1) != 1:
            softmax.refuse("groups= other than 1 is not built here")
        factor, at = factor + (not softmax.flag("noloss")), at - 1
    if at < 0 or not (softmax or cost):
        last.refuse(
            "it is the last layer: neither a head that finds objects nor a "
            "classifier's [softmax] or [cost]"
        )
    if factor <= 0:
        last.refuse("the classes have no loss (noloss, or scale=0)")
    own = tree_of(softmax, tree) if softmax else None
    return Classes(at, softmax, cost, factor, own)


# Costs by what they are of an output that is off by so much; "masked" leaves out what
# no truth is known of, and of classes all is.
COSTS = {
    "seg": "squares",
    "sse": "squares",
    "masked": "squares",
    "smooth": "smooth",
    "L1": "absolute",
}


def check_tree(tree: trees.Tree | None, count: int) -> None:
    """Raises UserError where a tree is not of `count` classes."""
    if tree is not None and len(tree.parents) != count:
        raise UserError(
            f"the tree has {len(tree.parents):,} classes, the network {count:,}"
        )
