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
from detjax.nn.fpn import FPN
from detjax.nn.images import YOLACT, normalize
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
    backbone_width: int
    levels: tuple[int, ...]
    extra_levels: int
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    square_anchors: bool
    features: int
    num_prototypes: int  # 0: boxes only
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, YOLACT, self.dtype)
        features = backbones.make(
            self.backbone,
            width=self.backbone_width,
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


def trainable(objects: Objects, min_size: float) -> Array:
    """The objects [n] bool that are learnt: no crowds, no side under `min_size` pixels.

    The original drops boxes under 4 of its 550 pixels.
    """
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    return objects.valid & ~objects.crowd & (sides >= min_size).all(axis=-1)


def targets(
    objects: Objects,
    priors: Array,
    *,
    num_classes: int,
    positive: float,
    negative: float,
    crowd_threshold: float,
    min_size: float,
) -> Targets:
    """Targets of one image: SSD's matching, with priors on crowds left neutral."""
    real = trainable(objects, min_size)
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


def mask_loss(
    coefficients: Array,
    prototypes: Array,
    objects: Objects,
    target: Targets,
    key: Array,
    *,
    size: tuple[int, int],
    limit: int,
) -> Array:
    """Cross entropy [] in the truth's boxes, each mask's divided by its box's area.

    At most `limit` positives of an image are drawn to pay for all of them.
    """
    mh, mw = prototypes.shape[:2]
    order = jnp.where(
        target.positive, jax.random.uniform(key, target.positive.shape), -1.0
    )
    drawn, prior = jax.lax.top_k(order, min(limit, order.shape[0]))
    chosen, index = drawn >= 0, target.object[prior]
    # Padding and crowds never have a positive, but their boxes are still arithmetic.
    box = jnp.where(
        chosen[:, None], objects.boxes[index], jnp.array([0.0, 0, size[1], size[0]])
    )
    truth = (masks.resize(objects.masks.astype(jnp.float32), (mh, mw)) > 0.5)[index]
    logits = masks.assemble(prototypes, coefficients[prior])
    rows, columns = masks.crop_cells(box, size, (mh, mw))
    window = rows[:, :, None] & columns[:, None]
    # Outside its window a mask is 0, where the original's log is clamped at -100.
    loss = jnp.where(
        window,
        losses.sigmoid_cross_entropy(logits, truth.astype(jnp.float32)),
        100.0 * truth,
    )
    area = boxes.area(box) / (size[0] * size[1])
    each = jnp.where(chosen, loss.mean(axis=(1, 2)) / area, 0.0)
    total, count = jnp.sum(target.positive), jnp.sum(chosen)
    return jnp.sum(each) * total / jnp.maximum(count, 1)


def semantic_loss(logits: Array, objects: Objects, min_size: float) -> Array:
    """Cross entropy [], summed over classes, of the union of each class's masks."""
    shape = logits.shape[:2]
    real = trainable(objects, min_size)
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


def yolact(
    *,
    num_classes: int,
    backbone: str = "resnet101",
    backbone_width: int = 64,
    levels: tuple[int, ...] = (3, 4, 5),
    extra_levels: int = 2,
    sizes: tuple[tuple[float, ...], ...] = ((24,), (48,), (96,), (192,), (384,)),
    ratios: tuple[float, ...] = (1, 0.5, 2),
    square_anchors: bool = False,
    features: int = 256,
    masks: bool = True,
    num_prototypes: int = 32,
    norm: str = "batch",
    positive: float = 0.5,
    negative: float = 0.4,
    crowd_threshold: float = 0.7,
    negative_ratio: float = 3,
    min_size: float = 4,
    masks_to_train: int = 100,
    box_weight: float = 1.5,
    class_weight: float = 1.0,
    mask_weight: float = 6.125,
    semantic_weight: float = 1.0,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    top_k: int = 200,
    max_detections: int = 100,
    dtype: Any = "float32",
) -> Model:
    """YOLACT; the defaults are the paper's, for images near 550 pixels.

    `levels` names the backbone's features (2 is stride 4) below the pyramid's
    `extra_levels`; `sizes` gives the priors' sides in pixels, a tuple a level. With
    `masks=False` there is no mask branch, and data without masks can be learnt.

    Raises ValueError where `sizes` does not fit the levels, and at the first loss where
    masks are asked of a batch without any.
    """
    if len(sizes) != len(levels) + extra_levels or len({len(s) for s in sizes}) != 1:
        raise ValueError(
            f"sizes={sizes} must hold one tuple of equal length for each of the "
            f"{len(levels)} levels and {extra_levels} extra levels"
        )
    net = Net(
        num_classes=num_classes,
        backbone=backbone,
        backbone_width=backbone_width,
        levels=tuple(levels),
        extra_levels=extra_levels,
        sizes=tuple(tuple(s) for s in sizes),
        ratios=tuple(ratios),
        square_anchors=square_anchors,
        features=features,
        num_prototypes=num_prototypes if masks else 0,
        norm=norm,
        dtype=jnp.dtype(dtype),
    )

    def init(key, images):
        variables = net.init(key, images)
        params = variables.pop("params")
        return params, variables

    def image_losses(outputs: Outputs, objects: Objects, key, *, size):
        target = targets(
            objects,
            outputs.priors,
            num_classes=num_classes,
            positive=positive,
            negative=negative,
            crowd_threshold=crowd_threshold,
            min_size=min_size,
        )
        distance = losses.smooth_l1(outputs.deltas, target.deltas).sum(axis=-1)
        parts = {
            "box": box_weight * jnp.sum(jnp.where(target.positive, distance, 0.0)),
            "class": class_weight * class_loss(outputs.logits, target, negative_ratio),
        }
        if masks:
            parts["mask"] = mask_weight * mask_loss(
                outputs.coefficients,
                outputs.prototypes,
                objects,
                target,
                key,
                size=size,
                limit=masks_to_train,
            )
            parts["semantic"] = semantic_weight * semantic_loss(
                outputs.semantic, objects, min_size
            )
        return parts, jnp.sum(target.positive)

    def loss(params, state, batch: Batch, key):
        if masks and batch.objects.masks is None:
            raise ValueError(
                "this YOLACT learns masks but the batch has none; "
                "set model.masks=False to learn boxes only"
            )
        outputs, updated = net.apply(
            {"params": params, **state}, batch.images, train=True, mutable=[*state]
        )
        real = batch.objects.valid & batch.valid[:, None]
        each, positives = jax.vmap(
            functools.partial(image_losses, size=batch.images.shape[1:3]),
            in_axes=(by_image(outputs), 0, 0),
        )(
            outputs,
            dataclasses.replace(batch.objects, valid=real),
            jax.random.split(key, batch.images.shape[0]),
        )
        # The original divides all but the semantic loss by the batch's positives.
        per = {"semantic": jnp.sum(batch.valid)}
        parts = {
            name: jnp.sum(jnp.where(batch.valid, loss, 0.0))
            / jnp.maximum(per.get(name, jnp.sum(positives)), 1)
            for name, loss in each.items()
        }
        metrics = {**parts, "positives": jnp.sum(positives)}
        return sum(parts.values()), (updated, metrics)

    def predict(params, state, images):
        outputs: Any = net.apply({"params": params, **state}, images)
        size = images.shape[1:3]

        def one(outputs):
            found = detect(
                outputs,
                size,
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                top_k=top_k,
                max_detections=max_detections,
            )
            return dataclasses.replace(found, boxes=boxes.clip(found.boxes, size))

        return jax.vmap(one, in_axes=(by_image(outputs),))(outputs)

    return Model(init, loss, predict, net)
