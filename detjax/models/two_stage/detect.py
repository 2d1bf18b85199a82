"""From class scores and boxes of regions to detections.

Girshick 2015 (Fast R-CNN), section 2.2.
"""

import dataclasses

import jax
import jax.numpy as jnp

from detjax.models.two_stage.roi import WEIGHTS
from detjax.ops import boxes
from detjax.ops.nms import Method, suppressed
from detjax.ops.ranking import top_k
from detjax.settings import Count, Fraction, Positive
from detjax.types import Array, Detections, Proposals

MIN_SIDE = 1e-2  # pixels; smaller boxes are dropped


@dataclasses.dataclass(frozen=True)
class Detect:
    """Settings of what is detected.

    score_threshold: boxes of a class that score no more are dropped, before suppression
        and, of methods that lower scores, after it.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    pre_nms_top_k: the best boxes of an image, of all classes, that take part in
        suppression; the result is exact where there are no more.
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    nms: Method = "greedy"
    nms_threshold: Fraction = 0.5
    nms_sigma: Positive = 0.5
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
        kept = suppressed(
            self,
            decoded[index],
            best,
            index % count,
            best >= 0,
        )
        return kept.detections
