"""Regions of interest: sampling, and pooling from the pyramid levels.

    p        proposals of one image
    k        regions of one image, the positives first where they are sampled
    c        classes; index c is the background
    s        bins along a region's side

Girshick 2015 (Fast R-CNN), section 2.3; He et al. 2017 (Mask R-CNN), section 3.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import lax

from detjax.ops import assign, boxes, roi, roi_pool
from detjax.ops.matching import match
from detjax.settings import Count, Fraction, Positive, Whole
from detjax.types import Array, Objects, Proposals

WEIGHTS = (10, 10, 5, 5)  # of the deltas (dx, dy, dw, dh)


class Regions(NamedTuple):
    """The sampled regions of one image, with what is to be learnt of each."""

    boxes: Array  # [k 4]
    chosen: Array  # [k] bool: not padding
    positive: Array  # [k] bool
    object: Array  # [k] int32: of the positives
    labels: Array  # [k] int32: c where not positive
    deltas: Array  # [k 4]: to the object, of the positives

    def first(self, count: int) -> "Regions":
        return Regions(*(x[:count] for x in self))


@dataclasses.dataclass(frozen=True)
class RoI:
    """Settings of the regions.

    pooling: "align" (RoIAlign), or the older "max" (RoIPool) of one level.
    sampling: samples of RoIAlign along each side of a bin.
    aligned: regions and masks are read and drawn at their exact place, and not half a
        pixel off as the originals' are; small objects need that.
    canonical_size, canonical_level: a region of that side in pixels is read from that
        level, one of half the side from the level below.
    positive, negative, background: a region is positive from an IoU of `positive` up,
        negative from `background` up and below `negative`; others are not learnt.
    crowd_threshold: regions and priors of which a crowd covers more are not learnt.
    samples, fraction: regions drawn of each image, and at most that part positive.
    """

    pooling: Literal["align", "max"] = "align"
    sampling: Count = 2
    aligned: bool = False
    canonical_size: Positive = 224
    canonical_level: Whole = 4
    positive: Fraction = 0.5
    negative: Fraction = 0.5
    background: Fraction = 0.0
    crowd_threshold: Fraction = 0.7
    samples: Count = 512
    fraction: Fraction = 0.25

    @property
    def positives(self) -> int:
        """The most positives that are sampled of an image."""
        return int(self.samples * self.fraction)

    def read(
        self, levels: tuple[Array, ...], rois: Array, *, finest: int, bins: int
    ) -> Array:
        """Levels [h w .] of one image and boxes [k 4] -> regions [k s s .].

        The first level has stride 2^finest.
        """
        scales = [2.0 ** -(finest + i) for i in range(len(levels))]
        if self.pooling == "max":
            return roi_pool.pool(levels[0], rois, bins=bins, scale=scales[0])
        kind: dict[str, Any] = {
            "bins": bins,
            "sampling": self.sampling,
            "aligned": self.aligned,
        }
        if len(levels) == 1:
            return roi.align(levels[0], rois, scale=scales[0], **kind)
        level = roi.levels(
            rois, len(levels), finest, self.canonical_size, self.canonical_level
        )
        return roi.multilevel(levels, rois, level, scales=scales, **kind)

    def sample(
        self, proposals: Proposals, objects: Objects, key: Array, *, num_classes: int
    ) -> Regions:
        """Regions drawn from the proposals and the objects' own boxes, of one image."""
        real = assign.learnable(objects)
        truth = jnp.where(real[:, None], objects.boxes, 0.0)
        everything = lax.stop_gradient(jnp.concatenate([proposals.boxes, truth]))
        valid = jnp.concatenate([proposals.valid, real])
        matched = match(
            objects,
            real,
            everything,
            positive=self.positive,
            negative=self.negative,
            crowd_threshold=self.crowd_threshold,
            low_quality=False,
            background=self.background,
        )
        drawn = assign.sample(
            matched.positive & valid,
            matched.negative & valid,
            self.samples,
            self.fraction,
            key,
        )
        rois, index = everything[drawn.index], matched.index[drawn.index]
        labels = jnp.where(drawn.positive, objects.labels[index], num_classes)
        aim = jnp.where(drawn.positive[:, None], truth[index], rois)
        deltas = boxes.encode_rcnn(aim, rois, WEIGHTS)
        return Regions(rois, drawn.chosen, drawn.positive, index, labels, deltas)
