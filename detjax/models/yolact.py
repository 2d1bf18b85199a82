"""YOLACT: prototypes, mask coefficients, Fast NMS (Bolya et al., ICCV 2019).

    b images, p priors over all levels, c classes, q prototypes, n objects
    mh, mw   the prototypes' grid, twice the finest level's
    logits   [p c+1], the background last

A mask is the sigmoid of a linear combination of prototypes, cut out by its box. Without
masks (`masks=False`) what is left is a single-shot detector with shared heads.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax import backbones, losses
from detjax.errors import UserError
from detjax.nn.fpn import FPN
from detjax.nn.images import normalize
from detjax.nn.mask_iou import MaskIoU, mask_iou
from detjax.ops import anchors, assign, boxes, masks, nms, resize
from detjax.types import Array, Batch, Detections, Model, Objects

xavier = jax.nn.initializers.xavier_uniform()


class Outputs(NamedTuple):
    """What the network says of a batch, and the priors that it says it about."""

    deltas: Array  # [b p 4]
    logits: Array  # [b p c+1]
    priors: np.ndarray  # [p 4], a constant of the input's shape
    coefficients: Array | None = None  # [b p q]
    prototypes: Array | None = None  # [b mh mw q]
    semantic: Array | None = None  # [b h w c], training's auxiliary logits


def by_image(outputs: Outputs) -> Any:
    """The `in_axes` that map a function of one image over a batch's outputs."""
    axes = [None if o is None else 0 for o in outputs]
    return Outputs(*axes)._replace(priors=None)  # type: ignore[arg-type]


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`."""

    num_classes: int
    backbone: str
    backbone_width: int | None
    deform_every: int
    levels: tuple[int, ...]
    extra_levels: int
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    square_anchors: bool
    features: int
    num_prototypes: int  # 0: boxes only
    pixels: str
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        options = {"width": self.backbone_width, "deform_every": self.deform_every}
        features = backbones.make(
            self.backbone,
            **{name: value for name, value in options.items() if value},
            stages=max(self.levels) - 1,
            norm=self.norm,
            dtype=self.dtype,
            name="backbone",
        )(x, train)
        levels = FPN(
            self.features,
            extra_levels=self.extra_levels,
            upsample="bilinear",
            relu=True,
            dtype=self.dtype,
            name="fpn",
        )([features[i - 2] for i in self.levels])
        priors = anchors.grid(
            [level.shape[1:3] for level in levels],
            images.shape[1:3],
            self.sizes,
            self.ratios,
            square=self.square_anchors,
        )
        deltas, logits, coefficients = self._heads(levels)
        if not self.num_prototypes:
            return Outputs(deltas, logits, priors)
        semantic = None
        if train or self.is_initializing():
            semantic = self._conv(self.num_classes, 1, "semantic_seg_conv")(levels[0])
            semantic = semantic.astype(jnp.float32)
        return Outputs(
            deltas,
            logits,
            priors,
            jnp.tanh(coefficients),
            self._prototypes(levels[0]),
            semantic,
        )

    def _conv(self, features, kernel, name):
        return linen.Conv(
            features,
            (kernel, kernel),
            padding=kernel // 2,
            kernel_init=xavier,
            dtype=self.dtype,
            name=name,
        )

    def _heads(self, levels):
        """The heads on every level, with one set of weights, joined over the levels."""
        per_location = len(self.sizes[0]) * len(self.ratios)
        prefix = "prediction_layers.0."
        shared = self._conv(self.features, 3, prefix + "upfeature.0")
        widths = {"bbox_layer": 4, "conf_layer": self.num_classes + 1}
        if self.num_prototypes:
            widths["mask_layer"] = self.num_prototypes
        heads = [
            (width, self._conv(width * per_location, 3, prefix + name))
            for name, width in widths.items()
        ]
        hidden = [linen.relu(shared(level)) for level in levels]
        joined = [
            jnp.concatenate(
                [head(x).reshape(x.shape[0], -1, width) for x in hidden], axis=1
            ).astype(jnp.float32)
            for width, head in heads
        ]
        return joined if self.num_prototypes else (*joined, None)

    def _prototypes(self, x):
        for i in (0, 2, 4):
            x = linen.relu(self._conv(self.features, 3, f"proto_net.{i}")(x))
        double = (2 * x.shape[1], 2 * x.shape[2])
        x = linen.relu(jax.vmap(resize.bilinear, in_axes=(0, None))(x, double))
        x = linen.relu(self._conv(self.features, 3, "proto_net.8")(x))
        x = linen.relu(self._conv(self.num_prototypes, 1, "proto_net.10")(x))
        return x.astype(jnp.float32)


class Targets(NamedTuple):
    """What the priors of one image are to say."""

    object: Array  # [p] int32: the object of each prior
    labels: Array  # [p] int32: its class, c for background
    deltas: Array  # [p 4]
    positive: Array  # [p] bool
    negative: Array  # [p] bool; neither of the two: neutral


def targets(
    objects: Objects,
    priors: Array,
    *,
    num_classes: int,
    positive: float,
    negative: float,
    crowd_threshold: float,
) -> Targets:
    """Targets of one image: SSD's matching, with priors on crowds left neutral."""
    real = assign.learnable(objects)
    truth = jnp.where(real[:, None], objects.boxes, priors[:1])
    match = assign.match(
        boxes.iou(truth, priors),
        real,
        positive,
        negative,
        crowd_iou=boxes.iou_crowd(priors, objects.boxes).T,
        crowd_valid=objects.valid & objects.crowd,
        crowd_threshold=crowd_threshold,
    )
    labels = jnp.where(match.positive, objects.labels[match.index], num_classes)
    deltas = boxes.encode(truth[match.index], priors)
    return Targets(match.index, labels, deltas, match.positive, match.negative)


def class_loss(logits: Array, target: Targets, ratio: float) -> Array:
    """Summed cross entropy [] of the positives and of `ratio` hard negatives for each.

    A negative is as hard as its probability of background is small.
    """
    hardness = jax.nn.logsumexp(logits, axis=-1) - logits[:, -1]
    chosen = target.positive | assign.hard_negatives(
        jax.lax.stop_gradient(hardness), target.positive, target.negative, ratio
    )
    loss = losses.softmax_cross_entropy(logits, target.labels)
    return jnp.sum(jnp.where(chosen, loss, 0.0))


class MaskSample(NamedTuple):
    """k positives of one image with their masks, on the prototypes' grid."""

    chosen: Array  # [k] bool: not padding
    labels: Array  # [k] int32
    logits: Array  # [k mh mw]
    window: Array  # [k mh mw] bool: inside the truth's box
    truth: Array  # [k mh mw] bool
    area: Array  # [k] of the truth's box, in parts of the image's


def sample_masks(
    outputs: Outputs,
    objects: Objects,
    target: Targets,
    key: Array,
    *,
    size: tuple[int, int],
    limit: int,
) -> MaskSample:
    """All positives of one image, or `limit` of them drawn at random."""
    mh, mw = outputs.prototypes.shape[:2]
    order = jnp.where(
        target.positive, jax.random.uniform(key, target.positive.shape), -1.0
    )
    drawn, prior = jax.lax.top_k(order, min(limit, order.shape[0]))
    chosen, index = drawn >= 0, target.object[prior]
    # Padding never has a positive, but its boxes are still arithmetic.
    whole = jnp.array([0.0, 0.0, size[1], size[0]])
    box = jnp.where(chosen[:, None], objects.boxes[index], whole)
    truth = masks.resize(objects.masks.astype(jnp.float32), (mh, mw)) > 0.5
    rows, columns = masks.crop_cells(box, size, (mh, mw))
    return MaskSample(
        chosen=chosen,
        labels=objects.labels[index],
        logits=masks.assemble(outputs.prototypes, outputs.coefficients[prior]),
        window=rows[:, :, None] & columns[:, None],
        truth=truth[index],
        area=boxes.area(box) / (size[0] * size[1]),
    )


def mask_loss(sample: MaskSample, positives: Array) -> Array:
    """Cross entropy [] in the truth's boxes, each mask's divided by its box's area.

    The sample pays for all `positives` of the image.
    """
    inside = losses.sigmoid_cross_entropy(
        sample.logits, sample.truth.astype(jnp.float32)
    )
    # Outside its window a mask is 0, where the original's log is clamped at -100.
    loss = jnp.where(sample.window, inside, 100.0 * sample.truth)
    each = jnp.where(sample.chosen, loss.mean(axis=(1, 2)) / sample.area, 0.0)
    return jnp.sum(each) * positives / jnp.maximum(jnp.sum(sample.chosen), 1)


def rescore_loss(sample: MaskSample, guesses: Array, min_area: float) -> Array:
    """Smooth L1 [] between the IoU of each mask and the guess [k c] of its class.

    Truths of up to `min_area` cells are left out.
    """
    cut = (sample.logits > 0) & sample.window
    fits = mask_iou(cut, sample.truth)
    guess = jnp.take_along_axis(guesses, sample.labels[:, None], axis=1)[:, 0]
    some = sample.chosen & (jnp.sum(sample.truth, axis=(1, 2)) > min_area)
    return jnp.sum(jnp.where(some, losses.smooth_l1(guess, fits), 0.0))


def semantic_loss(logits: Array, objects: Objects) -> Array:
    """Cross entropy [], summed over classes, of the union of each class's masks."""
    shape = logits.shape[:2]
    real = assign.learnable(objects)
    each = masks.resize(objects.masks.astype(jnp.float32), shape) > 0.5
    labels = jax.nn.one_hot(objects.labels, logits.shape[-1]) * real[:, None]
    truth = jnp.einsum("nhw,nc->hwc", each.astype(jnp.float32), labels) > 0
    loss = losses.sigmoid_cross_entropy(logits, truth.astype(jnp.float32))
    return loss.sum(axis=-1).mean()


def detect(
    outputs: Outputs,
    size: tuple[int, int],
    *,
    score_threshold: float,
    nms_threshold: float,
    top_k: int,
    max_detections: int,
) -> Detections:
    """Detections of one image, as the original's: boxes may reach out of the image."""
    decoded = boxes.decode(outputs.deltas, outputs.priors)
    scores = jax.nn.softmax(outputs.logits)[:, :-1].T
    index, labels, scores, keep = nms.fast(
        decoded,
        scores,
        nms_threshold,
        top_k,
        max_detections,
        score_threshold=score_threshold,
    )
    found = Detections(decoded[index], scores, labels, keep)
    if outputs.prototypes is None:
        return found
    logits = masks.assemble(outputs.prototypes, outputs.coefficients[index])
    probs = masks.crop(jax.nn.sigmoid(logits), found.boxes, size)
    return dataclasses.replace(found, masks=probs)


def rescore(found: Detections, guesses: Array) -> Detections:
    """Detections whose mask scores are their scores times the guessed IoU [d c].

    The original keeps the two scores apart: boxes rank by one, masks by the other.
    """
    guess = jnp.take_along_axis(guesses, found.labels[:, None], axis=1)[:, 0]
    return dataclasses.replace(found, mask_scores=found.scores * guess)


def yolact(
    *,
    num_classes: int,
    backbone: str = "resnet101",
    backbone_width: int | None = None,
    deform_every: int = 0,
    levels: tuple[int, ...] = (3, 4, 5),
    extra_levels: int = 2,
    sizes: tuple[tuple[float, ...], ...] = ((24,), (48,), (96,), (192,), (384,)),
    ratios: tuple[float, ...] = (1, 0.5, 2),
    square_anchors: bool = False,
    features: int = 256,
    masks: bool = True,
    num_prototypes: int = 32,
    rescoring: bool = False,
    pixels: str = "yolact",
    norm: str = "batch",
    positive: float = 0.5,
    negative: float = 0.4,
    crowd_threshold: float = 0.7,
    negative_ratio: float = 3,
    masks_to_train: int = 100,
    box_weight: float = 1.5,
    class_weight: float = 1.0,
    mask_weight: float = 6.125,
    semantic_weight: float = 1.0,
    rescore_weight: float = 25.0,
    min_mask_area: float = 25.0,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    top_k: int = 200,
    max_detections: int = 100,
    dtype: Any = "float32",
) -> Model:
    """YOLACT; the defaults are the paper's, for images near 550 pixels.

    (All but `norm`: the paper fine-tunes with "frozen", new runs want "batch".)

    `levels` names the backbone's features (2 is stride 4) below the pyramid's
    `extra_levels`; `sizes` gives the priors' sides in pixels, a tuple a level. With
    `masks=False` there is no mask branch, and data without masks can be learnt.
    `deform_every` and `rescoring` are YOLACT++'s; `ORIGINALS` has the authors' sets.

    Raises UserError where `sizes` does not fit the levels, and at the first loss where
    masks are asked of a batch without any.
    """
    if len(sizes) != len(levels) + extra_levels or len({len(s) for s in sizes}) != 1:
        raise UserError(
            f"sizes={sizes} must hold one tuple of equal length for each of the "
            f"{len(levels)} levels and {extra_levels} extra levels"
        )
    net = Net(
        num_classes=num_classes,
        backbone=backbone,
        backbone_width=backbone_width,
        deform_every=deform_every,
        levels=tuple(levels),
        extra_levels=extra_levels,
        sizes=tuple(tuple(s) for s in sizes),
        ratios=tuple(ratios),
        square_anchors=square_anchors,
        features=features,
        num_prototypes=num_prototypes if masks else 0,
        pixels=pixels,
        norm=norm,
        dtype=jnp.dtype(dtype),
    )

    judge = MaskIoU(num_classes)

    def init(key, images):
        variables: Any = net.init(key, images)
        params = variables.pop("params")
        if rescoring:
            outputs = jax.eval_shape(net.apply, {"params": params, **variables}, images)
            grid = jnp.zeros((1, *outputs.prototypes.shape[1:3]))
            params["maskiou_net"] = judge.init(jax.random.fold_in(key, 1), grid)[
                "params"
            ]
        return params, variables

    def guess(params, probs):
        """The mask IoU [b k c] that is guessed for cropped masks [b k mh mw]."""
        flat = probs.reshape(-1, *probs.shape[2:])
        guesses: Any = judge.apply({"params": params["maskiou_net"]}, flat)
        return guesses.reshape(*probs.shape[:2], -1)

    def image_losses(outputs: Outputs, objects: Objects, key, *, size):
        target = targets(
            objects,
            outputs.priors,
            num_classes=num_classes,
            positive=positive,
            negative=negative,
            crowd_threshold=crowd_threshold,
        )
        distance = losses.smooth_l1(outputs.deltas, target.deltas).sum(axis=-1)
        parts = {
            "box": box_weight * jnp.sum(jnp.where(target.positive, distance, 0.0)),
            "class": class_weight * class_loss(outputs.logits, target, negative_ratio),
        }
        positives = jnp.sum(target.positive)
        if not masks:
            return parts, positives, None
        sample = sample_masks(
            outputs, objects, target, key, size=size, limit=masks_to_train
        )
        parts["mask"] = mask_weight * mask_loss(sample, positives)
        parts["semantic"] = semantic_weight * semantic_loss(outputs.semantic, objects)
        return parts, positives, sample

    def loss(params, state, batch: Batch, key):
        if masks and batch.objects.masks is None:
            raise UserError(
                "this YOLACT learns masks but the batch has none; "
                "set model.masks=False to learn boxes only"
            )
        outputs, updated = net.apply(
            {"params": params, **state}, batch.images, train=True, mutable=[*state]
        )
        real = batch.objects.valid & batch.valid[:, None]
        each, positives, sample = jax.vmap(
            functools.partial(image_losses, size=batch.images.shape[1:3]),
            in_axes=(by_image(outputs), 0, 0),
        )(
            outputs,
            dataclasses.replace(batch.objects, valid=real),
            jax.random.split(key, batch.images.shape[0]),
        )
        if rescoring:
            probs = jnp.where(sample.window, jax.nn.sigmoid(sample.logits), 0.0)
            each["rescore"] = rescore_weight * jax.vmap(
                functools.partial(rescore_loss, min_area=min_mask_area)
            )(sample, guess(params, probs))
        # The original divides all but the semantic loss by the batch's positives.
        per = {"semantic": jnp.sum(batch.valid)}
        parts = {
            name: jnp.sum(jnp.where(batch.valid, loss, 0.0))
            / jnp.maximum(per.get(name, jnp.sum(positives)), 1)
            for name, loss in each.items()
        }
        metrics = {**parts, "positives": jnp.sum(positives)}
        return sum(parts.values()), (updated, metrics)

    def predict(params, state, images, windows=None, proposals=None):
        outputs: Any = net.apply({"params": params, **state}, images)
        size = images.shape[1:3]
        if windows is None:
            windows = jnp.tile(boxes.whole(size), (images.shape[0], 1))

        def one(outputs, window):
            found = detect(
                outputs,
                size,
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                top_k=top_k,
                max_detections=max_detections,
            )
            return dataclasses.replace(found, boxes=boxes.clip(found.boxes, window))

        found = jax.vmap(one, in_axes=(by_image(outputs), 0))(outputs, windows)
        if rescoring:
            found = jax.vmap(rescore)(found, guess(params, found.masks))
        return found

    return Model(init, loss, predict, net)


_SIDES = (24, 48, 96, 192, 384)
_FIRST = {"num_classes": 80, "square_anchors": True, "norm": "frozen"}
_PLUS = {
    "num_classes": 80,
    "norm": "frozen",
    "sizes": tuple(tuple(s * 2 ** (i / 3) for i in range(3)) for s in _SIDES),
    "rescoring": True,
}


def _at(pixels: int) -> dict[str, Any]:
    """The first YOLACT for another input: its priors grow with it, to whole pixels."""
    return {**_FIRST, "sizes": tuple((int(s / 550 * pixels),) for s in _SIDES)}


# The authors' models by their names, for their weights. Their priors are square in all
# but YOLACT++, a slip that the first weights were trained with.
ORIGINALS: dict[str, dict[str, Any]] = {
    "yolact_resnet50": {**_FIRST, "backbone": "resnet50"},
    "yolact_base": _FIRST,
    # Darknet was trained on pixels in 0..1.
    "yolact_darknet53": {**_FIRST, "backbone": "darknet53", "pixels": "unit"},
    "yolact_im400": _at(400),
    "yolact_im700": {**_at(700), "masks_to_train": 300},
    "yolact_plus_resnet50": {**_PLUS, "backbone": "resnet50", "deform_every": 1},
    "yolact_plus_base": {**_PLUS, "deform_every": 3},
}
