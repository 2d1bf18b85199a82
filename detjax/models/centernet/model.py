"""CenterNet from its stages."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.backbones.hourglass import Hourglass
from detjax.backbones.pyramid import Backbone, check_levels
from detjax.models.centernet.amodal import Amodal
from detjax.models.centernet.box import Box
from detjax.models.centernet.detect import Detect
from detjax.models.centernet.dla_up import DLAUp
from detjax.models.centernet.match import Centres, Match
from detjax.models.centernet.net import HEAT, Head, Net, OnPyramid
from detjax.models.centernet.oriented import Oriented
from detjax.models.centernet.parts import Sums
from detjax.models.centernet.pose import Pose
from detjax.models.centernet.up import Deconv
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.start import initialiser
from detjax.settings import Count, Dtype
from detjax.types import Array, Batch, Inputs, Model, Objects, Spec

# What keeps divisions by a number of objects from 0, in the authors' code.
_EPS = 1e-4


class Parts(NamedTuple):
    """What is read at centres."""

    box: Box
    pose: Pose | None
    oriented: Oriented | None
    amodal: Amodal | None

    def present(self) -> list[Any]:
        """Those that there are."""
        return [part for part in self if part is not None]


def centernet(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone("resnet18", levels=(5,), norm="batch"),
    up: Deconv = Deconv(),
    head: Head = Head(),
    match: Match = Match(),
    box: Box = Box(),
    pose: Pose | None = None,
    oriented: Oriented | None = None,
    amodal: Amodal | None = None,
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """CenterNet on a classifier; the defaults are the authors', on ResNet-18.

    num_classes: the classes that are told apart; if not set those of the data set.
    backbone: a classifier, whose coarsest level is read.
    pose: keypoints of each object; None is without.
    oriented: a box at an angle of each; None is without.
    amodal: a box of the whole of each, what is hidden included; None is without.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.
    """
    kind = jnp.dtype(dtype)
    trunk = OnPyramid(backbone.body(kind), up.module(backbone.others_eps, kind))
    groups = {
        "backbone": r"^backbone\.body\.",
        "up": r"^backbone\.deconv_layers\.",
    }
    parts = Parts(box, pose, oriented, amodal)
    return _made(num_classes, trunk, groups, head, match, parts, detect, pixels, kind)


def centernet_dla(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone("dla34", norm="batch"),
    up: DLAUp = DLAUp(),
    head: Head = Head(hidden=256),
    match: Match = Match(),
    box: Box = Box(),
    pose: Pose | None = None,
    oriented: Oriented | None = None,
    amodal: Amodal | None = None,
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """CenterNet on all levels of a classifier; the defaults are the authors' DLA-34.

    num_classes: the classes that are told apart; if not set those of the data set.
    backbone: a classifier, whose levels are joined to one map of the finest of them.
    pose: keypoints of each object; None is without.
    oriented: a box at an angle of each; None is without.
    amodal: a box of the whole of each, what is hidden included; None is without.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Raises UserError where the backbone's levels do not follow one another.
    """
    check_levels(backbone)
    kind = jnp.dtype(dtype)
    groups = {
        "backbone": r"^backbone\.body\.",
        "up": r"^backbone\.(dla_up|ida_up)\.",
    }
    trunk, parts = up.module(backbone, kind), Parts(box, pose, oriented, amodal)
    return _made(num_classes, trunk, groups, head, match, parts, detect, pixels, kind)


def centernet_hourglass(
    *,
    num_classes: Count,
    backbone: Hourglass = Hourglass(),
    head: Head = Head(hidden=256),
    match: Match = Match(),
    box: Box = Box(),
    pose: Pose | None = None,
    oriented: Oriented | None = None,
    amodal: Amodal | None = None,
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """CenterNet on stacked hourglasses, each of which is supervised.

    num_classes: the classes that are told apart; if not set those of the data set.
    backbone: the hourglasses; the defaults are Hourglass-104.
    pose: keypoints of each object; None is without.
    oriented: a box at an angle of each; None is without.
    amodal: a box of the whole of each, what is hidden included; None is without.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.
    """
    kind = jnp.dtype(dtype)
    groups = {"backbone": r"^backbone\."}
    trunk, parts = backbone.body(kind), Parts(box, pose, oriented, amodal)
    return _made(num_classes, trunk, groups, head, match, parts, detect, pixels, kind)


def _made(
    num_classes: int,
    trunk: linen.Module,
    groups: dict[str, str],
    head: Head,
    match: Match,
    parts: Parts,
    detect: Detect,
    pixels: str,
    dtype: Any,
) -> Model:
    """The model of a trunk and of what is read at centres."""
    maps = {HEAT: num_classes}
    for part in parts.present():
        maps |= part.maps()
    net = Net(trunk, maps, head, pixels, dtype)
    groups = groups | {"head": rf"^({'|'.join(maps)})\."}

    def loss_of(params, state, batch: Batch, key):
        for part in parts.present():
            if hasattr(part, "check"):
                part.check(batch)
        images, seen = batch.inputs.images, batch.inputs.view.valid
        stacks, updated = net.apply(
            {"params": params, **state}, images, train=True, mutable=[*state]
        )
        size = images.shape[1:3]

        def one(stacks, objects):
            cells = stacks[0][HEAT].shape[:2]
            target = match.centres(objects, size, cells, num_classes)
            each = [sums(maps, target, objects, parts) for maps in stacks]
            return jax.tree.map(lambda *x: sum(x) / len(x), *each)

        found = jax.tree.map(
            lambda x: jnp.sum(jnp.where(seen, x, 0)),
            each_image(one)(stacks, batch.target),
        )
        means = {
            name: total / (jnp.maximum(number, 1) if "heat" in name else number + _EPS)
            for name, (total, number) in found.items()
        }
        positives = found["size"][1] / 2
        return sum(means.values()), (updated, {**means, "positives": positives})

    def predict(params, state, inputs: Inputs):
        stacks: Any = net.apply({"params": params, **state}, inputs.images)
        last = stacks[-1]
        (h, w), (mh, mw) = inputs.images.shape[1:3], last[HEAT].shape[1:3]
        scale = jnp.array([w / mw, h / mh], jnp.float32)

        def one(maps, window):
            return detect(maps, parts, window, scale=scale)

        return each_image(one)(last, windows(inputs))

    spec = Spec("detection", num_classes, groups=groups)
    return Model(spec, initialiser(net), loss_of, predict, net)


def sums(
    maps: dict[str, Array], target: Centres, objects: Objects, parts: Parts
) -> Sums:
    """The losses of one image, of the maps of one stack."""
    focal = losses.gaussian_focal(maps[HEAT], target.heat)
    some = target.learnt[..., None] | (target.heat == 1)
    found: Sums = {
        "heat": (jnp.sum(jnp.where(some, focal, 0.0)), jnp.sum(target.heat == 1))
    }
    for part in parts.present():
        found |= part.sums(maps, target, objects)
    return found


def _resnet(name: str) -> dict[str, Any]:
    return {
        **_PUBLISHED,
        "backbone": dataclasses.replace(Backbone(levels=(5,), norm="batch"), name=name),
        "up": Deconv((256, 128, 64), deformable=True),
    }


# Of COCO's 80 classes, with what the authors' files were trained with.
_PUBLISHED: dict[str, Any] = {"num_classes": 80, "pixels": "cornernet"}
ORIGINALS: dict[str, dict[str, Any]] = {
    "centernet_resnet18": _resnet("resnet18"),
    "centernet_resnet101": _resnet("resnet101"),
}
DLA: dict[str, dict[str, Any]] = {"centernet_dla34": _PUBLISHED}
HOURGLASS: dict[str, dict[str, Any]] = {"centernet_hourglass104": _PUBLISHED}
