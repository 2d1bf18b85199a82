"""RetinaNet's detections."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from detjax.ops import boxes, candidates
from detjax.ops.nms import Method, suppressed
from detjax.settings import Count, Fraction, Positive
from detjax.types import Array, Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has.

    score_threshold: priors of a class that score no more are dropped.
    pre_nms_top_k: the best of each level, of all classes, that take part in
        suppression.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    pre_nms_top_k: Count = 1000
    nms: Method = "greedy"
    nms_threshold: Fraction = 0.5
    nms_sigma: Positive = 0.5
    max_detections: Count = 300

    def __call__(
        self,
        logits: Array,
        deltas: Array,
        window: Array,
        *,
        priors: np.ndarray,
        counts: tuple[int, ...],
    ) -> Detections:
        """Those of one image, with boxes clipped to `window` [4]."""
        best = candidates.by_level(
            logits, counts, self.pre_nms_top_k, self.score_threshold
        )
        index = best.index
        decoded = boxes.decode_rcnn(deltas[index], jnp.asarray(priors)[index])
        kept = suppressed(
            self,
            boxes.clip(decoded, window),
            best.scores,
            best.labels,
            best.valid,
        )
        return kept.detections
