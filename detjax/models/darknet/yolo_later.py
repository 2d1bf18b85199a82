"""The head of YOLOv4: [yolo] sections with options of the later darknet.

    p        places: anchors of cells
    n        objects of one image
    a        anchors of this head at each cell

Bochkovskiy et al. 2020 (YOLOv4); Wang et al. 2021 (Scaled-YOLOv4) for `activated`;
Zheng et al. 2020 for DIoU and CIoU; yolo_layer.c and box.c of its authors' darknet.
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from detjax import losses
from detjax.models.darknet.cfg import Section
from detjax.models.darknet.truths import Sums, cells, nearest, shape_iou, truths
from detjax.models.darknet.yolo import Yolo, yolo
from detjax.ops import boxes
from detjax.settings import Fraction, NonNegative, Positive
from detjax.types import Array, Objects

BoxLoss = Literal["mse", "iou", "giou", "diou", "ciou"]
# The options that only the later darknet has, and those of them that are not built.
OPTIONS = (
    "scale_x_y",
    "new_coords",
    "iou_loss",
    "iou_thresh",
    "iou_normalizer",
    "obj_normalizer",
    "cls_normalizer",
    "objectness_smooth",
    "label_smooth_eps",
    "max_delta",
)
NOT_BUILT = ("focal_loss", "counters_per_class", "embedding_layer", "map")
# The class probability from which the box of a place can be one of an object, which
# spares it from being background.
SURE = 0.25


@dataclasses.dataclass(frozen=True)
class LaterYolo(Yolo):
    """Settings of a [yolo] section of the later darknet, beside those of `Yolo`.

    scale: of x and y about the middle of their cell, so that its borders are reached.
    activated: the layer before ends in a logistic function, and sides are (2 w)^2
        anchors.
    box_loss: squares, or 1 minus a form of the IoU.
    more: anchors whose shape has a higher IoU with an object learn it too.
    box_weight, objectness_weight: of these losses.
    most: the gradient of the box loss by one number is no larger.
    smooth_objectness: places near an object learn their IoU as objectness.
    smooth_labels: the share of the label that is spread.
    """

    scale: Positive = 1.0
    activated: bool = False
    box_loss: BoxLoss = "mse"
    more: Fraction = 1.0
    box_weight: NonNegative = 0.75
    objectness_weight: NonNegative = 1.0
    most: float = math.inf
    smooth_objectness: bool = False
    smooth_labels: Fraction = 0.0

    def shares(self, box: Array, shape: tuple[int, int], size: tuple[int, int]):
        """Boxes [p 4] cxcywh in shares of the input of `size` (h, w)."""
        cell, anchor = self.places(shape)
        centre = (self._centre(box) + cell) / np.array(shape[::-1], "f")
        side = jnp.square(2 * box[:, 2:]) if self.activated else jnp.exp(box[:, 2:])
        return jnp.concatenate([centre, side * anchor / np.array(size[::-1], "f")], -1)

    def probabilities(self, raw: Array) -> Array:
        return raw if self.activated else jax.nn.sigmoid(raw)

    def losses(self, raw: Array, objects: Objects, size: tuple[int, int]) -> Sums:
        """The losses of one image, an input of `size` (h, w).

        An object is learnt at the cell of its centre, by the anchor of all heads whose
        shape fits it best and by those that overlap it by `more`. Boxes learn all their
        objects, the average over the classes that they learn. Places whose box overlaps
        an object by more than `ignore`, and whose best class is at least a quarter
        sure, are no background.

        Values are those of the losses' names; gradients are darknet's, which pass by
        the logistic function of x and y and the anchors, have twice the IoU's by w and
        h, and half of the distance's with the other sign. With `smooth_objectness` the
        places of objects learn their IoU too, and where that is at most `ignore`,
        background.
        """
        shape = raw.shape[:2]
        box, objectness, classes = self.split(raw)
        truth = truths(objects, size)
        shares = jax.lax.stop_gradient(self.shares(box, shape, size))
        place, hit = self._pairs(truth, shape, size)
        positive = jnp.zeros(len(objectness), bool).at[place].max(hit, mode="drop")
        labels = self._labels(classes, truth.labels, place, hit)
        near = nearest(truth, shares)
        sure = (self.probabilities(classes) > SURE).any(axis=-1)
        spared = sure & (near.overlap > self.ignore)
        if self.smooth_objectness:
            aim = jnp.where(spared, near.overlap, 0.0)
            learnt = spared | ~near.crowded
        else:
            aim = positive.astype(jnp.float32)
            learnt = positive | ~spared & ~near.crowded
        one = self._cross_entropy(objectness, jax.lax.stop_gradient(aim))
        each = self._cross_entropy(classes, labels).sum(axis=-1)
        count = jnp.ones_like(objectness)
        if self.more < 1:
            count = (labels > self.probabilities(classes)).sum(axis=-1)
            count = jnp.maximum(jax.lax.stop_gradient(count), 1)
        apart = self._box_losses(
            box[place], shares[place], truth.boxes, place, shape, size
        )
        apart = apart / count[place]
        return Sums(
            jnp.sum(jnp.where(hit, apart, 0.0)),
            self.objectness_weight * jnp.sum(jnp.where(learnt, one, 0.0)),
            jnp.sum(jnp.where(positive, each, 0.0)),
            jnp.sum(positive),
        )

    def _centre(self, box: Array) -> Array:
        """x and y [... 2] in their cell."""
        return self.scale * self.probabilities(box[..., :2]) - (self.scale - 1) / 2

    def _cross_entropy(self, raw: Array, target: Array) -> Array:
        """Logistic; of probabilities half squares, whose gradient is as simple."""
        if self.activated:
            return 0.5 * jnp.square(raw - target)
        return losses.sigmoid_cross_entropy(raw, target)

    def _pairs(self, truth, shape, size) -> tuple[Array, Array]:
        """The places [n a] of the objects, and which of them learn, [n a]."""
        anchors = np.array(self.anchors, np.float32) / np.array(size[::-1], "f")
        fit = shape_iou(truth.boxes[:, 2:], jnp.asarray(anchors))
        own = np.array(self.mask)
        hit = jnp.argmax(fit, axis=1)[:, None] == own
        if self.more < 1:
            hit |= fit[:, own] > self.more
        row, column = cells(truth.boxes, shape)
        first = (row * shape[1] + column) * len(own)
        return first[:, None] + np.arange(len(own)), hit & truth.valid[:, None]

    def _labels(self, classes: Array, label: Array, place: Array, hit: Array) -> Array:
        """What the classes [p c] learn; of places without an object arbitrary."""
        at = jnp.where(hit, place, len(classes))
        labels = jnp.zeros_like(classes)
        labels = labels.at[at, label[:, None]].set(1.0, mode="drop")
        return labels * (1 - self.smooth_labels) + 0.5 * self.smooth_labels

    def _box_losses(self, box, shares, truth, place, shape, size) -> Array:
        """The losses [n a] of boxes [n a 4] of places, against objects [n 4]."""
        truth = jnp.broadcast_to(truth[:, None], shares.shape)
        if self.box_loss == "mse":
            cell, anchor = (jnp.asarray(x)[place] for x in self.places(shape))
            anchor = anchor / np.array(size[::-1], "f")
            value, step = self._squares(box, truth, cell, anchor, shape)
        else:
            value, step = by_overlap(self.box_loss, shares, truth)
            if not self.activated:
                step = step.at[..., 2:].multiply(jnp.exp(box[..., 2:]))
            step = self.box_weight * step
            step = jnp.where(jnp.isfinite(step), step, 0.0)
            step = jnp.clip(step, -self.most, self.most)
        step = jax.lax.stop_gradient(step)
        moved = (step * (box - jax.lax.stop_gradient(box))).sum(axis=-1)
        return jax.lax.stop_gradient(self.box_weight * value) - moved

    def _squares(self, box, truth, cell, anchor, shape):
        """Half squares [n a], and their steps [n a 4] downhill."""
        grid = np.array(shape[::-1], np.float32)
        times = truth[..., 2:] / anchor
        side = jnp.sqrt(times) / 2 if self.activated else jnp.log(times)
        centre = truth[..., :2] * grid - cell
        apart = jnp.concatenate(
            [centre - self._centre(box), side - box[..., 2:]], axis=-1
        )
        apart = jax.lax.stop_gradient(apart)
        weight = 2 - truth[..., 2:3] * truth[..., 3:]
        value = 0.5 * (weight * jnp.square(apart)).sum(axis=-1)
        return value, self.box_weight * weight * apart


def told(section: Section) -> Yolo:
    """The head of a [yolo] section, of the later darknet's by what it sets."""
    for name in NOT_BUILT:
        if name in section and section.text(name) != "0":
            section.refuse(f"{name}= is not built here")
    head = yolo(section)
    return later(section, head) if any(o in section for o in OPTIONS) else head


def later(section: Section, head: Yolo) -> LaterYolo:
    """`head` with the options of the later darknet that `section` has."""
    if section.number("truth_thresh", 1) < 1:
        section.refuse("truth_thresh= below 1 is not built with iou_loss= and its kin")
    if section.text("iou_thresh_kind", "iou") != "iou":
        section.refuse("iou_thresh_kind= other than iou is not built here")
    kinds = {name: name for name in ("mse", "iou", "giou", "diou", "ciou")}
    return LaterYolo(
        **{field.name: getattr(head, field.name) for field in dataclasses.fields(head)},
        scale=section.number("scale_x_y", 1),
        activated=section.flag("new_coords"),
        box_loss=section.one_of("iou_loss", kinds, "mse"),
        more=section.number("iou_thresh", 1),
        box_weight=section.number("iou_normalizer", 0.75),
        objectness_weight=section.number("obj_normalizer", 1),
        most=section.number("max_delta", math.inf),
        smooth_objectness=section.flag("objectness_smooth"),
        smooth_labels=section.number("label_smooth_eps", 0),
    )


def by_overlap(kind: BoxLoss, box: Array, truth: Array) -> tuple[Array, Array]:
    """1 minus the overlap [...] of boxes [... 4] cxcywh, and steps [... 4] uphill.

    The steps are darknet's, see `LaterYolo.losses`.
    """
    parts = _overlap(box, truth)
    far = (parts.sides <= 0).any(axis=-1)
    iou, distance = parts.iou, parts.distance / parts.diagonal
    gradient = _gradients(box, truth)
    step = gradient.iou
    value = 1 - jnp.where(far, 0.0, iou)
    if kind == "giou":
        step = gradient.filled + jnp.where(far[..., None], 0.0, step)
        union = jnp.where(far, parts.areas, parts.union)
        value = value + 1 - union / parts.cover
    # Not halved, by the sides.
    step = step * jnp.array([1.0, 1.0, 2.0, 2.0])
    if kind in ("diou", "ciou"):
        step = jnp.where(far[..., None], 0.0, step)
        toward = 2 * (truth[..., :2] - box[..., :2]) / parts.diagonal[..., None]
        signs = jnp.array([-1.0, -1.0, 1.0, 1.0])
        wider = (distance / parts.diagonal)[..., None] * gradient.diagonal
        step = step + signs * wider
        step = step.at[..., :2].add(toward)
        value = value + distance
    if kind == "ciou":
        apart = jnp.atan(truth[..., 2] / truth[..., 3])
        apart = apart - jnp.atan(box[..., 2] / box[..., 3])
        shape = 4 / math.pi**2 * jnp.square(apart)
        turn = 8 / math.pi**2 * shape / (1 - iou + shape + 1e-6) * apart
        turns = jnp.stack([turn * box[..., 3], -turn * box[..., 2]], axis=-1)
        step = step.at[..., 2:].add(turns)
        value = value + shape**2 / (1 - jnp.where(far, 0.0, iou) + shape + 1e-6)
    return jnp.where(jnp.isfinite(value), value, 1.0), step


@dataclasses.dataclass(frozen=True)
class _Overlap:
    """Of two boxes [...]; where they are apart, sides are negative."""

    sides: Array  # [... 2]
    areas: Array
    union: Array
    iou: Array
    cover: Array  # area of the smallest box around both
    diagonal: Array  # its diagonal, squared
    distance: Array  # of the centres, squared


def _overlap(box: Array, truth: Array) -> _Overlap:
    a, b = boxes.cxcywh_to_xyxy(box), boxes.cxcywh_to_xyxy(truth)
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    around = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    sides = high - low
    inter = sides.prod(axis=-1)
    areas = box[..., 2] * box[..., 3] + truth[..., 2] * truth[..., 3]
    return _Overlap(
        sides,
        areas,
        areas - inter,
        inter / (areas - inter),
        around.prod(axis=-1),
        jnp.square(around).sum(axis=-1),
        jnp.square(box[..., :2] - truth[..., :2]).sum(axis=-1),
    )


@dataclasses.dataclass(frozen=True)
class _Gradients:
    """By a box [... 4] cxcywh."""

    iou: Array
    filled: Array  # of the union's share of the box around both
    diagonal: Array


def _gradients(box: Array, truth: Array) -> _Gradients:
    def along(number):
        return jax.grad(lambda x: jnp.sum(number(_overlap(x, truth))))(box)

    return _Gradients(
        along(lambda parts: parts.iou),
        along(lambda parts: parts.union / parts.cover),
        along(lambda parts: parts.diagonal),
    )
