"""The network of a two-stage detector: levels, proposals, regions, heads.

    b images, p priors over all levels, c classes
    k        regions (RoIs) of one image
    s        bins along a region's side

Names of parameters are torchvision's.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax.nn import rpn
from detjax.nn.fpn import FPN
from detjax.nn.images import normalize
from detjax.ops import anchors, roi
from detjax.types import Array, Proposals


class Pyramid(linen.Module):
    """Normalised images -> levels, finest first; one level where there is no `fpn`."""

    body: linen.Module
    levels: tuple[int, ...]
    fpn: FPN | None

    def __call__(self, x, train: bool = False):
        found = self.body(x, train)
        found = [found[i - 2] for i in self.levels]
        return tuple(found) if self.fpn is None else self.fpn(found, train)


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
            pooled = [every_second(levels[-1])] if self.backbone.fpn is not None else []
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


def every_second(x: Array) -> Array:
    """Every second cell of [b h w c], the first included.

    By halves and not by strides: XLA cannot split the gradient of a strided slice
    among devices where rows are few.
    """
    b, h, w, c = x.shape
    x = jnp.pad(x, [(0, 0), (0, h % 2), (0, w % 2), (0, 0)])
    return x.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c)[:, :, 0, :, 0]


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
