"""YOLACT from its stages."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from detjax.errors import UserError
from detjax.models.yolact.detect import Detect
from detjax.models.yolact.mask import Mask, mask_loss, semantic_loss
from detjax.models.yolact.match import Match, box_loss
from detjax.models.yolact.net import Backbone, Net, Outputs, Priors, Pyramid, by_image
from detjax.models.yolact.rescore import Rescore, rescored
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.start import initialiser
from detjax.ops import anchors, boxes
from detjax.settings import Count, Dtype, NonNegative
from detjax.types import Batch, Inputs, Model, Objects, Spec
from detjax.types import Priors as PlacedPriors

# Parts of the network by the names of their parameters.
GROUPS = {
    "backbone": r"^backbone\.",
    "fpn": r"^fpn\.",
    "box": r"^prediction_layers\.0\.(upfeature|bbox_layer|conf_layer)\b",
    "mask": r"^(proto_net|semantic_seg_conv|prediction_layers\.0\.mask_layer)\b",
    "rescore": r"^maskiou_net\.",
}


def yolact(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(),
    fpn: Pyramid = Pyramid(),
    priors: Priors = Priors(),
    match: Match = Match(),
    box_weight: NonNegative = 1.5,
    class_weight: NonNegative = 1.0,
    mask: Mask | None = Mask(),
    rescore: Rescore | None = None,
    detect: Detect = Detect(),
    pixels: Pixels = "yolact",
    dtype: Dtype = "float32",
) -> Model:
    """YOLACT; the defaults are the paper's, for images near 550 pixels.

    (All but the backbone's norm: the paper fine-tunes with "frozen".)

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised: by ImageNet's mean and deviation, in the way of
        YOLACT's weights, to 0..1 ("unit"), or not, because float images are already.
    dtype: of activations; parameters and losses are float32.
    box_weight, class_weight: of those losses.
    mask: the mask branch; without it data without masks can be learnt.
    rescore: a network that predicts the IoU of masks (YOLACT++).

    The backbone's `deform_every` is YOLACT++'s too; `ORIGINALS` has the authors' sets.

    Raises UserError where the stages do not fit each other, and at the first loss where
    masks are wanted of a batch without any.
    """
    _check(backbone, fpn, priors, mask, rescore)
    net = Net(
        num_classes=num_classes,
        backbone=backbone,
        fpn=fpn,
        priors=priors,
        num_prototypes=mask.prototypes if mask else 0,
        pixels=pixels,
        dtype=jnp.dtype(dtype),
    )

    def init(key, images):
        params, variables = initialiser(net)(key, images)
        if rescore:
            outputs = jax.eval_shape(net.apply, {"params": params, **variables}, images)
            grid = outputs.prototypes.shape[1:3]
            params["maskiou_net"] = rescore.init(key, grid, num_classes)
        return params, variables

    def image_losses(outputs: Outputs, objects: Objects, key, *, size):
        target = match.targets(objects, outputs.priors, num_classes)
        parts = {
            "box": box_weight * box_loss(outputs.deltas, target),
            "class": class_weight * match.class_loss(outputs.logits, target),
        }
        positives = jnp.sum(target.positive)
        if not mask:
            return parts, positives, None
        sample = mask.sample(outputs, objects, target, key, size)
        parts["mask"] = mask.weight * mask_loss(sample, positives)
        semantic = semantic_loss(outputs.semantic, objects)
        parts["semantic"] = mask.semantic_weight * semantic
        return parts, positives, sample

    def loss(params, state, batch: Batch, key):
        if mask and batch.target.masks is None:
            raise UserError(
                "this YOLACT learns masks but the batch has none; "
                "set model.mask=None to learn boxes only"
            )
        images, valid = batch.inputs.images, batch.inputs.view.valid
        outputs, updated = net.apply(
            {"params": params, **state}, images, train=True, mutable=[*state]
        )
        real = batch.target.valid & valid[:, None]
        each, positives, sample = each_image(
            functools.partial(image_losses, size=images.shape[1:3]),
            in_axes=(by_image(outputs), 0, 0),
        )(
            outputs,
            dataclasses.replace(batch.target, valid=real),
            jax.random.split(key, images.shape[0]),
        )
        if rescore:
            probs = jnp.where(sample.window, jax.nn.sigmoid(sample.logits), 0.0)
            guesses = rescore.guess(params["maskiou_net"], probs, num_classes)
            each["rescore"] = rescore.weight * each_image(rescore.loss)(sample, guesses)
        # The original divides all but the semantic loss by the batch's positives.
        per = {"semantic": jnp.sum(valid)}
        parts = {
            name: jnp.sum(jnp.where(valid, loss, 0.0))
            / jnp.maximum(per.get(name, jnp.sum(positives)), 1)
            for name, loss in each.items()
        }
        metrics = {**parts, "positives": jnp.sum(positives)}
        return sum(parts.values()), (updated, metrics)

    def predict(params, state, inputs: Inputs):
        images = inputs.images
        outputs: Any = net.apply({"params": params, **state}, images)

        def one(outputs, window):
            found = detect(outputs, images.shape[1:3])
            return dataclasses.replace(found, boxes=boxes.clip(found.boxes, window))

        found = each_image(one, in_axes=(by_image(outputs), 0))(
            outputs, windows(inputs)
        )
        if rescore:
            guesses = rescore.guess(params["maskiou_net"], found.masks, num_classes)
            found = each_image(rescored)(found, guesses)
        return found

    def placed_priors(size):
        top = max(backbone.levels) + 1
        strides = [*backbone.levels, *range(top, top + fpn.extra_levels)]
        levels = priors.levels([anchors.halved(size, i) for i in strides], size)

        def fitted(objects):
            found = priors.fitted(levels, objects, match.positive)
            return {f"priors.{name}": value for name, value in found.items()}

        return PlacedPriors(tuple(levels), match.positive, "match.positive", fitted)

    parts = ["backbone", "fpn", "box"]
    parts += ["mask"] * bool(mask) + ["rescore"] * bool(rescore)
    groups = {name: GROUPS[name] for name in parts}
    spec = Spec("detection", num_classes, groups=groups)
    return Model(spec, init, loss, predict, net, priors=placed_priors)


def _check(backbone, fpn, priors, mask, rescore) -> None:
    """Raises UserError where stages do not fit each other."""
    levels, extra, sizes = backbone.levels, fpn.extra_levels, priors.sizes
    if not levels or list(levels) != sorted(set(levels)):
        raise UserError(f"model.backbone.levels={levels} must rise, the finest first")
    if len(sizes) != len(levels) + extra or len({len(s) for s in sizes}) != 1:
        raise UserError(
            f"model.priors.sizes={sizes} must hold one tuple of equal length for each "
            f"of the {len(levels)} levels and {extra} extra levels of model.backbone."
            "levels and model.fpn.extra_levels"
        )
    if rescore and not mask:
        raise UserError("model.rescore guesses how well masks fit; set model.mask too")
