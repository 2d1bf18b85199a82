"""Sliding-window detection: a classifier at every place of an image pyramid.

    b, c     images, classes; index c is the background
    s        side of the classifier's input, in pixels
    p        windows of an image, of all levels
    k        windows that are learnt

A window of any size is an `s` x `s` picture at some level of the pyramid. Literally,
each is cut out and classified; as one convolution (Sermanet et al., OverFeat, ICLR
2014, section 3.5) the features of a whole level are computed once, and each window's
are averaged out of them. Without padding in the network both are the same; with it a
window that is cut out has zeros around it, where a level has its neighbours.
"""

import dataclasses
import functools
import math
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import lax

from detjax import losses
from detjax.backbones.pyramid import Backbone, Pyramid, pyramid
from detjax.errors import UserError
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, normalize
from detjax.nn.images import windows as visible
from detjax.nn.start import initialiser
from detjax.ops import boxes, candidates, resize, warp
from detjax.ops.assign import learnable
from detjax.ops.nms import Method, suppressed
from detjax.ops.ranking import top_k
from detjax.settings import Count, Dtype, Fraction, NotEmpty, Positive
from detjax.types import Array, Batch, Detections, Inputs, Model, Objects, Spec


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows that are looked at.

    side: of the classifier's input, in pixels.
    sizes: of the windows, as the square root of their area in pixels of the input.
    ratios: heights by widths; a level of the pyramid is stretched for each.
    mode: "convolution" computes features of whole levels, "crops" those of each window;
        in training too, since padding in the network makes them differ.
    chunk: windows that are cut out at once.
    """

    side: Count = 64
    sizes: Annotated[tuple[Positive, ...], NotEmpty()] = (32.0, 45.0, 64.0, 91.0, 128.0)
    ratios: Annotated[tuple[Positive, ...], NotEmpty()] = (1.0,)
    mode: Literal["convolution", "crops"] = "convolution"
    chunk: Count = 64

    def levels(self, size: tuple[int, int], step: int) -> tuple["Level", ...]:
        """The levels for an input of `size` (h, w) whose features have stride `step`.

        Windows larger than the input are left out; one as large as it stays.
        """
        found = []
        for length in self.sizes:
            for ratio in self.ratios:
                sides = length * math.sqrt(ratio), length / math.sqrt(ratio)
                h, w = (
                    round(n * self.side / s) for n, s in zip(size, sides, strict=True)
                )
                if min(h, w) >= self.side:
                    found.append(Level((h, w), size, self.side, step))
        if not found:
            raise UserError(
                f"every window of model.windows.sizes={self.sizes} is larger than the "
                f"input of {size[0]} x {size[1]} pixels; give smaller ones"
            )
        return tuple(found)

    def crops(self, image: Array, places: Array) -> Array:
        """What windows [n 4] of an image [h w 3] show, [n side side 3]."""
        frames = jnp.broadcast_to(boxes.full_window(image.shape[:2]), places.shape)
        return warp.warp(image, places, frames, self.side)


class Level(NamedTuple):
    """A level of the pyramid: the input resized, and windows on it at every step."""

    shape: tuple[int, int]  # (h, w) of the level
    size: tuple[int, int]  # (h, w) of the input
    side: int
    step: int

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        rows, columns = ((n - self.side) // self.step + 1 for n in self.shape)
        return rows, columns

    def boxes(self) -> np.ndarray:
        """The windows [rows * columns, 4] in pixels of the input, row by row."""
        rows, columns = self.cells
        y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) * self.step
        corners = np.concatenate([x, y, x + self.side, y + self.side], axis=1)
        scale = np.divide(self.size, self.shape)[[1, 0, 1, 0]]
        return (corners * scale).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Which windows are learnt, a random choice anew in each step.

    positives: the most windows of an image that show an object.
    background: the most that show none.
    overlap: the IoU from which a window shows an object; an object that no window
        meets so has the one that overlaps it most.
    """

    positives: Count = 8
    background: Count = 24
    overlap: Fraction = 0.5

    def __call__(
        self, key: Array, objects: Objects, *, places: np.ndarray, num_classes: int
    ) -> tuple[Array, Array, Array]:
        """Numbers [k] of windows of `places` [p 4], their labels, and which are real.

        Those of the background have the label `num_classes`.
        """
        real = learnable(objects)
        iou = jnp.where(real, boxes.iou(places, objects.boxes), -1.0)  # [p n]
        most, owner = iou.max(axis=1), iou.argmax(axis=1)
        best = (iou == iou.max(axis=0)) & (iou > 0) & real
        owner = jnp.where(best.any(axis=1), best.argmax(axis=1), owner)
        shows = (most >= self.overlap) | best.any(axis=1)
        ignored = objects.valid & objects.crowd
        inside = jnp.where(ignored, boxes.iou_crowd(places, objects.boxes), 0.0)
        free = ~shows & (inside.max(axis=1, initial=0.0) < self.overlap)
        chance = jax.random.uniform(key, (len(places),))
        chosen = [
            top_k(jnp.where(some, chance, -1.0), min(count, len(places)))
            for some, count in ((shows, self.positives), (free, self.background))
        ]
        index = jnp.concatenate([place for _, place in chosen])
        valid = jnp.concatenate([rank for rank, _ in chosen]) >= 0
        labels = jnp.where(shows, objects.labels[owner], num_classes)[index]
        return index, labels, valid


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which windows are detections.

    score_threshold: windows of a class that score no more are dropped.
    pre_nms_top_k: the best of each class that take part in suppression.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two windows show one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    pre_nms_top_k: Count = 200
    nms: Method = "greedy"
    nms_threshold: Fraction = 0.3
    nms_sigma: Positive = 0.5
    max_detections: Count = 100

    def __call__(self, logits: Array, window: Array, *, places: Array) -> Detections:
        """Those of one image, of windows `places` [p 4], clipped to `window` [4]."""
        best = candidates.by_class(
            jax.nn.softmax(logits)[:, :-1], self.pre_nms_top_k, self.score_threshold
        )
        found = boxes.clip(places[best.index], window)
        kept = suppressed(self, found, best.scores, best.labels, best.valid)
        return kept.detections


class Net(linen.Module):
    """A classifier of windows: normalised pixels [n h w 3] -> logits [n ... c+1]."""

    num_classes: int
    backbone: Pyramid
    side: int
    step: int

    def setup(self):
        self.cls_score = linen.Dense(self.num_classes + 1)

    def __call__(self, crops, train: bool = False):
        """Logits [n c+1] of crops [n s s 3]."""
        features = self.backbone(crops, train)[-1].astype(jnp.float32)
        return self.cls_score(features.mean(axis=(1, 2)))

    def pyramid(self, images, levels, train: bool = False):
        """Logits [b p c+1] of all windows of images [b h w 3], level by level."""
        found = []
        for level in levels:
            shrink = functools.partial(resize.bilinear, size=level.shape)
            pictures = jax.vmap(shrink)(images)
            features = self.backbone(pictures, train)[-1].astype(jnp.float32)
            cells = self.side // self.step
            # The mean first: it is linear, and the head then reads fewer cells.
            mean = linen.avg_pool(features, (cells, cells))
            rows, columns = level.cells
            logits = self.cls_score(mean[:, :rows, :columns])
            found.append(logits.reshape(len(images), -1, self.num_classes + 1))
        return jnp.concatenate(found, axis=1)


def sliding_window(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(name="resnet18", levels=(4,)),
    windows: Windows = Windows(),
    sample: Sample = Sample(),
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A sliding-window detector; any classifier of the house is its backbone.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    A window has the step of the stride of the one level of `backbone` that is read.
    norm="batch" takes the statistics of windows with mode="crops"; as one convolution
    those of each level in turn, which "group" and "frozen" do without. Raises UserError
    where the stages do not fit each other.
    """
    check(backbone, windows)
    step, kind = 2 ** backbone.levels[0], jnp.dtype(dtype)
    net = Net(num_classes, pyramid(backbone, None, kind), windows.side, step)

    def prepared(images):
        return normalize(images, pixels, kind)

    def init(key, images):
        crops = jnp.zeros((1, windows.side, windows.side, 3), kind)
        return initialiser(net)(key, crops)

    def places_of(images) -> tuple[tuple[Level, ...], np.ndarray]:
        levels = windows.levels(images.shape[1:3], step)
        return levels, np.concatenate([level.boxes() for level in levels])

    def total(params, state, batch: Batch, key):
        images = prepared(batch.inputs.images)
        levels, places = places_of(images)
        keys = jax.random.split(key, len(images))
        draw = functools.partial(sample, places=places, num_classes=num_classes)
        index, labels, valid = each_image(draw)(keys, batch.target)
        if windows.mode == "crops":
            crops = each_image(windows.crops)(images, jnp.asarray(places)[index])
            given: Any = (crops.reshape(-1, *crops.shape[2:]),)
            method: Any = net.__call__
        else:
            given, method = (images, levels), net.pyramid
        logits, updated = net.apply(
            {"params": params, **state},
            *given,
            train=True,
            method=method,
            mutable=[*state],
        )
        if windows.mode != "crops":
            logits = jnp.take_along_axis(logits, index[..., None], axis=1)
        logits = logits.reshape(*index.shape, -1)
        real = valid & batch.inputs.view.valid[:, None]
        each = losses.softmax_cross_entropy(logits, labels)
        mean = losses.masked_mean(each, real)
        positives = jnp.sum(real & (labels < num_classes))
        return mean, (updated, {"class": mean, "positives": positives})

    def predict(params, state, inputs: Inputs) -> Detections:
        images = prepared(inputs.images)
        levels, places = places_of(images)
        variables = {"params": params, **state}
        if windows.mode == "crops":
            logits = of_crops(net, variables, images, places, windows)
        else:
            logits = net.apply(variables, images, levels, method=net.pyramid)
        one = functools.partial(detect, places=jnp.asarray(places))
        return each_image(one)(logits, visible(inputs))

    groups = {"backbone": r"^backbone\.", "class": r"^cls_score\."}
    return Model(
        Spec("detection", num_classes, groups=groups), init, total, predict, net
    )


def of_crops(net: Net, variables: Any, images: Array, places: Array, windows: Windows):
    """Logits [b p c+1] of images [b h w 3]: each window is cut out and classified."""

    def one(image):
        def logits(place):
            return net.apply(variables, windows.crops(image, place[None]))[0]

        return lax.map(logits, jnp.asarray(places), batch_size=windows.chunk)

    return each_image(one)(images)


def check(backbone: Backbone, windows: Windows) -> None:
    """Raises UserError where stages do not fit each other."""
    if len(backbone.levels) != 1:
        raise UserError(
            f"model.backbone.levels={backbone.levels} must be one level, whose stride "
            "is the step of the windows"
        )
    step = 2 ** backbone.levels[0]
    if windows.side % step:
        raise UserError(
            f"model.windows.side={windows.side} is no multiple of {step}, the stride "
            f"of model.backbone.levels={backbone.levels}"
        )
