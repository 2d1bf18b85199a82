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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax import backbones
from detjax.backbones import resnet
from detjax.nn import roi_heads, rpn, second_stage
from detjax.nn.fpn import FPN
from detjax.nn.images import normalize
from detjax.ops import anchors, boxes, heatmaps, roi
from detjax.types import Array, Batch, Detections, Model, Objects, Proposals


class Pyramid(linen.Module):
    """Normalised images -> levels, finest first; one level where there is no `fpn`."""

    backbone: str
    backbone_width: int | None
    levels: tuple[int, ...]
    fpn: int | None
    fpn_norm: str | None
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool = False):
        options = {"width": self.backbone_width, "norm_eps": self.norm_eps}
        default = {"width": None, "norm_eps": 1e-5}
        found = backbones.make(
            self.backbone,
            **{k: v for k, v in options.items() if v != default[k]},
            stages=max(self.levels) - 1,
            norm=self.norm,
            dtype=self.dtype,
            name="body",
        )(x, train)
        found = [found[i - 2] for i in self.levels]
        if self.fpn is None:
            return tuple(found)
        return FPN(
            self.fpn,
            norm=self.fpn_norm,
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            name="fpn",
        )(found, train)


class RPN(linen.Module):
    """torchvision's `rpn`, which holds a `head`."""

    features: int
    per_location: int
    depth: int
    dtype: Any

    @linen.compact
    def __call__(self, levels):
        head = rpn.RPNHead(
            self.features, self.per_location, self.depth, self.dtype, name="head"
        )
        return head(levels)


class RoIHeads(linen.Module):
    """torchvision's `roi_heads`, which holds a head and a predictor for each task."""

    box_head: linen.Module
    box_predictor: linen.Module
    mask_head: linen.Module | None = None
    mask_predictor: linen.Module | None = None
    keypoint_head: linen.Module | None = None
    keypoint_predictor: linen.Module | None = None
    mask_iou: linen.Module | None = None

    def boxes(self, regions, train, real=None):
        x = self.box_head(regions, train, real)
        return self.box_predictor(x)

    def masks(self, regions, train, real=None):
        return self.mask_predictor(self.mask_head(regions, train, real))

    def keypoints(self, regions):
        return self.keypoint_predictor(self.keypoint_head(regions))


class LastStage(linen.Module):
    """A ResNet's last stage and the mean over its cells, [n s s c] -> [n d]."""

    stage: linen.Module

    @linen.compact
    def __call__(self, x, train: bool = False, real=None):
        return self.stage(x, train).mean(axis=(1, 2))


class Outputs(NamedTuple):
    """What the network says of a batch before it is asked about regions."""

    levels: tuple[Array, ...]  # [b h w .], those that regions are read from
    priors: np.ndarray | None = None  # [p 4], a constant of the input's shape
    counts: tuple[int, ...] = ()  # priors of each level
    logits: Array | None = None  # [b p]: objectness
    deltas: Array | None = None  # [b p 4]


@dataclasses.dataclass(frozen=True)
class Proposer:
    """How boxes are proposed; pairs are for training and for prediction."""

    pre_nms: tuple[int, ...]
    post_nms: tuple[int, ...]
    nms_threshold: float
    min_size: float

    def __call__(self, outputs: Outputs, windows: Array, train: bool) -> Proposals:
        """Proposals, leading axis b, inside `windows` [b 4]."""
        return jax.vmap(
            functools.partial(
                rpn.propose,
                priors=outputs.priors,
                counts=outputs.counts,
                pre_nms=self.pre_nms[not train],
                post_nms=self.post_nms[not train],
                nms_threshold=self.nms_threshold,
                min_size=self.min_size,
            )
        )(outputs.logits, outputs.deltas, window=windows)


@dataclasses.dataclass(frozen=True)
class Reader:
    """How regions are read from the levels."""

    finest: int
    pooling: str  # "align", or the older "max"
    sampling: int
    aligned: bool
    canonical_size: float
    canonical_level: int

    def __call__(self, levels: tuple[Array, ...], rois: Array, bins: int) -> Array:
        """Levels [b h w .] and boxes [b k 4] -> regions [b k s s .]."""
        return jax.vmap(functools.partial(self._of_one, bins=bins))(levels, rois)

    def _of_one(self, levels, rois, bins):
        scales = [2.0 ** -(self.finest + i) for i in range(len(levels))]
        if self.pooling == "max":
            return roi.pool(levels[0], rois, bins=bins, scale=scales[0])
        kind = {"bins": bins, "sampling": self.sampling, "aligned": self.aligned}
        if len(levels) == 1:
            return roi.align(levels[0], rois, scale=scales[0], **kind)
        level = roi.levels(
            rois, len(levels), self.finest, self.canonical_size, self.canonical_level
        )
        return roi.multilevel(levels, rois, level, scales=scales, **kind)


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`; `boxes`, `masks`, `keypoints` judge regions."""

    num_classes: int
    backbone: Pyramid
    rpn: RPN | None
    roi_heads: RoIHeads
    propose: Proposer
    read: Reader
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    bins: tuple[int, int]
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        levels = self.backbone(x, train)
        outputs = Outputs(levels)
        if self.rpn is not None:
            # A last level for proposals only: every second cell of the one before.
            pooled = [levels[-1][:, ::2, ::2]] if self.backbone.fpn else []
            maps = [*levels, *pooled]
            shapes = [x.shape[1:3] for x in maps]
            per_location = len(self.sizes[0]) * len(self.ratios)
            logits, deltas = self.rpn(maps)
            outputs = Outputs(
                levels,
                anchors.rcnn(
                    shapes, strides(shapes, images.shape[1:3]), self.sizes, self.ratios
                ),
                tuple(h * w * per_location for h, w in shapes),
                logits,
                deltas,
            )
        if self.is_initializing():
            self._touch(levels[0])
        return outputs

    def _touch(self, level):
        """Runs the heads once, so that their parameters come into being."""
        small, large = (
            jnp.zeros((1, 1, s, s, level.shape[-1]), self.dtype) for s in self.bins
        )
        self.boxes(small)
        if self.roi_heads.mask_head is not None:
            masks = self.masks(large)
            if self.roi_heads.mask_iou is not None:
                self.mask_iou(large, masks[..., 0])
        if self.roi_heads.keypoint_head is not None:
            self.keypoints(large)

    def boxes(self, regions, train: bool = False, real=None):
        """Regions [b k s s .] -> logits [b k c+1] and deltas [b k c+1 4]."""
        return self._judge(self.roi_heads.boxes, regions, train, real)

    def masks(self, regions, train: bool = False, real=None):
        """Regions [b k s s .] -> mask logits [b k r r c+1]."""
        return self._judge(self.roi_heads.masks, regions, train, real)

    def keypoints(self, regions):
        """Regions [b k s s .] -> heatmaps [b k r r keypoints]."""
        return unflat(self.roi_heads.keypoints(flat(regions)), regions)

    def mask_iou(self, regions, probs):
        """Regions and their masks [b k r r] in 0..1 -> IoU [b k c] by class."""
        return unflat(self.roi_heads.mask_iou(flat(regions), flat(probs)), regions)

    def _judge(self, head, regions, train, real):
        real = None if real is None else flat(real)
        found = head(flat(regions), train, real)
        return jax.tree.map(lambda x: unflat(x, regions), found)


def flat(x: Array) -> Array:
    """[b k ...] -> [b*k ...]."""
    return x.reshape(-1, *x.shape[2:])


def unflat(x: Array, like: Array) -> Array:
    """[b*k ...] -> [b k ...], b and k being those of `like`."""
    return x.reshape(*like.shape[:2], *x.shape[1:])


def strides(
    shapes: list[tuple[int, int]], size: tuple[int, int]
) -> list[tuple[int, int]]:
    """Pixels between the cells of each level (h, w), whole numbers as in torchvision.

    Inputs count as if they were padded to a multiple of 32, as torchvision's are.
    """
    h, w = (-(-side // 32) * 32 for side in size)
    return [(h // rows, w // columns) for rows, columns in shapes]


def ratio(sums: Array, counts: Array, real: Array) -> Array:
    """Sums [b] over counts [b], both of the batch's `real` images [b] only."""
    total = jnp.sum(jnp.where(real, sums, 0.0))
    return total / jnp.maximum(jnp.sum(jnp.where(real, counts, 0)), 1)


_HEADS = ("mlp", "convs", "vgg", "last_stage")


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
    crowd_threshold: float = 0.7,
    samples: int = 512,
    fraction: float = 0.25,
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
    each level. `box_head` is "mlp", "convs" (v2), "vgg" (with `dropout`), or
    "last_stage" (C4, with the backbone's own).
    `mask_samples` bounds the regions an image that masks and keypoints learn from; the
    default is all the positives that `samples` and `fraction` admit.

    Raises ValueError where the settings do not fit each other, and at the first loss
    where the batch lacks what is to be learnt.
    """
    _check(levels, fpn, proposals, sizes, box_head, pooling, backbone, masks, mask_iou)
    dtype = jnp.dtype(dtype)
    kinds = {"norm_eps": norm_eps, "dtype": dtype}
    heads: dict[str, Callable[[], linen.Module]] = {
        "mlp": lambda: roi_heads.TwoMLP(hidden, dropout, dtype),
        "vgg": lambda: roi_heads.TwoMLP(hidden, dropout, dtype),
        "convs": lambda: roi_heads.Convs(
            features, hidden=hidden, norm=head_norm, **kinds
        ),
        "last_stage": lambda: LastStage(
            resnet.Stage(
                resnet.SPECS[backbone], backbone_width or 64, norm=norm, **kinds
            )
        ),
    }
    tasks: dict[str, Any] = {}
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
    net = Net(
        num_classes=num_classes,
        backbone=Pyramid(
            backbone,
            backbone_width,
            tuple(levels),
            features if fpn else None,
            fpn_norm,
            norm,
            norm_eps,
            dtype,
        ),
        rpn=RPN(features, len(sizes[0]) * len(ratios), rpn_depth, dtype)
        if proposals
        else None,
        roi_heads=RoIHeads(
            heads[box_head](), roi_heads.BoxPredictor(num_classes, dtype), **tasks
        ),
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
    limit = mask_samples or int(samples * fraction)

    def propose(outputs: Outputs, windows, given, train: bool) -> Proposals:
        if not proposals and given is None:
            raise ValueError(
                "this detector makes no proposals and was given none; give batches "
                "that hold some, or take faster_rcnn"
            )
        return net.propose(outputs, windows, train) if proposals else given

    def first_losses(outputs: Outputs, objects: Objects, real, keys):
        def one(logits, deltas, objects, key):
            match = rpn.targets(
                objects,
                second_stage.learnt(objects),
                outputs.priors,
                positive=rpn_positive,
                negative=rpn_negative,
                crowd_threshold=crowd_threshold,
                low_quality=True,
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

        sums = jax.vmap(one)(outputs.logits, outputs.deltas, objects, keys)
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
            functools.partial(second_stage.mask_targets, bins=side, size=size)
        )(regions, objects)
        loss = jax.vmap(second_stage.mask_loss)(logits, truth, regions)
        parts = {"mask": ratio(*loss, real)}
        if mask_iou:
            probs = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
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
        parts = first_losses(outputs, objects, real, first) if proposals else {}
        regions = jax.vmap(
            functools.partial(
                second_stage.sample,
                num_classes=num_classes,
                positive=positive,
                negative=negative,
                crowd_threshold=crowd_threshold,
                samples=samples,
                fraction=fraction,
            )
        )(propose(outputs, windows, batch.proposals, True), objects, second)
        found = net.read(outputs.levels, regions.boxes, bins)
        logits, deltas = net.boxes(found, True, regions.chosen)
        entropy, distance, drawn = jax.vmap(second_stage.box_losses)(
            logits, deltas, regions
        )
        parts["class"] = ratio(entropy, drawn, real)
        parts["box"] = ratio(distance, drawn, real)
        positives = jnp.sum(jnp.where(real[:, None], regions.positive, False))
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
            found = dataclasses.replace(found, box_masks=probs)
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

    return Model(init, loss, predict, net)


def _check(levels, fpn, proposals, sizes, box_head, pooling, backbone, masks, mask_iou):
    """Raises ValueError where the settings of `two_stage` do not fit each other."""
    maps = len(levels) + fpn
    if proposals and (len(sizes) != maps or len({len(s) for s in sizes}) != 1):
        raise ValueError(
            f"sizes={sizes} must hold one tuple of equal length for each of the {maps} "
            "levels that boxes are proposed on"
        )
    if box_head not in _HEADS:
        raise ValueError(f"box_head={box_head!r} is not known; choose one of {_HEADS}")
    if pooling not in ("align", "max"):
        raise ValueError(f"pooling={pooling!r} is not known; choose 'align' or 'max'")
    if len(levels) > 1 and (pooling == "max" or not fpn):
        raise ValueError(
            f"levels={levels} need fpn=True and pooling='align'; give one level else"
        )
    if box_head == "last_stage" and (backbone not in resnet.SPECS or max(levels) > 4):
        raise ValueError(
            "box_head='last_stage' takes the last stage of a ResNet, which must not be "
            f"among the features: backbone={backbone!r}, levels={levels}"
        )
    if mask_iou and not masks:
        raise ValueError("mask_iou=True judges masks; set masks=True")


def _check_batch(batch: Batch, masks: bool, keypoints: int):
    """Raises ValueError where the batch lacks what is to be learnt."""
    if masks and batch.objects.masks is None:
        raise ValueError(
            "this detector learns masks but the batch has none; "
            "set model.name=faster_rcnn to learn boxes only"
        )
    given = batch.objects.keypoints
    if keypoints and (given is None or given.shape[2] != keypoints):
        held = "none" if given is None else f"{given.shape[2]} an object"
        raise ValueError(
            f"this detector learns {keypoints} keypoints but the batch has {held}; "
            "set model.keypoints to their number, or choose another model"
        )


faster_rcnn = functools.partial(two_stage)
mask_rcnn = functools.partial(two_stage, masks=True)
keypoint_rcnn = functools.partial(two_stage, keypoints=17)
ms_rcnn = functools.partial(two_stage, masks=True, mask_iou=True)
# As in 2015: VGG-16, one level of stride 16, and pooling by maxima.
_VGG: dict[str, Any] = {
    "backbone": "vgg16",
    "levels": (4,),
    "fpn": False,
    "features": 512,
    "sizes": ((128, 256, 512),),
    "pooling": "max",
    "box_head": "vgg",
    "hidden": 4096,
    "dropout": 0.5,
}
fast_rcnn = functools.partial(two_stage, **_VGG, proposals=False, samples=64)
faster_rcnn_vgg16 = functools.partial(two_stage, **_VGG, samples=128)
# The last stage of the ResNet is the head (He et al. 2016, section 4.4).
faster_rcnn_c4 = functools.partial(
    two_stage,
    levels=(4,),
    fpn=False,
    features=1024,
    sizes=((32, 64, 128, 256, 512),),
    box_head="last_stage",
    bins=14,
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
