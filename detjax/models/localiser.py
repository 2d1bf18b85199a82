"""Classification with localisation: a class and one box of an image's main object.

    b, c     images, classes
    logits   [b c]
    boxes    [b c 4] or [b 1 4]: centre and sides, in units of the input's

What detection began with: the classifiers of ImageNet's localisation challenge had a
second head of four numbers (Simonyan and Zisserman 2015, appendix A; Sermanet et al.
2014). To train it in two steps, learn the classes first with loss.weight 0, then begin
another run from these weights that freezes the groups "backbone" and "class".
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.backbones.pyramid import Backbone, Pyramid, pyramid
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, normalize, windows
from detjax.nn.pool import binned
from detjax.nn.start import initialiser
from detjax.ops import boxes as geometry
from detjax.settings import Count, Dtype, NonNegative, Positive
from detjax.types import Array, Batch, Inputs, Located, Model, Objects, Spec


@dataclasses.dataclass(frozen=True)
class Box:
    """The head of four numbers.

    side: of the grid that the last features are averaged to; places are lost in 1.
    hidden: units of its hidden layer.
    by_class: a box for each class, else one for all.
    """

    side: Count = 7
    hidden: Count = 256
    by_class: bool = False


@dataclasses.dataclass(frozen=True)
class Loss:
    """How four numbers are compared: summed over them, in units of the input's sides.

    kind: "l1", "l2" (squared, halved) or "smooth_l1".
    beta: of "smooth_l1", the error below which it is squared.
    weight: of boxes beside the cross entropy of classes; 0 learns no boxes.
    """

    kind: Literal["l1", "l2", "smooth_l1"] = "smooth_l1"
    beta: Positive = 0.1
    weight: NonNegative = 5.0

    def box(self, found: Array, wanted: Array) -> Array:
        """[b] of boxes [b 4]."""
        apart = found - wanted
        if self.kind == "l1":
            return jnp.abs(apart).sum(axis=-1)
        if self.kind == "l2":
            return (apart**2).sum(axis=-1) / 2
        return losses.smooth_l1(found, wanted, self.beta).sum(axis=-1)


class Outputs(NamedTuple):
    """What the network computes of b images."""

    logits: Array  # [b c]
    boxes: Array  # [b c 4], or [b 1 4] of a head for all classes


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`."""

    num_classes: int
    backbone: Pyramid
    box: Box
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        features = self.backbone(x, train)[-1].astype(jnp.float32)
        logits = linen.Dense(self.num_classes, name="class")(features.mean(axis=(1, 2)))
        b, h, w, _ = features.shape
        side = min(self.box.side, h, w)
        x = binned(features, side).reshape(b, -1)
        x = linen.relu(linen.Dense(self.box.hidden, name="box.0")(x))
        heads = self.num_classes if self.box.by_class else 1
        begin = linen.initializers.constant(0.5)
        x = linen.Dense(4 * heads, name="box.1", bias_init=begin)(x)
        return Outputs(logits, x.reshape(b, heads, 4))


def localiser(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(levels=(5,), norm="batch"),
    box: Box = Box(),
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A classifier with a second head of four numbers.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    It learns the largest object of each image, of inputs of one size. In training
    "correct" among the metrics is the share of images whose most probable class is
    right. Its answers are `Located`.
    """
    kind = jnp.dtype(dtype)
    net = Net(num_classes, pyramid(backbone, None, kind), box, pixels, kind)

    def total(params, state, batch: Batch, key):
        images, objects = batch.inputs.images, batch.target
        (logits, found), updated = net.apply(
            {"params": params, **state}, images, train=True, mutable=[*state]
        )
        real = batch.inputs.view.valid & main(objects)
        labels = objects.labels[:, 0]
        wanted = to_sides(objects.boxes[:, 0], images.shape[1:3])
        own = found[:, 0]
        if box.by_class:
            own = jnp.take_along_axis(found, labels[:, None, None], axis=1)[:, 0]
        parts = {
            "class": losses.softmax_cross_entropy(logits, labels),
            "box": loss.weight * loss.box(own, wanted),
        }
        means = {name: losses.masked_mean(each, real) for name, each in parts.items()}
        right = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
        metrics = {**means, "correct": losses.masked_mean(right, real)}
        return sum(means.values()), (updated, metrics)

    def predict(params, state, inputs: Inputs) -> Located:
        outputs: Any = net.apply({"params": params, **state}, inputs.images)
        found = to_corners(outputs.boxes, inputs.images.shape[1:3])
        found = each_image(geometry.clip)(found, windows(inputs))
        shape = (*outputs.logits.shape, 4)
        scores = jax.nn.softmax(outputs.logits)
        return Located(scores, jnp.broadcast_to(found, shape), outputs.logits)

    groups = {name: rf"^{name}\." for name in ("backbone", "class", "box")}
    spec = Spec("localisation", num_classes, groups=groups)
    return Model(spec, initialiser(net), total, predict, net)


def main(objects: Objects) -> Array:
    """Whether [b] the first of an image's objects is to be learnt."""
    return objects.valid[:, 0] & ~objects.crowd[:, 0]


def to_sides(found: Array, size: tuple[int, int]) -> Array:
    """Boxes [... 4] xyxy in pixels of `size` (h, w) as centre and sides, of 0..1."""
    scale = jnp.array([size[1], size[0]], jnp.float32)
    low, high = found[..., :2] / scale, found[..., 2:] / scale
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def to_corners(found: Array, size: tuple[int, int]) -> Array:
    """The inverse of `to_sides`; sides below 0 are 0."""
    scale = jnp.array([size[1], size[0]], jnp.float32)
    centre, half = found[..., :2], jnp.maximum(found[..., 2:], 0) / 2
    return jnp.concatenate([(centre - half) * scale, (centre + half) * scale], axis=-1)
