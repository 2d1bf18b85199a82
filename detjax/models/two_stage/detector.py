"""The three functions of a two-stage detector.

b images, p priors over all levels, c classes, n objects
k        regions (RoIs) of one image: samples, proposals or detections
logits   [k c+1], the background last
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen

from detjax.backbones.pyramid import FPN, Backbone
from detjax.errors import UserError
from detjax.models.two_stage import keypoint as keypoints
from detjax.models.two_stage import mask as masks
from detjax.models.two_stage import mask_iou as mask_ious
from detjax.models.two_stage.box import Box
from detjax.models.two_stage.check import check, check_batch
from detjax.models.two_stage.detect import Detect
from detjax.models.two_stage.heads import of_class
from detjax.models.two_stage.keypoint import Keypoint
from detjax.models.two_stage.mask import Mask
from detjax.models.two_stage.mask_iou import MaskIoU
from detjax.models.two_stage.net import Net, Outputs, Stages, make
from detjax.models.two_stage.roi import Regions, RoI
from detjax.models.two_stage.rpn import RPN
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.start import initialiser
from detjax.ops import anchors, heatmaps
from detjax.settings import Count, Dtype
from detjax.types import (
    Array,
    Batch,
    Detections,
    Inputs,
    Model,
    Priors,
    Proposals,
    Spec,
)


def two_stage(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(),
    fpn: FPN | None = FPN(),
    rpn: RPN | None = RPN(),
    roi: RoI = RoI(),
    box: Box = Box(),
    mask: Mask | None = None,
    mask_iou: MaskIoU | None = None,
    keypoint: Keypoint | None = None,
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A detector of two stages; the defaults are Faster R-CNN's with FPN.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised: by ImageNet's mean and deviation, in the way of
        YOLACT's weights, to 0..1 ("unit"), or not, because float images are already.
    dtype: of activations; parameters and losses are float32.
    fpn: the feature pyramid; without it the backbone's one level is read as it is.
    rpn: the first stage; without it batches bring their proposals.
    mask, mask_iou, keypoint: heads of the second stage, none where they are None.

    Raises UserError where the settings do not fit each other, and at the first loss
    where the batch lacks what is to be learnt.
    """
    stages = Stages(backbone, fpn, rpn, roi, box, mask, mask_iou, keypoint, detect)
    check(stages)
    net = make(stages, num_classes, pixels, jnp.dtype(dtype))

    def loss(params, state, batch: Batch, key):
        check_batch(stages, batch)
        # Images that fill up a batch have no objects.
        seen = batch.target.valid & batch.inputs.view.valid[:, None]
        draw, drop = jax.random.split(key)
        (parts, positives), updated = linen.apply(losses, net, mutable=[*state])(
            {"params": params, **state},
            dataclasses.replace(
                batch, target=dataclasses.replace(batch.target, valid=seen)
            ),
            draw,
            rngs={"dropout": drop},
        )
        metrics = {**parts, "positives": positives}
        return sum(parts.values()), (updated, metrics)

    def predict(params, state, inputs: Inputs):
        return linen.apply(detections, net)({"params": params, **state}, inputs)

    def placed_priors(size):
        strides = [*backbone.levels, *[max(backbone.levels) + 1] * (fpn is not None)]
        levels = rpn.levels([anchors.halved(size, i) for i in strides], size)

        def fitted(objects):
            found = rpn.fitted(levels, objects)
            return {f"rpn.{name}": value for name, value in found.items()}

        return Priors(tuple(levels), rpn.positive, "rpn.positive", fitted)

    needs = () if rpn is not None else ("proposals",)
    spec = Spec("detection", num_classes, needs, stages.groups())
    priors = None if rpn is None else placed_priors
    return Model(spec, initialiser(net), loss, predict, net, priors=priors)


def losses(net: Net, batch: Batch, key: Array) -> tuple[dict[str, Array], Array]:
    """The losses of a batch by name, and the number of its positive regions."""
    stages, inputs, real = net.stages, batch.inputs, batch.inputs.view.valid
    outputs = net(inputs.images, train=True)
    first, second = (
        jax.random.split(k, len(inputs.images)) for k in jax.random.split(key)
    )
    parts: dict[str, Array] = {}
    if stages.rpn is not None:
        parts |= rpn_losses(net, outputs, batch, first)
    regions = each_image(
        functools.partial(stages.roi.sample, num_classes=net.num_classes)
    )(proposals(net, outputs, inputs, train=True), batch.target, second)
    # Images that fill up a batch are no part of batch statistics either.
    regions = regions._replace(
        chosen=regions.chosen & real[:, None],
        positive=regions.positive & real[:, None],
    )
    found = read(net, outputs, regions.boxes, stages.box.bins)
    logits, deltas = net.boxes(found, True, regions.chosen)
    entropy, distance, drawn = each_image(stages.box.losses)(logits, deltas, regions)
    parts["class"] = ratio(entropy, drawn, real)
    parts["box"] = ratio(distance, drawn, real)
    if stages.mask is not None:
        parts |= mask_losses(net, outputs, regions, batch)
    if stages.keypoint is not None:
        parts |= keypoint_losses(net, outputs, regions, batch)
    return parts, jnp.sum(regions.positive)


def rpn_losses(net: Net, outputs: Outputs, batch: Batch, keys) -> dict[str, Array]:
    one = functools.partial(
        net.stages.rpn.loss,
        priors=outputs.priors.boxes,
        crowd_threshold=net.stages.roi.crowd_threshold,
    )
    inside = windows(batch.inputs)
    sums = each_image(one)(outputs.logits, outputs.deltas, batch.target, inside, keys)
    real = batch.inputs.view.valid
    return {
        "rpn_class": ratio(sums.objectness, sums.count, real),
        "rpn_box": ratio(sums.box, sums.count, real),
    }


def mask_losses(net: Net, outputs: Outputs, regions: Regions, batch: Batch):
    """The losses of masks, and of their predicted IoU, by name."""
    stages, objects, real = net.stages, batch.target, batch.inputs.view.valid
    size = batch.inputs.images.shape[1:3]
    regions = positives(regions, stages.mask.samples or stages.roi.positives)
    found = read(net, outputs, regions.boxes, stages.mask.bins)
    logits = each_image(of_class)(
        net.masks(found, True, regions.positive), regions.labels
    )
    truth = each_image(
        functools.partial(
            masks.targets,
            cells=logits.shape[-1],
            size=size,
            aligned=stages.roi.aligned,
        )
    )(regions, objects)
    loss = each_image(masks.loss)(logits, truth, regions)
    parts = {"mask": ratio(*loss, real)}
    if stages.mask_iou is not None:
        probs = jax.nn.sigmoid(logits)
        fits = each_image(functools.partial(mask_ious.targets, size=size))(
            probs, truth, regions, objects
        )
        loss = each_image(mask_ious.loss)(net.mask_iou(found, probs), fits, regions)
        parts["mask_iou"] = ratio(*loss, real)
    return parts


def keypoint_losses(net: Net, outputs: Outputs, regions: Regions, batch: Batch):
    stage = net.stages.keypoint
    regions = positives(regions, stage.samples or net.stages.roi.positives)
    maps = net.keypoints(read(net, outputs, regions.boxes, stage.bins))
    loss = each_image(keypoints.loss)(maps, regions, batch.target)
    return {"keypoint": ratio(*loss, batch.inputs.view.valid)}


def detections(net: Net, inputs: Inputs) -> Detections:
    """Detections of a batch, leading axis b."""
    stages = net.stages
    outputs = net(inputs.images)
    proposed = proposals(net, outputs, inputs, train=False)
    logits, deltas = net.boxes(read(net, outputs, proposed.boxes, stages.box.bins))
    found = each_image(stages.detect.detections)(
        logits, deltas, proposed, windows(inputs)
    )
    if stages.mask is not None:
        regions = read(net, outputs, found.boxes, stages.mask.bins)
        probs = jax.nn.sigmoid(each_image(of_class)(net.masks(regions), found.labels))
        found = dataclasses.replace(found, box_masks=probs, aligned=stages.roi.aligned)
    if stages.mask_iou is not None:
        fits = net.mask_iou(regions, probs)
        fit = jnp.take_along_axis(fits, found.labels[..., None], axis=-1)
        scores = found.scores * fit[..., 0]
        found = dataclasses.replace(found, mask_scores=scores)
    if stages.keypoint is not None:
        regions = read(net, outputs, found.boxes, stages.keypoint.bins)
        decode = functools.partial(heatmaps.decode, limit=inputs.images.shape[1:3])
        placed = each_image(decode)(net.keypoints(regions), found.boxes)
        found = dataclasses.replace(found, keypoints=placed)
    return found


def proposals(net: Net, outputs: Outputs, inputs: Inputs, *, train: bool) -> Proposals:
    """Those of the first stage, or the batch's own where there is none.

    Leading axis b. Raises UserError where there are neither.
    """
    stage = net.stages.rpn
    if stage is not None:
        one = functools.partial(stage.propose, priors=outputs.priors, train=train)
        return each_image(one)(outputs.logits, outputs.deltas, window=windows(inputs))
    if inputs.proposals is None:
        raise UserError(
            "this detector makes no proposals and was given none; give batches "
            "that hold some, or take faster_rcnn"
        )
    return inputs.proposals


def read(net: Net, outputs: Outputs, boxes: Array, bins: int) -> Array:
    """Regions [b k s s .] of the boxes [b k 4], with `bins` along a side."""
    stages = net.stages
    finest = min(stages.backbone.levels)
    one = functools.partial(stages.roi.read, finest=finest, bins=bins)
    return each_image(one)(outputs.levels, boxes)


def positives(regions: Regions, count: int) -> Regions:
    """The first `count` regions of each image, among which the positives lie first."""
    return each_image(lambda r: r.first(count))(regions)


def ratio(sums: Array, counts: Array, real: Array) -> Array:
    """Sums [b] over counts [b], both of the batch's `real` images [b] only."""
    total = jnp.sum(jnp.where(real, sums, 0.0))
    return total / jnp.maximum(jnp.sum(jnp.where(real, counts, 0)), 1)
