"""Region proposals: the network, its priors, its losses, and what it proposes.

    p        priors of one image over all levels, level by level
    counts   how many of them each level has

Ren et al. 2015 (Faster R-CNN), section 3.1; Lin et al. 2017 (FPN), section 4.1.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import lax

from detjax import losses
from detjax.ops import anchors, assign, boxes, fitting, nms
from detjax.ops.matching import match
from detjax.ops.ranking import top_k
from detjax.settings import Count, Fraction, NonNegative, Positive
from detjax.types import Array, Objects, PriorLevel, Proposals

small = jax.nn.initializers.normal(0.01)


class Priors(NamedTuple):
    """The priors of an input's shape: constants."""

    boxes: np.ndarray  # [p 4]
    counts: tuple[int, ...]


class Sums(NamedTuple):
    """Losses of one image, summed, and the number of samples behind them.

    The sums of all images of a batch are divided by the batch's count.
    """

    objectness: Array
    box: Array
    count: Array


@dataclasses.dataclass(frozen=True)
class RPN:
    """Settings of the first stage.

    sizes: the priors' sides in pixels, a tuple of equal length for each level.
    ratios: their heights over their widths.
    features, depth: channels and number of the 3x3 convolutions that all levels share;
        without `features` as many channels as the levels have.
    positive, negative: a prior is positive from that IoU up, negative below; those
        between are not learnt. The best prior of each object is positive in any case.
    inside: learn only priors that lie wholly within the picture.
    samples, fraction: priors drawn of each image, and at most that part positive.
    pre_nms, post_nms: proposals of each level before suppression, and of the image
        after it; pairs for training and for prediction.
    nms_threshold, min_size: the IoU of suppression, and the least side in pixels.
    """

    sizes: tuple[tuple[Positive, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    ratios: tuple[Positive, ...] = (0.5, 1, 2)
    features: Count | None = None
    depth: Count = 1
    positive: Fraction = 0.7
    negative: Fraction = 0.3
    inside: bool = False
    samples: Count = 256
    fraction: Fraction = 0.5
    pre_nms: tuple[Count, Count] = (2000, 1000)
    post_nms: tuple[Count, Count] = (2000, 1000)
    nms_threshold: Fraction = 0.7
    min_size: NonNegative = 1e-3

    @property
    def per_location(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)

    def module(self, dtype: Any) -> "Network":
        return Network(self.features, self.per_location, self.depth, dtype)

    def priors(
        self, shapes: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> Priors:
        """Those of levels of `shapes` (h, w) on an input of `size` (h, w) pixels."""
        return Priors(
            anchors.placed(self.levels(shapes, size)),
            tuple(h * w * self.per_location for h, w in shapes),
        )

    def levels(
        self, shapes: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> list[PriorLevel]:
        """The levels that these are placed on."""
        steps = anchors.strides(shapes, size)
        return anchors.rcnn_levels(shapes, steps, self.sizes, self.ratios)

    def fitted(self, levels: Sequence[PriorLevel], boxes: np.ndarray) -> dict[str, Any]:
        """Settings of as many priors on `levels` that fit objects' boxes [n 4]."""
        wide = [1 / ratio for ratio in self.ratios]
        sizes, ratios = fitting.sizes_and_ratios(
            boxes, levels, self.sizes, wide, self.positive
        )
        tall = sorted(round(1 / ratio, 2) for ratio in ratios)
        return {"sizes": tuple(map(tuple, sizes)), "ratios": tuple(tall)}

    def propose(
        self, logits: Array, deltas: Array, priors: Priors, window: Array, train: bool
    ) -> Proposals:
        """The best boxes of one image, by falling objectness, without gradient.

        Of each level the `pre_nms` best are decoded, clipped to `window` [4] and
        suppressed by others of their level; `post_nms` of what is left are proposed.
        """
        logits, deltas = lax.stop_gradient((logits, deltas))
        pre_nms, post_nms = self.pre_nms[not train], self.post_nms[not train]
        best, real = _best(logits, priors.counts, pre_nms)
        # Ranked by probability and not by logit: where that saturates, ties are ties.
        scores = jax.nn.sigmoid(logits[best])
        places = best.ravel()
        decoded = boxes.decode_rcnn(deltas[places], jnp.asarray(priors.boxes)[places])
        decoded = boxes.clip(decoded, window)
        sides = decoded[:, 2:] - decoded[:, :2]
        some = real & (sides >= self.min_size).all(axis=-1).reshape(real.shape)
        # Of a level no more than these can be among the best of all levels.
        level = functools.partial(
            nms.greedy, threshold=self.nms_threshold, most=post_nms
        )
        keep = jax.vmap(level)(decoded.reshape(*best.shape, 4), scores, valid=some)
        ranking = jnp.where(keep, scores, -1.0).ravel()
        missing = max(post_nms - ranking.size, 0)
        ranking = jnp.pad(ranking, (0, missing), constant_values=-1.0)
        score, index = top_k(ranking, post_nms)
        valid = score >= 0
        found = decoded[jnp.where(valid, index, 0)]
        return Proposals(jnp.where(valid[:, None], found, 0.0), valid)

    def match(
        self, objects: Objects, priors: Array, window: Array, crowd_threshold: float
    ) -> assign.Match:
        """Which priors [p 4] of one image are objects, and which are background."""
        return match(
            objects,
            assign.learnable(objects),
            priors,
            positive=self.positive,
            negative=self.negative,
            crowd_threshold=crowd_threshold,
            low_quality=True,
            usable=boxes.inside(priors, window) if self.inside else None,
        )

    def loss(
        self,
        logits: Array,
        deltas: Array,
        objects: Objects,
        window: Array,
        key: Array,
        *,
        priors: Array,
        crowd_threshold: float,
    ) -> Sums:
        """Cross entropy of sampled priors, smooth L1 of the positive among them.

        Of one image. Ren et al. 2015, equation 1, with both terms over the number of
        samples.
        """
        matched = self.match(objects, priors, window, crowd_threshold)
        drawn = assign.sample(
            matched.positive, matched.negative, self.samples, self.fraction, key
        )
        at, prior = drawn.index, jnp.asarray(priors)[drawn.index]
        entropy = losses.sigmoid_cross_entropy(
            logits[at], drawn.positive.astype(jnp.float32)
        )
        truth = objects.boxes[matched.index[at]]
        aim = jnp.where(drawn.positive[:, None], truth, prior)
        distance = losses.smooth_l1(deltas[at], boxes.encode_rcnn(aim, prior), 1 / 9)
        return Sums(
            jnp.sum(jnp.where(drawn.chosen, entropy, 0.0)),
            jnp.sum(jnp.where(drawn.positive, distance.sum(axis=-1), 0.0)),
            jnp.sum(drawn.chosen),
        )


def _best(logits: Array, counts: Sequence[int], most: int) -> tuple[Array, np.ndarray]:
    """The priors [l k] of the highest logits of each of l levels, and which are real.

    Levels with fewer than k are padded: they are suppressed side by side, each by
    itself, in as many steps as the longest takes.
    """
    k = min(most, max(counts))
    starts = np.cumsum([0, *counts[:-1]])
    rows = []
    for start, n in zip(starts.tolist(), counts, strict=True):
        index = start + top_k(logits[start : start + n], min(k, n))[1]
        rows.append(jnp.pad(index, (0, k - len(index))))
    return jnp.stack(rows), np.arange(k) < np.array(counts)[:, None]


class Head(linen.Module):
    """Levels [b h w c] -> objectness [b p] and deltas [b p 4], with one set of weights.

    Names are torchvision's.
    """

    features: int | None
    per_location: int
    depth: int = 1
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, levels):
        def conv(channels, kernel, name):
            return linen.Conv(
                channels,
                (kernel, kernel),
                padding=kernel // 2,
                kernel_init=small,
                dtype=self.dtype,
                name=name,
            )

        features = self.features or levels[0].shape[-1]
        hidden = [conv(features, 3, f"conv.{i}.0") for i in range(self.depth)]
        outputs = (
            (conv(self.per_location, 1, "cls_logits"), 1),
            (conv(4 * self.per_location, 1, "bbox_pred"), 4),
        )
        found: tuple[list, list] = ([], [])
        for x in levels:
            for layer in hidden:
                x = linen.relu(layer(x))
            for (layer, width), joined in zip(outputs, found, strict=True):
                joined.append(layer(x).reshape(x.shape[0], -1, width))
        logits, deltas = (jnp.concatenate(j, axis=1) for j in found)
        return logits[..., 0].astype(jnp.float32), deltas.astype(jnp.float32)


class Network(linen.Module):
    """torchvision's `rpn`, which holds a `head`."""

    features: int | None
    per_location: int
    depth: int
    dtype: Any

    @linen.compact
    def __call__(self, levels):
        head = Head(
            self.features, self.per_location, self.depth, self.dtype, name="head"
        )
        return head(levels)
