"""RetinaNet from its stages, and torchvision's."""

import functools
from typing import Any

import jax.numpy as jnp

from detjax import losses
from detjax.backbones.pyramid import Backbone, LongFPN, check_levels, pyramid
from detjax.errors import UserError
from detjax.models.retinanet.detect import Detect
from detjax.models.retinanet.match import Loss, Match
from detjax.models.retinanet.net import Head, Net, Priors
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.start import initialiser
from detjax.ops import anchors
from detjax.settings import Count, Dtype
from detjax.types import Batch, Inputs, Model, Spec
from detjax.types import Priors as PlacedPriors

# Parts of the network by the names of their parameters.
GROUPS = {
    "backbone": r"^backbone\.body\.",
    "fpn": r"^backbone\.fpn\.",
    "class": r"^head\.classification_head\.",
    "box": r"^head\.regression_head\.",
}


def retinanet(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(levels=(3, 4, 5)),
    fpn: LongFPN = LongFPN(),
    head: Head = Head(),
    priors: Priors = Priors(),
    match: Match = Match(),
    loss: Loss = Loss(),
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """RetinaNet; the defaults are torchvision's, for a short side near 800 pixels.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Raises UserError where the stages do not fit each other.
    """
    check(backbone, fpn, priors)
    net = Net(
        priors,
        pyramid(backbone, fpn, jnp.dtype(dtype)),
        head.module(num_classes, priors.per_location, jnp.dtype(dtype)),
        num_classes,
        pixels,
        jnp.dtype(dtype),
    )

    def losses_of(params, state, batch: Batch, key):
        images, seen = batch.inputs.images, batch.inputs.view.valid
        outputs, updated = net.apply(
            {"params": params, **state}, images, train=True, mutable=[*state]
        )

        def one(logits, deltas, objects):
            target = match.targets(objects, outputs.priors, num_classes)
            return loss.parts(logits, deltas, outputs.priors, target)

        each, counts = each_image(one)(outputs.logits, outputs.deltas, batch.target)
        parts = {name: losses.masked_mean(value, seen) for name, value in each.items()}
        metrics = {**parts, "positives": jnp.sum(jnp.where(seen, counts, 0))}
        return sum(parts.values()), (updated, metrics)

    def predict(params, state, inputs: Inputs):
        outputs: Any = net.apply({"params": params, **state}, inputs.images)
        one = functools.partial(detect, priors=outputs.priors, counts=outputs.counts)
        return each_image(one)(outputs.logits, outputs.deltas, windows(inputs))

    def placed_priors(size):
        top = max(backbone.levels) + 1
        strides = [*backbone.levels, *range(top, top + fpn.extra_levels)]
        levels = priors.levels([anchors.halved(size, i) for i in strides], size)

        def fitted(objects):
            found = priors.fitted(levels, objects, match.positive)
            return {f"priors.{name}": value for name, value in found.items()}

        return PlacedPriors(tuple(levels), match.positive, "match.positive", fitted)

    spec = Spec("detection", num_classes, groups=GROUPS)
    return Model(spec, initialiser(net), losses_of, predict, net, priors=placed_priors)


def check(backbone: Backbone, fpn: LongFPN, priors: Priors) -> None:
    """Raises UserError where stages do not fit each other."""
    check_levels(backbone)
    levels, sizes = backbone.levels, priors.sizes
    if len(sizes) != len(levels) + fpn.extra_levels or len({len(s) for s in sizes}) > 1:
        raise UserError(
            f"model.priors.sizes={sizes} must hold one tuple of equal length for each "
            f"of the {len(levels)} levels and {fpn.extra_levels} extra levels of "
            "model.backbone.levels and model.fpn.extra_levels"
        )


# torchvision's numbers of classes: those of COCO's numbering, holes included, behind a
# first one that nothing is, its background. Its first weights were trained with a
# frozen norm that adds nothing to the variance.
ORIGINALS: dict[str, dict[str, Any]] = {
    "retinanet_resnet50_fpn": {
        "num_classes": 91,
        "backbone": Backbone(levels=(3, 4, 5), norm_eps=0.0),
    },
    "retinanet_resnet50_fpn_v2": {
        "num_classes": 91,
        "backbone": Backbone(levels=(3, 4, 5), norm="batch"),
        "fpn": LongFPN(extra_from="feature"),
        "head": Head(norm="group"),
        "loss": Loss(box="giou"),
    },
}
