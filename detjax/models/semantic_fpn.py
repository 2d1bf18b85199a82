"""The semantic branch of Panoptic FPN: for labels, for depth, and for both at once.

    b, h, w  images of a batch, sides of the input
    k        outputs of a pixel: classes, or 1 number

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, section 3: every level
of a feature pyramid is brought to the finest one's size and they are added. `scene_fpn`
has two such branches on one pyramid, whose losses are weighted by hand or by what
Kendall et al. learn (CVPR 2018, "Multi-Task Learning Using Uncertainty to Weigh
Losses").
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from detjax.backbones.pyramid import FPN, Backbone, check_levels, pyramid
from detjax.models.pixelwise import (
    Loss,
    ValueLoss,
    check_one,
    compared,
    differed,
    enlarged,
    regressor,
    segmenter,
)
from detjax.nn.conv import Conv
from detjax.nn.conv_norm import conv_norm
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm
from detjax.nn.start import initialiser
from detjax.ops import resize
from detjax.settings import Count, Dtype, NonNegative
from detjax.types import Batch, Inputs, LabelScores, Model, Spec, ValueMap

GROUPS = {
    "backbone": r"^backbone\.body\.",
    "fpn": r"^backbone\.fpn\.",
    "head": r"^(labels\.|values\.|log_variance$)",
}


@dataclasses.dataclass(frozen=True)
class Head:
    """A branch on the pyramid.

    features: channels of its convolutions.
    norm: after each of them.
    """

    features: Count = 128
    norm: Norm = "group"

    def module(self, outputs: int, dtype: Any) -> "Branch":
        return Branch(self.features, outputs, self.norm, dtype)


@dataclasses.dataclass(frozen=True)
class Weighting:
    """How the losses of several tasks are added.

    kind: "fixed" adds them by the weights below; "learnt" by a variance each, which is
        a parameter (Kendall et al. 2018, equation 10): exp(-s) times the loss of labels
        and half of that of values, plus s / 2 each, of s = log variance.
    segmentation, dense: the weights of "fixed".
    """

    kind: Literal["fixed", "learnt"] = "learnt"
    segmentation: NonNegative = 1.0
    dense: NonNegative = 1.0

    def of(self, log_variance: Any) -> tuple[tuple[Any, Any], Any]:
        """What the two losses are multiplied by, and what is added to their sum.

        `log_variance` [2] are the parameters of "learnt".
        """
        if self.kind == "fixed":
            return (jnp.float32(self.segmentation), jnp.float32(self.dense)), 0.0
        precise = jnp.exp(-log_variance)
        return (precise[0], precise[1] / 2), log_variance.sum() / 2


class Branch(linen.Module):
    """Levels of a pyramid, finest first -> [b oh ow outputs] of the finest's size."""

    features: int
    outputs: int
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, levels, train: bool = False):
        twice = jax.vmap(resize.bilinear, (0, None))
        total = 0
        for i, x in enumerate(levels):
            for j in range(max(i, 1)):
                x = conv_norm(
                    x,
                    train,
                    self.features,
                    3,
                    names=(f"{i}.{j}.conv", f"{i}.{j}.norm"),
                    kind=self.norm,
                    dtype=self.dtype,
                )
                if i:
                    x = twice(x, levels[i - j - 1].shape[1:3])
            total = total + x
        # All classes begin equally likely, and values at `ValueLoss.start`.
        begin = linen.initializers.normal(0.01)
        last = Conv(
            self.outputs,
            1,
            bias=True,
            kernel_init=begin,
            dtype=self.dtype,
            name="predictor",
        )
        return last(total).astype(jnp.float32)


class Net(linen.Module):
    """Images [b h w 3] -> a tuple of maps [b h/4 w/4 k], of each branch that there is.

    With `learnt` there is a parameter "log_variance" [2], which only the loss reads.
    """

    backbone: linen.Module
    labels: Branch | None
    values: Branch | None
    pixels: str
    dtype: Any
    learnt: bool = False

    @linen.compact
    def __call__(self, images, train: bool = False):
        if self.learnt:
            self.param("log_variance", linen.initializers.zeros, (2,))
        levels = self.backbone(normalize(images, self.pixels, self.dtype), train)
        branches = self.labels, self.values
        return tuple(branch(levels, train) for branch in branches if branch is not None)


def _net(
    backbone: Backbone,
    fpn: FPN,
    head: Head,
    labels: int | None,
    values: bool,
    pixels: str,
    dtype: Any,
    learnt: bool = False,
) -> Net:
    """The network of `labels` classes, of values, or of both."""
    check_levels(backbone)
    dtype = jnp.dtype(dtype)
    return Net(
        pyramid(backbone, fpn, dtype),
        None if labels is None else head.module(labels, dtype),
        head.module(1, dtype) if values else None,
        pixels,
        dtype,
        learnt,
    )


def semantic_fpn(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(norm="batch"),
    fpn: FPN = FPN(),
    head: Head = Head(),
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A network of one branch: a class for every pixel.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Its answers are `LabelScores` at stride 4.
    """
    net = _net(backbone, fpn, head, num_classes, False, pixels, dtype)
    return segmenter(net, num_classes, loss, groups=GROUPS)


def dense_fpn(
    *,
    num_classes: Count = 1,
    backbone: Backbone = Backbone(norm="batch"),
    fpn: FPN = FPN(),
    head: Head = Head(),
    loss: ValueLoss = ValueLoss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A network of one branch: a number for every pixel, such as its depth.

    num_classes: 1, the one quantity of its data sets.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Its answers are `ValueMap`.
    """
    check_one(num_classes, "dense_fpn")
    net = _net(backbone, fpn, head, None, True, pixels, dtype)
    return regressor(net, loss, groups=GROUPS)


def scene_fpn(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(norm="batch"),
    fpn: FPN = FPN(),
    head: Head = Head(),
    segmentation: Loss = Loss(),
    dense: ValueLoss = ValueLoss(),
    weighting: Weighting = Weighting(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A network of two branches: a class and a number for every pixel.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    In training "segmentation" and "dense" among the metrics are the losses before they
    are weighted, and "weight_segmentation" and "weight_dense" what they are multiplied
    by. Its answers are a dict of the tasks' own.
    """
    learnt = weighting.kind == "learnt"
    net = _net(backbone, fpn, head, num_classes, True, pixels, dtype, learnt)

    def total(params, state, batch: Batch, key):
        (labels, values), updated = net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            mutable=[*state],
        )
        target = batch.target
        first, told = compared((labels,), batch, target["segmentation"], segmentation)
        second, more = differed((values,), batch, target["dense"], dense)
        scales = params["log_variance"] if learnt else None
        (w1, w2), rest = weighting.of(scales)
        metrics = {
            "segmentation": first,
            "dense": second,
            "correct": told["correct"],
            "error": more["error"],
            "weight_segmentation": w1,
            "weight_dense": w2,
        }
        return w1 * first + w2 * second + rest, (updated, metrics)

    def predict(params, state, inputs: Inputs) -> dict[str, Any]:
        found: Any = net.apply({"params": params, **state}, inputs.images)
        labels, values = found
        size = inputs.images.shape[1:3]
        return {
            "segmentation": LabelScores(labels, size),
            "dense": ValueMap(dense.values(enlarged(values, size))),
        }

    spec = Spec("scene", num_classes, groups=GROUPS)
    return Model(spec, initialiser(net), total, predict, net)
