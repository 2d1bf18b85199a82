"""From class scores and boxes of regions to detections.

Girshick 2015 (Fast R-CNN), section 2.2.
"""

import dataclasses

import jax
import jax.numpy as jnp

from detjax.models.two_stage.roi import WEIGHTS
from detjax.ops import boxes, nms
from detjax.ops.ranking import top_k
from detjax.settings import Count, Fraction
from detjax.types import Array, Detections, Proposals

MIN_SIDE = 1e-2  # pixels; smaller boxes are dropped


@dataclasses.dataclass(frozen=True)
class Detect:
    """Settings of what is detected.

    score_threshold: boxes of a class that score no more are dropped.
    nms_threshold: the IoU of suppression, class by class.
    pre_nms_top_k: the best boxes of an image, of all classes, that take part in
        suppression; the result is exact where there are no more.
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    nms_threshold: Fraction = 0.5
    pre_nms_top_k: Count = 2000
    max_detections: Count = 100

    def detections(
        self, logits: Array, deltas: Array, proposals: Proposals, window: Array
    ) -> Detections:
        """Detections of one image: the boxes that each class makes of the proposals.

        logits [p c+1] and deltas [p c+1 4] have the background last; boxes are clipped
        to `window` [4].
        """
        count = logits.shape[1] - 1
        scores = jax.nn.softmax(logits)[:, :-1]
        tiled = jnp.repeat(proposals.boxes, count, axis=0)
        decoded = boxes.decode_rcnn(deltas[:, :-1].reshape(-1, 4), tiled, WEIGHTS)
        decoded = boxes.clip(decoded, window)
        sides = decoded[:, 2:] - decoded[:, :2]
        some = (scores > self.score_threshold) & proposals.valid[:, None]
        some = some.reshape(-1) & (sides >= MIN_SIDE).all(axis=-1)
        best, index = top_k(
            jnp.where(some, scores.reshape(-1), -1.0),
            min(self.pre_nms_top_k, some.shape[0]),
        )
        labels = index % count
        keep = nms.greedy(
            decoded[index],
            best,
            self.nms_threshold,
            valid=best >= 0,
            labels=labels,
            most=self.max_detections,
        )
        ranking = jnp.pad(
            jnp.where(keep, best, -1.0),
            (0, max(self.max_detections - len(index), 0)),
            constant_values=-1.0,
        )
        score, place = top_k(ranking, self.max_detections)
        valid = score >= 0
        place = jnp.where(valid, place, 0)
        return Detections(
            boxes=jnp.where(valid[:, None], decoded[index[place]], 0.0),
            scores=jnp.where(valid, score, 0.0),
            labels=jnp.where(valid, labels[place], 0).astype(jnp.int32),
            valid=valid,
        )
