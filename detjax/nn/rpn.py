"""Region proposals: the network, its targets, its losses, and what it proposes.

    p        priors of one image over all levels, level by level
    counts   how many of them each level has

Ren et al. 2015 (Faster R-CNN), section 3.1; Lin et al. 2017 (FPN), section 4.1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import lax

from detjax import losses
from detjax.ops import assign, boxes, nms
from detjax.types import Array, Objects, Proposals

small = jax.nn.initializers.normal(0.01)


class RPNHead(linen.Module):
    """Levels [b h w c] -> objectness [b p] and deltas [b p 4], with one set of weights.

    Names are torchvision's.
    """

    features: int
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

        hidden = [conv(self.features, 3, f"conv.{i}.0") for i in range(self.depth)]
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


def propose(
    logits: Array,
    deltas: Array,
    priors: Array,
    counts: Sequence[int],
    window: Array,
    *,
    pre_nms: int,
    post_nms: int,
    nms_threshold: float,
    min_size: float,
) -> Proposals:
    """The `post_nms` best boxes of one image, by falling score, without gradient.

    Of each level the `pre_nms` best are decoded, clipped to `window` and suppressed by
    others of their level; sides under `min_size` pixels are dropped.
    """
    logits, deltas = lax.stop_gradient((logits, deltas))
    starts = np.cumsum([0, *counts[:-1]])
    best = jnp.concatenate(
        [
            start + lax.top_k(logits[start : start + n], min(pre_nms, n))[1]
            for start, n in zip(starts.tolist(), counts, strict=True)
        ]
    )
    level = np.repeat(np.arange(len(counts)), np.minimum(counts, pre_nms))
    decoded = boxes.decode_rcnn(deltas[best], jnp.asarray(priors)[best])
    decoded = boxes.clip(decoded, window)
    sides = decoded[:, 2:] - decoded[:, :2]
    # Ranked by probability and not by logit: where that saturates, ties are ties.
    scores = jax.nn.sigmoid(logits[best])
    keep = nms.greedy(
        decoded,
        scores,
        nms_threshold,
        valid=(sides >= min_size).all(axis=-1),
        labels=jnp.asarray(level),
    )
    ranking = jnp.where(keep, scores, -1.0)
    ranking = jnp.pad(ranking, (0, max(post_nms - len(level), 0)), constant_values=-1.0)
    score, index = lax.top_k(ranking, post_nms)
    valid = score >= 0
    found = decoded[jnp.where(valid, index, 0)]
    return Proposals(jnp.where(valid[:, None], found, 0.0), valid)


class Sums(NamedTuple):
    """Losses of one image, summed, and the number of samples they are to be shared by.

    All images of a batch are divided by the batch's count.
    """

    objectness: Array
    box: Array
    count: Array


def targets(
    objects: Objects,
    real: Array,
    priors: Array,
    *,
    positive: float,
    negative: float,
    crowd_threshold: float,
    low_quality: bool,
    background: float = 0.0,
    usable: Array | None = None,
) -> assign.Match:
    """Which boxes (priors or proposals) [p 4] are `real` objects [n], which are none.

    Those on crowds are neither, nor are those that are not `usable` [p].
    """
    truth = jnp.where(real[:, None], objects.boxes, 0.0)
    iou = boxes.iou(truth, priors)
    match = assign.match(
        iou if usable is None else jnp.where(usable, iou, -1.0),
        real,
        positive,
        negative,
        force=False,
        crowd_iou=boxes.iou_crowd(priors, objects.boxes).T,
        crowd_valid=objects.valid & objects.crowd,
        crowd_threshold=crowd_threshold,
        low_quality=low_quality,
        background=background,
    )
    if usable is None:
        return match
    return match._replace(
        positive=match.positive & usable, negative=match.negative & usable
    )


def loss(
    logits: Array,
    deltas: Array,
    priors: Array,
    match: assign.Match,
    truth: Array,
    key: Array,
    *,
    samples: int,
    fraction: float,
) -> Sums:
    """Cross entropy of sampled priors, smooth L1 of the positive among them.

    Ren et al. 2015, equation 1, with both terms over the number of samples.
    """
    drawn = assign.sample(match.positive, match.negative, samples, fraction, key)
    at, prior = drawn.index, jnp.asarray(priors)[drawn.index]
    entropy = losses.sigmoid_cross_entropy(
        logits[at], drawn.positive.astype(jnp.float32)
    )
    aim = jnp.where(drawn.positive[:, None], truth[match.index[at]], prior)
    distance = losses.smooth_l1(deltas[at], boxes.encode_rcnn(aim, prior), 1 / 9)
    return Sums(
        jnp.sum(jnp.where(drawn.chosen, entropy, 0.0)),
        jnp.sum(jnp.where(drawn.positive, distance.sum(axis=-1), 0.0)),
        jnp.sum(drawn.chosen),
    )
