"""The head of YOLOv1: [detection] sections.

    s        cells along each side of the grid
    a        boxes of a cell, c classes
    raw      [s*s*(c + a + 4 a)]: classes of all cells, confidences, boxes

Redmon et al. 2016 (You Only Look Once), equation 3. Where paper and code differ the
code counts, see `Detection.losses`; darknet's src/detection_layer.c.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from detjax.models.darknet.cfg import Section
from detjax.models.darknet.truths import Found, Sums, cells, nearest, truths
from detjax.ops import boxes
from detjax.settings import Count, NonNegative
from detjax.types import Array, Objects


@dataclasses.dataclass(frozen=True)
class Detection:
    """Settings of a [detection] section.

    side: cells along each side.
    boxes: of a cell.
    root: w and h are learnt as their roots.
    softmax: of the classes of a cell.
    rescore: confidences learn the IoU of the box, and not 1.
    coordinates, objects, background, classes_scale: weights of the parts.
    """

    classes: Count
    side: Count = 7
    count: Count = 1
    root: bool = False
    softmax: bool = False
    rescore: bool = False
    coordinates: NonNegative = 1.0
    objects: NonNegative = 1.0
    background: NonNegative = 1.0
    classes_scale: NonNegative = 1.0

    def split(self, raw: Array) -> tuple[Array, Array, Array]:
        """Classes [s*s c], confidences [s*s a] and boxes [s*s a 4], float32."""
        cells_, a = self.side**2, self.count
        raw = raw.astype(jnp.float32)
        first, second = cells_ * self.classes, cells_ * (self.classes + a)
        classes = self.logits(raw)
        if self.softmax:
            classes = jax.nn.softmax(classes)
        confidence = raw[first:second].reshape(cells_, a)
        return classes, confidence, raw[second:].reshape(cells_, a, 4)

    def logits(self, raw: Array) -> Array:
        """What the classes [s*s c] are before a softmax."""
        cells_ = self.side**2
        flat = raw.astype(jnp.float32)[: cells_ * self.classes]
        return flat.reshape(cells_, self.classes)

    def shares(self, box: Array) -> Array:
        """Boxes [s*s a 4] cxcywh in shares of the input, without their cell's place."""
        sides = jnp.square(box[..., 2:]) if self.root else box[..., 2:]
        return jnp.concatenate([box[..., :2] / self.side, sides], axis=-1)

    def found(self, raw: Array, size: tuple[int, int]) -> Found:
        """What is found in one image, an input of `size` (h, w)."""
        classes, confidence, box = self.split(raw)
        y, x = np.indices((self.side, self.side)).reshape(2, -1)
        corner = np.stack([x, y, 0 * x, 0 * y], axis=-1)[:, None] / self.side
        h, w = size
        sides = jnp.array([w, h, w, h], jnp.float32)
        pixels = boxes.cxcywh_to_xyxy(self.shares(box) + corner) * sides
        return Found(
            pixels.reshape(-1, 4),
            confidence.ravel(),
            jnp.repeat(classes, self.count, axis=0),
        )

    def losses(self, raw: Array, objects: Objects, size: tuple[int, int]) -> Sums:
        """The losses of one image, an input of `size` (h, w): half squares.

        A cell learns one object, the first whose centre lies in it. Of its boxes the
        one that overlaps the object most is responsible, or where none overlaps it the
        nearest by the root mean square of x, y, w and h. Confidences of all others
        learn 0; with `rescore` the responsible one learns its IoU.
        """
        classes, confidence, box = self.split(raw)
        if self.softmax:
            # Darknet hands the difference of the probabilities on as the gradient.
            logits = self.logits(raw)
            classes = logits + jax.lax.stop_gradient(classes - logits)
        truth = truths(objects, size)
        row, column = cells(truth.boxes, (self.side, self.side))
        grid = self.side**2
        place = jnp.where(truth.valid, row * self.side + column, grid)
        last = len(place)
        order = jnp.arange(last, dtype=jnp.int32)
        owner = jnp.full((grid,), last, jnp.int32).at[place].min(order, mode="drop")
        positive, of = owner < last, jnp.minimum(owner, last - 1)
        own = truth.boxes[of]
        y, x = np.indices((self.side, self.side)).reshape(2, -1)
        centre = own[:, :2] * self.side - np.stack([x, y], axis=-1)
        aim = jnp.concatenate([centre / self.side, own[:, 2:]], axis=-1)
        shares = jax.lax.stop_gradient(self.shares(box))
        iou = boxes.paired_iou(
            boxes.cxcywh_to_xyxy(shares), boxes.cxcywh_to_xyxy(aim[:, None])
        )
        apart = jnp.sqrt(jnp.square(shares - aim[:, None]).sum(axis=-1))
        near = jnp.where(iou.max(axis=1) > 0, iou.argmax(axis=1), apart.argmin(axis=1))
        chosen = (jnp.arange(self.count) == near[:, None]) & positive[:, None]
        wanted = jnp.where(chosen, iou if self.rescore else 1.0, 0.0)
        corner = np.stack([x, y, 0 * x, 0 * y], axis=-1)[:, None] / self.side
        crowded = nearest(truth, (shares + corner).reshape(-1, 4)).crowded
        background = jnp.where(crowded.reshape(grid, -1), 0.0, self.background)
        weight = jnp.where(chosen, self.objects, background)
        sides = jnp.sqrt(own[:, 2:]) if self.root else own[:, 2:]
        target = jnp.concatenate([centre, sides], axis=-1)[:, None]
        labels = jax.nn.one_hot(truth.labels[of], self.classes)
        of_class = jnp.square(classes - labels).sum(axis=-1)
        of_box = jnp.square(box - target).sum(axis=-1)
        return Sums(
            0.5 * self.coordinates * jnp.sum(jnp.where(chosen, of_box, 0.0)),
            0.5 * jnp.sum(weight * jnp.square(confidence - wanted)),
            0.5 * self.classes_scale * jnp.sum(jnp.where(positive, of_class, 0.0)),
            jnp.sum(positive),
        )


def detection(section: Section) -> Detection:
    """The head of a [detection] section."""
    for name in ("forced", "random"):
        if section.flag(name):
            section.refuse(f"{name}=1 is not built here")
    return Detection(
        section.whole("classes", 1),
        section.whole("side", 7),
        section.whole("num", 1),
        section.flag("sqrt"),
        section.flag("softmax"),
        section.flag("rescore"),
        section.number("coord_scale", 1),
        section.number("object_scale", 1),
        section.number("noobject_scale", 1),
        section.number("class_scale", 1),
    )
