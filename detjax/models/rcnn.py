"""Two-stage detectors: Fast, Faster, Mask, Keypoint and Mask Scoring R-CNN.

    b images, p priors over all levels, c classes, n objects
    k        regions (RoIs) of one image: samples, proposals or detections
    s        bins along a region's side
    logits   [k c+1], the background last

A network proposes boxes, or the data does; what the features say in each is classified,
and from the class's box come masks, keypoints, and a guess at how well the mask fits.

Girshick 2015; Ren et al. 2015; Lin et al. 2017 (FPN); He et al. 2017; Huang et al.
2019. The recipes, and the names of parameters, are torchvision's.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax import backbones
from detjax.backbones import resnet
from detjax.errors import UserError
from detjax.nn import roi_heads, rpn, second_stage
from detjax.nn.fpn import FPN
from detjax.nn.two_stage import (
    RPN,
    LastStage,
    Net,
    Outputs,
    Proposer,
    Pyramid,
    Reader,
    RoIHeads,
)
from detjax.ops import assign, boxes, heatmaps
from detjax.types import Array, Batch, Detections, Model, Objects, Proposals


def ratio(sums: Array, counts: Array, real: Array) -> Array:
    """Sums [b] over counts [b], both of the batch's `real` images [b] only."""
    total = jnp.sum(jnp.where(real, sums, 0.0))
    return total / jnp.maximum(jnp.sum(jnp.where(real, counts, 0)), 1)


_HEADS = ("mlp", "convs", "last_stage")


def two_stage(
    *,
    num_classes: int,
    backbone: str = "resnet50",
    backbone_width: int | None = None,
    levels: tuple[int, ...] = (2, 3, 4, 5),
    features: int = 256,
    fpn: bool = True,
    fpn_norm: str | None = None,
    pixels: str = "imagenet",
    norm: str = "frozen",
    norm_eps: float = 1e-5,
    proposals: bool = True,
    sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,)),
    ratios: tuple[float, ...] = (0.5, 1, 2),
    rpn_depth: int = 1,
    rpn_positive: float = 0.7,
    rpn_negative: float = 0.3,
    rpn_inside: bool = False,
    rpn_samples: int = 256,
    rpn_fraction: float = 0.5,
    rpn_nms_threshold: float = 0.7,
    rpn_min_size: float = 1e-3,
    pre_nms: tuple[int, int] = (2000, 1000),
    post_nms: tuple[int, int] = (2000, 1000),
    pooling: str = "align",
    bins: int = 7,
    sampling: int = 2,
    aligned: bool = False,
    canonical_size: float = 224,
    canonical_level: int = 4,
    box_head: str = "mlp",
    head_norm: str | None = None,
    hidden: int = 1024,
    dropout: float = 0.0,
    positive: float = 0.5,
    negative: float = 0.5,
    background: float = 0.0,
    crowd_threshold: float = 0.7,
    samples: int = 512,
    fraction: float = 0.25,
    box_beta: float = 1 / 9,
    masks: bool = False,
    mask_bins: int = 14,
    mask_features: int = 256,
    mask_depth: int = 4,
    mask_samples: int | None = None,
    mask_iou: bool = False,
    keypoints: int = 0,
    keypoint_features: int = 512,
    keypoint_depth: int = 8,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    pre_nms_top_k: int = 2000,
    max_detections: int = 100,
    dtype: Any = "float32",
) -> Model:
    """A detector of two stages; the defaults are Faster R-CNN's with FPN.

    `levels` names the backbone's features (2 is stride 4). With `fpn` they become a
    pyramid of `features` channels with one more level for proposals; else the one level
    is read as it is. `sizes` gives the priors' sides in pixels, a tuple a level.
    Without `proposals` there is no first stage, and batches bring theirs.
    `pre_nms` and `post_nms` count proposals in training and in prediction, `pre_nms` of
    each level; with `rpn_inside` priors that leave the image are not learnt from.
    Regions are positive from an IoU of `positive`, negative between `background` and
    `negative`. With `aligned` regions and masks are read and drawn where they lie, and
    not half a pixel off as the originals' are; small objects need that. `box_head` is
    "mlp" (`dropout` is VGG's), "convs" (v2), or "last_stage" (C4, of the backbone).
    `mask_samples` bounds the regions an image that masks and keypoints learn from; the
    default is all the positives that `samples` and `fraction` admit.

    Raises UserError where the settings do not fit each other, and at the first loss
    where the batch lacks what is to be learnt.
    """
    settings = {**locals(), "dtype": jnp.dtype(dtype)}
    _check(levels, fpn, proposals, sizes, pooling, masks, mask_iou)
    _check_head(box_head, backbone, levels, norm)
    net = _net(**settings)
    limit = mask_samples or int(samples * fraction)

    def propose(outputs: Outputs, windows, given, train: bool) -> Proposals:
        if not proposals and given is None:
            raise UserError(
                "this detector makes no proposals and was given none; give batches "
                "that hold some, or take faster_rcnn"
            )
        return net.propose(outputs, windows, train) if proposals else given

    def first_losses(outputs: Outputs, objects: Objects, windows, real, keys):
        def one(logits, deltas, objects, window, key):
            match = rpn.targets(
                objects,
                assign.learnable(objects),
                outputs.priors,
                positive=rpn_positive,
                negative=rpn_negative,
                crowd_threshold=crowd_threshold,
                low_quality=True,
                usable=boxes.inside(outputs.priors, window) if rpn_inside else None,
            )
            return rpn.loss(
                logits,
                deltas,
                outputs.priors,
                match,
                objects.boxes,
                key,
                samples=rpn_samples,
                fraction=rpn_fraction,
            )

        sums = jax.vmap(one)(outputs.logits, outputs.deltas, objects, windows, keys)
        return {
            "rpn_class": ratio(sums.objectness, sums.count, real),
            "rpn_box": ratio(sums.box, sums.count, real),
        }

    def mask_losses(net, found, regions, objects, real, size):
        logits = jax.vmap(second_stage.of_class)(
            net.masks(found, True, regions.positive), regions.labels
        )
        side = logits.shape[-1]
        truth = jax.vmap(
            functools.partial(
                second_stage.mask_targets, bins=side, size=size, aligned=aligned
            )
        )(regions, objects)
        loss = jax.vmap(second_stage.mask_loss)(logits, truth, regions)
        parts = {"mask": ratio(*loss, real)}
        if mask_iou:
            probs = jax.nn.sigmoid(logits)
            fits = jax.vmap(functools.partial(second_stage.mask_fit, size=size))(
                probs, truth, regions, objects
            )
            guesses = net.mask_iou(found, probs)
            fit = jax.vmap(second_stage.fit_loss)(guesses, fits, regions)
            parts["mask_iou"] = ratio(*fit, real)
        return parts

    def parts_of(net, batch: Batch, objects: Objects, key):
        size, real = batch.images.shape[1:3], batch.valid
        count = batch.images.shape[0]
        outputs = net(batch.images, train=True)
        windows = jax.vmap(functools.partial(boxes.window, network_size=size))(
            batch.affine, batch.sizes
        )
        first, second = (jax.random.split(k, count) for k in jax.random.split(key))
        parts: dict[str, Array] = {}
        if proposals:
            parts = first_losses(outputs, objects, windows, real, first)
        regions = jax.vmap(
            functools.partial(
                second_stage.sample,
                num_classes=num_classes,
                positive=positive,
                negative=negative,
                background=background,
                crowd_threshold=crowd_threshold,
                samples=samples,
                fraction=fraction,
            )
        )(propose(outputs, windows, batch.proposals, True), objects, second)
        # Images that fill up a batch are no part of batch statistics either.
        regions = regions._replace(
            chosen=regions.chosen & real[:, None],
            positive=regions.positive & real[:, None],
        )
        found = net.read(outputs.levels, regions.boxes, bins)
        logits, deltas = net.boxes(found, True, regions.chosen)
        entropy, distance, drawn = jax.vmap(
            functools.partial(second_stage.box_losses, beta=box_beta)
        )(logits, deltas, regions)
        parts["class"] = ratio(entropy, drawn, real)
        parts["box"] = ratio(distance, drawn, real)
        positives = jnp.sum(regions.positive)
        if masks or keypoints:
            regions = jax.vmap(lambda r: r.first(limit))(regions)
            found = net.read(outputs.levels, regions.boxes, mask_bins)
        if masks:
            parts |= mask_losses(net, found, regions, objects, real, size)
        if keypoints:
            maps = net.keypoints(found)
            loss = jax.vmap(second_stage.keypoint_loss)(maps, regions, objects)
            parts["keypoint"] = ratio(*loss, real)
        return parts, positives

    def init(key, images):
        variables: Any = net.init(key, images)
        params = variables.pop("params")
        return params, variables

    def loss(params, state, batch: Batch, key):
        _check_batch(batch, masks, keypoints)
        seen = batch.objects.valid & batch.valid[:, None]
        draw, drop = jax.random.split(key)
        (parts, positives), updated = linen.apply(parts_of, net, mutable=[*state])(
            {"params": params, **state},
            batch,
            dataclasses.replace(batch.objects, valid=seen),
            draw,
            rngs={"dropout": drop},
        )
        metrics = {**parts, "positives": positives}
        return sum(parts.values()), (updated, metrics)

    def found_by(net, images, windows, given) -> Detections:
        size = images.shape[1:3]
        if windows is None:
            windows = jnp.tile(boxes.whole(size), (images.shape[0], 1))
        outputs = net(images)
        proposed = propose(outputs, windows, given, False)
        logits, deltas = net.boxes(net.read(outputs.levels, proposed.boxes, bins))
        found = jax.vmap(
            functools.partial(
                second_stage.detect,
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                pre_nms_top_k=pre_nms_top_k,
                max_detections=max_detections,
            )
        )(logits, deltas, proposed, windows)
        if not (masks or keypoints):
            return found
        regions = net.read(outputs.levels, found.boxes, mask_bins)
        if masks:
            probs = jax.nn.sigmoid(
                jax.vmap(second_stage.of_class)(net.masks(regions), found.labels)
            )
            found = dataclasses.replace(found, box_masks=probs, aligned=aligned)
        if mask_iou:
            guesses = net.mask_iou(regions, probs)
            guess = jnp.take_along_axis(guesses, found.labels[..., None], axis=-1)
            judged = found.scores * guess[..., 0]
            found = dataclasses.replace(found, mask_scores=judged)
        if keypoints:
            decode = functools.partial(heatmaps.decode, limit=size)
            placed = jax.vmap(decode)(net.keypoints(regions), found.boxes)
            found = dataclasses.replace(found, keypoints=placed)
        return found

    def predict(params, state, images, windows=None, proposals=None):
        variables = {"params": params, **state}
        return linen.apply(found_by, net)(variables, images, windows, proposals)

    return Model(init, loss, predict, net, needs_proposals=not proposals)


def _net(
    *,
    num_classes,
    levels,
    features,
    fpn,
    fpn_norm,
    pixels,
    norm_eps,
    proposals,
    sizes,
    ratios,
    rpn_depth,
    rpn_nms_threshold,
    rpn_min_size,
    pre_nms,
    post_nms,
    pooling,
    bins,
    sampling,
    aligned,
    canonical_size,
    canonical_level,
    mask_bins,
    dtype,
    **others,
) -> Net:
    """The network behind `two_stage`, of its settings."""
    kinds = {"norm_eps": norm_eps, "dtype": dtype}
    heads = _roi_heads(num_classes=num_classes, features=features, **kinds, **others)
    return Net(
        num_classes=num_classes,
        backbone=Pyramid(
            _backbone(levels=levels, **kinds, **others),
            tuple(levels),
            FPN(features, norm=fpn_norm, **kinds) if fpn else None,
        ),
        rpn=RPN(features, len(sizes[0]) * len(ratios), rpn_depth, dtype)
        if proposals
        else None,
        roi_heads=heads,
        propose=Proposer(
            tuple(pre_nms), tuple(post_nms), rpn_nms_threshold, rpn_min_size
        ),
        read=Reader(
            min(levels), pooling, sampling, aligned, canonical_size, canonical_level
        ),
        sizes=tuple(tuple(s) for s in sizes),
        ratios=tuple(ratios),
        bins=(bins, mask_bins),
        pixels=pixels,
        dtype=dtype,
    )


def _backbone(*, backbone, backbone_width, levels, norm, norm_eps, dtype, **_):
    options = {"width": backbone_width, "norm_eps": norm_eps}
    # Not every family has these; what is asked for must be there.
    usual = {"width": None, "norm_eps": 1e-5}
    return backbones.make(
        backbone,
        **{name: value for name, value in options.items() if value != usual[name]},
        stages=max(levels) - 1,
        norm=norm,
        dtype=dtype,
    )


def _roi_heads(
    *,
    num_classes,
    features,
    backbone,
    backbone_width,
    norm,
    norm_eps,
    box_head,
    head_norm,
    hidden,
    dropout,
    masks,
    mask_features,
    mask_depth,
    mask_iou,
    keypoints,
    keypoint_features,
    keypoint_depth,
    dtype,
    **_,
) -> RoIHeads:
    kinds = {"norm_eps": norm_eps, "dtype": dtype}
    tasks: dict[str, Any] = {}
    head: linen.Module
    if box_head == "convs":
        head = roi_heads.Convs(features, hidden=hidden, norm=head_norm, **kinds)
    elif box_head == "last_stage":
        spec, width = resnet.SPECS[backbone], backbone_width or 64
        head = LastStage(resnet.Stage(spec, width, norm=norm, **kinds))
    else:
        head = roi_heads.TwoMLP(hidden, dropout, dtype)
    if masks:
        tasks["mask_head"] = roi_heads.Convs(
            mask_features, mask_depth, norm=head_norm, **kinds
        )
        tasks["mask_predictor"] = roi_heads.MaskPredictor(
            num_classes, mask_features, dtype
        )
    if mask_iou:
        tasks["mask_iou"] = roi_heads.MaskIoUHead(
            num_classes, mask_features, hidden, dtype
        )
    if keypoints:
        tasks["keypoint_head"] = roi_heads.KeypointHead(
            keypoint_features, keypoint_depth, dtype
        )
        tasks["keypoint_predictor"] = roi_heads.KeypointPredictor(keypoints, dtype)
    return RoIHeads(head, roi_heads.BoxPredictor(num_classes, dtype), **tasks)


def _check(levels, fpn, proposals, sizes, pooling, masks, mask_iou):
    """Raises UserError where the settings of `two_stage` do not fit each other."""
    maps = len(levels) + fpn
    if proposals and (len(sizes) != maps or len({len(s) for s in sizes}) != 1):
        raise UserError(
            f"sizes={sizes} must hold one tuple of equal length for each of the {maps} "
            "levels that boxes are proposed on"
        )
    if list(levels) != list(range(min(levels), max(levels) + 1)):
        raise UserError(f"levels={levels} must follow one another, the finest first")
    if pooling not in ("align", "max"):
        raise UserError(f"pooling={pooling!r} is not known; choose 'align' or 'max'")
    if len(levels) > 1 and (pooling == "max" or not fpn):
        raise UserError(
            f"levels={levels} need fpn=True and pooling='align'; give one level else"
        )
    if mask_iou and not masks:
        raise UserError("mask_iou=True judges masks; set masks=True")


def _check_head(box_head, backbone, levels, norm):
    """Raises UserError where the head on boxes is unknown or fits nothing."""
    if box_head not in _HEADS:
        raise UserError(f"box_head={box_head!r} is not known; choose one of {_HEADS}")
    if box_head != "last_stage":
        return
    if backbone not in resnet.SPECS or max(levels) > 4:
        raise UserError(
            "box_head='last_stage' takes the last stage of a ResNet, which must not be "
            f"among the features: backbone={backbone!r}, levels={levels}"
        )
    if norm == "batch":
        raise UserError(
            "box_head='last_stage' would take batch statistics of padding too; "
            "set norm='frozen' or norm='group'"
        )


def _check_batch(batch: Batch, masks: bool, keypoints: int):
    """Raises UserError where the batch lacks what is to be learnt."""
    objects = batch.objects
    if masks and objects.masks is None and objects.box_masks is None:
        raise UserError(
            "this detector learns masks but the batch has none; "
            "set model.name=faster_rcnn to learn boxes only"
        )
    given = batch.objects.keypoints
    if keypoints and (given is None or given.shape[2] != keypoints):
        held = "none" if given is None else f"{given.shape[2]} an object"
        raise UserError(
            f"this detector learns {keypoints} keypoints but the batch has {held}; "
            "set model.keypoints to their number, or choose another model"
        )


faster_rcnn = functools.partial(two_stage)
mask_rcnn = functools.partial(two_stage, masks=True)
keypoint_rcnn = functools.partial(two_stage, keypoints=17)
ms_rcnn = functools.partial(two_stage, masks=True, mask_iou=True)
# As in 2015: VGG-16, one level of stride 16, and pooling by maxima; numbers that the
# papers leave open are those of the authors' code.
_VGG: dict[str, Any] = {
    "backbone": "vgg16",
    "levels": (4,),
    "fpn": False,
    "features": 512,
    "sizes": ((128, 256, 512),),
    "pooling": "max",
    "hidden": 4096,
    "dropout": 0.5,
    "box_beta": 1.0,
    "nms_threshold": 0.3,
}
fast_rcnn = functools.partial(
    two_stage, **_VGG, proposals=False, samples=64, background=0.1
)
faster_rcnn_vgg16 = functools.partial(
    two_stage,
    **_VGG,
    rpn_inside=True,
    rpn_min_size=16,
    pre_nms=(12_000, 6_000),
    post_nms=(2_000, 300),
    samples=128,
)
# The last stage of the ResNet is the head (He et al. 2016, section 4.4).
faster_rcnn_c4 = functools.partial(
    two_stage,
    levels=(4,),
    fpn=False,
    features=1024,
    sizes=((32, 64, 128, 256, 512),),
    box_head="last_stage",
    bins=14,
    pre_nms=(12_000, 6_000),
)

# torchvision's numbers of classes, holes in COCO's numbering included. Its first
# weights were trained with a frozen norm that adds nothing to the variance.
_V1: dict[str, Any] = {"num_classes": 90, "norm": "frozen", "norm_eps": 0.0}
_V2: dict[str, Any] = {
    "num_classes": 90,
    "norm": "batch",
    "fpn_norm": "batch",
    "head_norm": "batch",
    "box_head": "convs",
    "rpn_depth": 2,
}
ORIGINALS: dict[str, dict[str, Any]] = {
    "faster_rcnn_r50_fpn": _V1,
    "faster_rcnn_r50_fpn_v2": _V2,
    "mask_rcnn_r50_fpn": {**_V1, "masks": True},
    "mask_rcnn_r50_fpn_v2": {**_V2, "masks": True},
    "keypoint_rcnn_r50_fpn": {**_V1, "num_classes": 1, "keypoints": 17},
}
