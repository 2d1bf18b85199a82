"""The head of YOLOv3: [yolo] sections.

    h, w     cells of a map; p = h * w * a places, a anchors at each cell
    c        classes
    raw      [h w a*(5+c)]: of each anchor x, y, w, h, objectness and classes

Redmon and Farhadi 2018 (YOLOv3). Where paper and code differ the code counts, see
`Yolo.losses`; darknet's src/yolo_layer.c.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from detjax import losses
from detjax.models.darknet.cfg import Section
from detjax.models.darknet.truths import (
    Found,
    Sums,
    Truths,
    cells,
    nearest,
    places,
    shape_iou,
    split,
    truths,
)
from detjax.ops import boxes
from detjax.settings import Count, Positive
from detjax.types import Array, Objects


@dataclasses.dataclass(frozen=True)
class Yolo:
    """Settings of a [yolo] section.

    anchors: all of the network, (w, h) pixels of the input.
    mask: which of them this head has.
    ignore: places whose box overlaps an object by more are no background.
    truth: places whose box overlaps an object by more learn it, beside the object's
        own place; 1 is none.
    """

    classes: Count
    anchors: tuple[tuple[Positive, Positive], ...]
    mask: tuple[int, ...]
    ignore: float = 0.5
    truth: float = 1.0

    def places(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The cells [p 2] x, y and the anchors [p 2] w, h of a map (h, w)."""
        return places(shape, [self.anchors[i] for i in self.mask])

    def split(self, raw: Array) -> tuple[Array, Array, Array]:
        """Box [p 4], objectness [p] and classes [p c] of `raw`, float32."""
        return split(raw, self.classes)

    def shares(self, box: Array, shape: tuple[int, int], size: tuple[int, int]):
        """Boxes [p 4] cxcywh in shares of the input of `size` (h, w)."""
        cell, anchor = self.places(shape)
        centre = (jax.nn.sigmoid(box[:, :2]) + cell) / np.array(shape[::-1], "f")
        sides = jnp.exp(box[:, 2:]) * anchor / np.array(size[::-1], "f")
        return jnp.concatenate([centre, sides], axis=-1)

    def found(self, raw: Array, size: tuple[int, int]) -> Found:
        """What is found in one image, an input of `size` (h, w)."""
        box, objectness, classes = self.split(raw)
        shares = self.shares(box, raw.shape[:2], size)
        h, w = size
        pixels = boxes.cxcywh_to_xyxy(shares) * jnp.array([w, h, w, h], jnp.float32)
        return Found(
            pixels, self.probabilities(objectness), self.probabilities(classes)
        )

    def probabilities(self, raw: Array) -> Array:
        """Of objectness and classes."""
        return jax.nn.sigmoid(raw)

    def losses(self, raw: Array, objects: Objects, size: tuple[int, int]) -> Sums:
        """The losses of one image, an input of `size` (h, w).

        An object is learnt at the cell of its centre, by the anchor of all heads whose
        shape fits it best. Objectness and classes are logistic; x and y too, whatever
        the paper says of squares: their logistic cross entropy has darknet's gradient.
        w and h are squares of logarithms. Boxes weigh 2 - w h (in shares of the input),
        so that small ones count more. Of several objects at one place the last has the
        box, and all have their classes.
        """
        shape = raw.shape[:2]
        box, objectness, classes = self.split(raw)
        truth = truths(objects, size)
        place = self._own_places(truth, shape, size)
        p = len(objectness)
        order = jnp.arange(len(place), dtype=jnp.int32)
        owner = jnp.full((p,), -1, jnp.int32).at[place].max(order, mode="drop")
        labels = jnp.zeros_like(classes)
        labels = labels.at[place, truth.labels].set(1.0, mode="drop")
        # By what is predicted now.
        shares = jax.lax.stop_gradient(self.shares(box, shape, size))
        near = nearest(truth, shares)
        positive = owner >= 0
        if self.truth < 1:
            more = (near.overlap > self.truth) & (near.overlap > 0)
            hit = jax.nn.one_hot(truth.labels[near.index], self.classes)
            labels = jnp.where(more[:, None], jnp.maximum(labels, hit), labels)
            owner = jnp.where(positive, owner, jnp.where(more, near.index, -1))
            positive |= more
        learnt = positive | ~(near.overlap > self.ignore) & ~near.crowded
        one = losses.sigmoid_cross_entropy(objectness, positive.astype(jnp.float32))
        each = losses.sigmoid_cross_entropy(classes, labels).sum(axis=-1)
        apart = self._box_loss(box, truth.boxes[jnp.maximum(owner, 0)], shape, size)
        return Sums(
            jnp.sum(jnp.where(positive, apart, 0.0)),
            jnp.sum(jnp.where(learnt, one, 0.0)),
            jnp.sum(jnp.where(positive, each, 0.0)),
            jnp.sum(positive),
        )

    def _own_places(
        self, truth: Truths, shape: tuple[int, int], size: tuple[int, int]
    ) -> Array:
        """The place [n] of each object; p where another head, or none, has it."""
        anchors = np.array(self.anchors, np.float32) / np.array(size[::-1], "f")
        fit = shape_iou(truth.boxes[:, 2:], jnp.asarray(anchors))
        best = jnp.argmax(fit, axis=1)
        own = np.full(len(self.anchors), -1)
        own[list(self.mask)] = np.arange(len(self.mask))
        anchor = jnp.asarray(own)[best]
        row, column = cells(truth.boxes, shape)
        place = (row * shape[1] + column) * len(self.mask) + anchor
        learnt = truth.valid & (anchor >= 0) & (fit.max(axis=1) > 0)
        return jnp.where(learnt, place, shape[0] * shape[1] * len(self.mask))

    def _box_loss(
        self, box: Array, truth: Array, shape: tuple[int, int], size: tuple[int, int]
    ) -> Array:
        """The loss [p] of boxes [p 4] against their truths [p 4], in shares."""
        cell, anchor = self.places(shape)
        centre = truth[:, :2] * np.array(shape[::-1], "f") - cell
        sides = jnp.log(truth[:, 2:] * np.array(size[::-1], "f") / anchor)
        across = losses.sigmoid_cross_entropy(box[:, :2], centre)
        apart = 0.5 * jnp.square(box[:, 2:] - sides)
        weight = 2 - truth[:, 2] * truth[:, 3]
        return weight * (across + apart).sum(axis=-1)


def yolo(section: Section) -> Yolo:
    """The head of a [yolo] section."""
    numbers = section.numbers("anchors")
    count = section.whole("num", 1)
    if len(numbers) < 2 * count:
        section.refuse(f"num={count} wants {2 * count} numbers in anchors=")
    anchors = tuple(zip(numbers[::2], numbers[1::2], strict=False))[:count]
    mask = section.wholes("mask") or tuple(range(count))
    if not all(0 <= i < count for i in mask):
        section.refuse(f"mask={section.text('mask')} names anchors that are not there")
    return Yolo(
        section.whole("classes", 20),
        anchors,
        mask,
        section.number("ignore_thresh", 0.5),
        section.number("truth_thresh", 1),
    )
