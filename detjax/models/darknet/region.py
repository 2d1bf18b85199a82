"""The head of YOLOv2 and YOLO9000: [region] sections.

    h, w     cells of a map; p = h * w * a places, a anchors at each cell
    c        classes, or nodes of a tree
    raw      [h w a*(5+c)]: of each anchor x, y, w, h, objectness and classes

Redmon and Farhadi 2017 (YOLO9000). Where paper and code differ the code counts, see
`Region.losses`; darknet's src/region_layer.c.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from detjax import losses
from detjax.models.darknet.cfg import Section
from detjax.models.darknet.tree import Tree
from detjax.models.darknet.truths import (
    Found,
    Sums,
    cells,
    nearest,
    places,
    shape_iou,
    split,
    truths,
)
from detjax.ops import boxes
from detjax.settings import Count, Fraction, NonNegative, Positive
from detjax.types import Array, Objects

# Images for which boxes that have no object learn their anchor, and how much.
EARLY, EARLY_SCALE = 12_800, 0.01


@dataclasses.dataclass(frozen=True)
class Region:
    """Settings of a [region] section.

    anchors: (w, h) in cells.
    softmax: classes exclude each other.
    tree: of the classes, of which those of one parent exclude each other.
    tree_threshold: how probable a node has to be for an answer below the one above it.
    bias_match: objects are given to anchors by the anchors' shapes, and not by those of
        the boxes that are predicted.
    rescore: objectness learns the IoU of the box, and not 1.
    ignore: places whose box overlaps an object by more are no background.
    coordinates, objects, background, classes_scale: weights of the parts.
    """

    classes: Count
    anchors: tuple[tuple[Positive, Positive], ...]
    softmax: bool = False
    tree: Tree | None = None
    tree_threshold: Fraction = 0.5
    bias_match: bool = False
    rescore: bool = False
    ignore: float = 0.5
    coordinates: NonNegative = 1.0
    objects: NonNegative = 1.0
    background: NonNegative = 1.0
    classes_scale: NonNegative = 1.0

    def places(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The cells [p 2] x, y and the anchors [p 2] w, h of a map (h, w)."""
        return places(shape, self.anchors)

    def split(self, raw: Array) -> tuple[Array, Array, Array]:
        """Box [p 4], objectness [p] and classes [p c] of `raw`, float32."""
        return split(raw, self.classes)

    def shares(self, box: Array, shape: tuple[int, int]) -> Array:
        """Boxes [p 4] cxcywh in shares of the input."""
        cell, anchor = self.places(shape)
        centre = jax.nn.sigmoid(box[:, :2]) + cell
        sides = jnp.exp(box[:, 2:]) * anchor
        grid = np.array(shape[::-1] * 2, np.float32)
        return jnp.concatenate([centre, sides], axis=-1) / grid

    def found(self, raw: Array, size: tuple[int, int]) -> Found:
        """What is found in one image, an input of `size` (h, w).

        Of a tree's classes each place has one, see `Tree.top`, with all of its
        objectness.
        """
        box, objectness, classes = self.split(raw)
        h, w = size
        sides = jnp.array([w, h, w, h], jnp.float32)
        pixels = boxes.cxcywh_to_xyxy(self.shares(box, raw.shape[:2])) * sides
        if self.tree is not None:
            top = self.tree.top(classes, self.tree_threshold)
            each = jax.nn.one_hot(top, self.classes)
        elif self.softmax:
            each = jax.nn.softmax(classes)
        else:
            each = jax.nn.sigmoid(classes)
        return Found(pixels, jax.nn.sigmoid(objectness), each)

    def losses(
        self,
        raw: Array,
        objects: Objects,
        size: tuple[int, int],
        seen: Array,
        unplaced: Array | None = None,
    ) -> Sums:
        """The losses of one image, an input of `size` (h, w), after `seen` images.

        Of an image with an object [n] that is `unplaced`, in the sense of
        `truths.unplaced`, only that class is learnt, by a head whose classes are a
        tree's: where it is most probable. All other places learn that they are
        background.

        An object is learnt at the cell of its centre, by the anchor whose shape fits it
        best. x, y and objectness are logistic, whose cross entropy has darknet's
        gradient; w and h are squares of logarithms. Boxes weigh 2 - w h (in shares of
        the input). In the first `EARLY` images all other boxes learn their anchor, in
        the middle of their cell. Of several objects at one place the last has the box,
        and with a softmax the class; without, all have their classes. Of a tree the
        last has the groups that it passes.
        """
        shape = raw.shape[:2]
        box, objectness, classes = self.split(raw)
        cell, anchor = self.places(shape)
        truth = truths(objects, size)
        shares = jax.lax.stop_gradient(self.shares(box, shape))
        place = self._own_places(truth, shares, shape)
        order = jnp.arange(len(place), dtype=jnp.int32)
        nobody = jnp.full((len(objectness),), -1, jnp.int32)
        owner = nobody.at[place].max(order, mode="drop")
        positive, of = owner >= 0, jnp.maximum(owner, 0)
        near = nearest(truth, shares)
        aim = 1.0
        if self.rescore:
            own = boxes.cxcywh_to_xyxy(truth.boxes[of])
            aim = boxes.paired_iou(boxes.cxcywh_to_xyxy(shares), own)
        background = ~positive & ~(near.overlap > self.ignore) & ~near.crowded
        one = losses.sigmoid_cross_entropy(
            objectness, jnp.where(positive, aim, jnp.zeros_like(objectness))
        )
        weight = jnp.where(positive, self.objects, background * self.background)
        middle = jnp.concatenate([cell + 0.5, anchor], axis=-1)
        middle = middle / np.array(shape[::-1] * 2, np.float32)
        target = jnp.where(positive[:, None], truth.boxes[of], middle)
        scale = self.coordinates * (2 - target[:, 2] * target[:, 3])
        early = jnp.where(seen < EARLY, EARLY_SCALE, 0.0)
        scale = jnp.where(positive, scale, early)
        placed = Sums(
            jnp.sum(scale * self._box_loss(box, target, shape)),
            jnp.sum(weight * one),
            self.classes_scale * self._class_loss(classes, truth, place, owner),
            jnp.sum(positive),
        )
        if self.tree is None or unplaced is None:
            return placed
        alone = self._label_losses(
            objectness, classes, objects.labels[jnp.argmax(unplaced)]
        )
        return jax.tree.map(lambda a, b: jnp.where(unplaced.any(), a, b), alone, placed)

    def _label_losses(self, objectness: Array, classes: Array, label: Array) -> Sums:
        """The losses of an image of which one label is known, section 4 (joint)."""
        logs = jnp.pad(self.tree.log_softmax(classes), ((0, 0), (0, 1)))
        way = logs[:, jnp.asarray(self.tree.ways)[label]].sum(axis=-1)
        likely = jax.lax.stop_gradient(jax.nn.log_sigmoid(objectness) + way)
        best = jnp.argmax(likely)
        one = losses.sigmoid_cross_entropy(objectness, jnp.zeros_like(objectness))
        others = jnp.arange(len(objectness)) != best
        return Sums(
            jnp.float32(0),
            self.background * jnp.sum(jnp.where(others, one, 0.0)),
            -self.classes_scale * way[best],
            jnp.sum(~others),
        )

    def _own_places(self, truth, shares: Array, shape: tuple[int, int]) -> Array:
        """The place [n] of each object; p where it has none."""
        count = len(self.anchors)
        row, column = cells(truth.boxes, shape)
        first = (row * shape[1] + column) * count
        if self.bias_match:
            sides = jnp.asarray(self.anchors) / np.array(shape[::-1], np.float32)
            fit = shape_iou(truth.boxes[:, 2:], sides)
        else:
            sides = shares[first[:, None] + np.arange(count), 2:]
            fit = jax.vmap(lambda a, b: shape_iou(a[None], b)[0])(
                truth.boxes[:, 2:], sides
            )
        place = first + jnp.argmax(fit, axis=1)
        return jnp.where(truth.valid, place, shape[0] * shape[1] * count)

    def _box_loss(self, box: Array, truth: Array, shape: tuple[int, int]) -> Array:
        """The loss [p] of boxes [p 4] against their truths [p 4], in shares."""
        cell, anchor = self.places(shape)
        grid = np.array(shape[::-1], np.float32)
        across = losses.sigmoid_cross_entropy(box[:, :2], truth[:, :2] * grid - cell)
        sides = jnp.log(truth[:, 2:] * grid / anchor)
        return (across + 0.5 * jnp.square(box[:, 2:] - sides)).sum(axis=-1)

    def _class_loss(self, classes: Array, truth, place: Array, owner: Array) -> Array:
        """The sum of the class losses of places that have an object."""
        if self.tree is not None:
            rows = classes[jnp.minimum(place, len(classes) - 1)]
            return self.tree.loss(rows, truth.labels, place, truth.valid).sum()
        positive, of = owner >= 0, jnp.maximum(owner, 0)
        if self.softmax:
            each = losses.softmax_cross_entropy(classes, truth.labels[of])
        else:
            labels = jnp.zeros_like(classes)
            labels = labels.at[place, truth.labels].set(1.0, mode="drop")
            each = losses.sigmoid_cross_entropy(classes, labels).sum(axis=-1)
        return jnp.sum(jnp.where(positive, each, 0.0))


def region(
    section: Section, tree: Tree | None = None, tree_threshold: float = 0.5
) -> Region:
    """The head of a [region] section, whose classes may be a tree's."""
    count = section.whole("num", 1)
    numbers = section.numbers("anchors") or (0.5,) * (2 * count)
    if len(numbers) < 2 * count:
        section.refuse(f"num={count} wants {2 * count} numbers in anchors=")
    if section.whole("coords", 4) != 4:
        section.refuse("coords= other than 4 is not built here")
    if section.flag("background"):
        section.refuse("background=1 is not built here")
    return Region(
        classes=section.whole("classes", 20),
        anchors=tuple(zip(numbers[::2], numbers[1::2], strict=False))[:count],
        softmax=section.flag("softmax"),
        tree=tree,
        tree_threshold=tree_threshold,
        bias_match=section.flag("bias_match"),
        rescore=section.flag("rescore"),
        ignore=section.number("thresh", 0.5),
        coordinates=section.number("coord_scale", 1),
        objects=section.number("object_scale", 1),
        background=section.number("noobject_scale", 1),
        classes_scale=section.number("class_scale", 1),
    )
