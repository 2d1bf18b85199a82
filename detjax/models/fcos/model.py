"""FCOS from its stages, and torchvision's."""

from typing import Any

import jax.numpy as jnp

from detjax.backbones.pyramid import Backbone, LongFPN, check_levels, pyramid
from detjax.models.fcos.detect import Detect
from detjax.models.fcos.match import Loss, Match
from detjax.models.fcos.net import Head, Net
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.start import initialiser
from detjax.settings import Count, Dtype
from detjax.types import Batch, Inputs, Model, Spec

# Parts of the network by the names of their parameters.
GROUPS = {
    "backbone": r"^backbone\.body\.",
    "fpn": r"^backbone\.fpn\.",
    "class": r"^head\.classification_head\.",
    "box": r"^head\.regression_head\.",
}


def fcos(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(levels=(3, 4, 5)),
    fpn: LongFPN = LongFPN(),
    head: Head = Head(),
    match: Match = Match(),
    loss: Loss = Loss(),
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """FCOS; the defaults are torchvision's, for a short side near 800 pixels.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Raises UserError where the backbone's levels do not follow one another.
    """
    check_levels(backbone)
    net = Net(
        min(backbone.levels),
        match.span,
        pyramid(backbone, fpn, jnp.dtype(dtype)),
        head.module(num_classes, jnp.dtype(dtype)),
        num_classes,
        pixels,
        jnp.dtype(dtype),
    )

    def losses_of(params, state, batch: Batch, key):
        images, seen = batch.inputs.images, batch.inputs.view.valid
        outputs, updated = net.apply(
            {"params": params, **state}, images, train=True, mutable=[*state]
        )

        def one(logits, reach, quality, objects):
            target = match.targets(objects, outputs.at, num_classes)
            sums = loss.sums(logits, reach, quality, outputs.at, target)
            return sums, jnp.sum(target.positive)

        sums, counts = each_image(one)(
            outputs.logits, outputs.reach, outputs.quality, batch.target
        )
        positives = jnp.sum(jnp.where(seen, counts, 0))
        parts = {
            name: jnp.sum(jnp.where(seen, value, 0.0)) / jnp.maximum(positives, 1)
            for name, value in sums.items()
        }
        return sum(parts.values()), (updated, {**parts, "positives": positives})

    def predict(params, state, inputs: Inputs):
        outputs: Any = net.apply({"params": params, **state}, inputs.images)

        def one(logits, reach, quality, window):
            return detect(logits, reach, quality, window, at=outputs.at)

        return each_image(one)(
            outputs.logits, outputs.reach, outputs.quality, windows(inputs)
        )

    spec = Spec("detection", num_classes, groups=GROUPS)
    return Model(spec, initialiser(net), losses_of, predict, net)


# torchvision's numbers of classes: those of COCO's numbering, holes included, behind a
# first one that nothing is, its background.
ORIGINALS: dict[str, dict[str, Any]] = {
    "fcos_resnet50_fpn": {
        "num_classes": 91,
        "backbone": Backbone(levels=(3, 4, 5), norm_eps=0.0),
    },
}
