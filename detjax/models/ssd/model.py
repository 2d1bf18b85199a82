"""SSD from its stages, the paper's two sizes, and torchvision's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from detjax.errors import UserError
from detjax.models.ssd.detect import Detect
from detjax.models.ssd.match import Match, box_loss
from detjax.models.ssd.net import Backbone, Extras, Net, heads
from detjax.models.ssd.priors import Priors, check
from detjax.nn.batch import each_image
from detjax.nn.images import NORMALIZED, Pixels, windows
from detjax.nn.start import initialiser
from detjax.settings import Count, Dtype, NonNegative
from detjax.types import Batch, Inputs, Model, Spec
from detjax.types import Priors as PlacedPriors

# Parts of the network by the names of their parameters.
GROUPS = {
    "backbone": r"^backbone\.",
    "class": r"^head\.classification_head\.",
    "box": r"^head\.regression_head\.",
}


def ssd(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(),
    extras: Extras = Extras(),
    priors: Priors = Priors(),
    match: Match = Match(),
    box_weight: NonNegative = 1.0,
    detect: Detect = Detect(),
    pixels: Pixels = "caffe",
    dtype: Dtype = "float32",
) -> Model:
    """SSD; the defaults are the paper's for inputs of 300 x 300 pixels.

    num_classes: the classes that are told apart; if not set those of the data set.
    extras: the levels behind the backbone's.
    box_weight: of the loss of boxes, beside that of classes.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Raises UserError where the stages do not fit each other, and at the first image that
    is too small for the levels.
    """
    if len({len(x) for x in vars(extras).values()}) != 1:
        raise UserError(
            "model.extras.features, kernels, strides and paddings must be of equal "
            f"length: {extras}"
        )
    check(priors, backbone.maps + len(extras.features))
    net = Net(
        priors,
        backbone.module(extras, jnp.dtype(dtype)),
        heads(num_classes, priors.per_location, jnp.dtype(dtype)),
        num_classes,
        pixels,
        jnp.dtype(dtype),
    )

    def loss(params, state, batch: Batch, key):
        images, seen = batch.inputs.images, batch.inputs.view.valid
        outputs, updated = net.apply(
            {"params": params, **state}, images, train=True, mutable=[*state]
        )

        def one(logits, deltas, objects):
            target = match.targets(objects, outputs.priors, num_classes)
            parts = {
                "class": match.class_loss(logits, target),
                "box": box_weight * box_loss(deltas, target),
            }
            return parts, jnp.sum(target.positive)

        each, counts = each_image(one)(outputs.logits, outputs.deltas, batch.target)
        positives = jnp.sum(jnp.where(seen, counts, 0))
        parts = {
            name: jnp.sum(jnp.where(seen, value, 0.0)) / jnp.maximum(positives, 1)
            for name, value in each.items()
        }
        return sum(parts.values()), (updated, {**parts, "positives": positives})

    def predict(params, state, inputs: Inputs):
        outputs: Any = net.apply({"params": params, **state}, inputs.images)
        one = functools.partial(detect, priors=outputs.priors)
        return each_image(one)(outputs.logits, outputs.deltas, windows(inputs))

    def placed_priors(size):
        images = jax.ShapeDtypeStruct(
            (1, *size, 3), jnp.float32 if pixels == NORMALIZED else jnp.uint8
        )
        key = jax.random.key(0)
        outputs: Any = jax.eval_shape(lambda x: net.init_with_output(key, x)[0], images)
        levels = priors.levels([x.shape[1:3] for x in outputs.levels], size)

        def fitted(objects):
            found = priors.fitted(levels, size, objects, match.positive)
            return {f"priors.{name}": value for name, value in found.items()}

        return PlacedPriors(tuple(levels), match.positive, "match.positive", fitted)

    spec = Spec("detection", num_classes, groups=GROUPS)
    return Model(spec, initialiser(net), loss, predict, net, priors=placed_priors)


# Of 512 pixels: one level more, and scales of the authors' code for VOC.
_512: dict[str, Any] = {
    "extras": Extras(
        (512, 256, 256, 256, 256), (3, 3, 3, 3, 4), (2, 2, 2, 2, 1), (1, 1, 1, 1, 1)
    ),
    "priors": Priors(
        (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
        ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        (8, 16, 32, 64, 128, 256, 512),
    ),
}
_300: dict[str, Any] = {"priors": Priors(steps=(8, 16, 32, 64, 100, 300))}
ssd300 = functools.partial(ssd, **_300)
ssd512 = functools.partial(ssd, **_512)
# With torchvision's numbers of classes, holes in COCO's numbering included.
ORIGINALS: dict[str, dict[str, Any]] = {
    "ssd300_vgg16": {**_300, "num_classes": 90, "match": Match(one_each=False)},
}
