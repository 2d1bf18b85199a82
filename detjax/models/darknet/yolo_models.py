"""YOLO's models by name, without the authors' files.

Their networks are written in `yolos` and are those of the cfgs of the same names; all
else is `darknet`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from detjax.errors import UserError
from detjax.models.darknet import tree as trees
from detjax.models.darknet import yolos
from detjax.models.darknet.cfg import Cfg
from detjax.models.darknet.detect import Detect
from detjax.models.darknet.model import Priors, detector
from detjax.models.darknet.sections import Anchors
from detjax.nn.images import Pixels
from detjax.settings import Count, Dtype, Location, Positive
from detjax.types import Model

Network = Literal[
    "yolov1",
    "yolov1_tiny",
    "yolov2",
    "yolov2_tiny",
    "yolo9000",
    "yolov3",
    "yolov3_spp",
    "yolov3_tiny",
    "yolov4",
    "yolov4_tiny",
]
# The pixels of a cell of [region]'s maps, in which its anchors are measured.
CELL = 32


class _Written(NamedTuple):
    """A network that is written here."""

    cfg: Callable[..., Cfg]  # (classes, width, anchors) -> its sections
    anchors: Anchors  # in pixels; those of YOLOv1 are none
    heads: int  # that share them
    unit: int = 1  # pixels in which its sections measure them


def yolo(
    *,
    network: Network,
    num_classes: Count | None = None,
    width: Positive = 1.0,
    priors: Priors = Priors(),
    tree: Location | None = None,
    detect: Detect = Detect(),
    pixels: Pixels = "unit",
    dtype: Dtype = "float32",
) -> Model:
    """YOLO, from its first version to its fourth; see `darknet` for what they share.

    network: which of them; each is a model of that name, too.
    num_classes: the classes that are told apart; if not set those of the data set, or
        without one those of the tree, else 80.
    width: a factor on the filters of all layers.
    tree: of the classes (YOLO9000), in the order of the data set's: a file with a name
        and the number of its parent a line, -1 for none, or the text of one.
    pixels: how images are normalised: as darknet does to 0..1 ("unit"), or otherwise.
    dtype: of activations; parameters and losses are float32.

    YOLOv1 works at the size of input that it was trained with, the others at all whose
    sides are multiples of 32.

    Raises UserError if the number of anchors is not a multiple of the number of heads.
    """
    if (network == "yolo9000") != (tree is not None):
        raise UserError(
            f"model.tree={tree!r} is of the classes of yolo9000, and {network} is the "
            "model; set both or neither"
        )
    written = NETWORKS[network]
    sizes = priors.sizes or written.anchors
    _check_anchors(network, written, sizes)
    if num_classes is None:
        num_classes = len(trees.read(tree).parents) if tree is not None else 80
    anchors = [(w / written.unit, h / written.unit) for w, h in sizes]
    return detector(
        written.cfg(num_classes, width, anchors),
        priors=Priors(positive=priors.positive),
        detect=detect,
        tree=tree,
        pixels=pixels,
        dtype=dtype,
    )


def _check_anchors(network: str, written: _Written, sizes: Sequence) -> None:
    """Raises UserError where the heads cannot share the anchors."""
    if not written.heads and sizes:
        raise UserError(f"model.priors.sizes is set, but {network} has no anchors")
    if written.heads and len(sizes) % written.heads:
        raise UserError(
            f"model.priors.sizes has {len(sizes)} anchors and {network} "
            f"{written.heads} heads; give a multiple of that"
        )


def _pixels(cells: Anchors) -> Anchors:
    return [(w * CELL, h * CELL) for w, h in cells]


NETWORKS: Mapping[Network, _Written] = {
    "yolov1": _Written(lambda c, w, _: yolos.yolov1(c, w), (), 0),
    "yolov1_tiny": _Written(lambda c, w, _: yolos.yolov1_tiny(c, w), (), 0),
    "yolov2": _Written(yolos.yolov2, _pixels(yolos.V2), 1, CELL),
    "yolov2_tiny": _Written(yolos.yolov2_tiny, _pixels(yolos.V2), 1, CELL),
    "yolo9000": _Written(yolos.yolo9000, _pixels(yolos.V9000), 1, CELL),
    "yolov3": _Written(yolos.yolov3, yolos.V3, 3),
    "yolov3_spp": _Written(
        lambda c, w, anchors: yolos.yolov3(c, w, anchors, pyramid=True), yolos.V3, 3
    ),
    "yolov3_tiny": _Written(yolos.yolov3_tiny, yolos.TINY, 2),
    "yolov4": _Written(yolos.yolov4, yolos.V4, 3),
    "yolov4_tiny": _Written(yolos.yolov4_tiny, yolos.TINY, 2),
}
