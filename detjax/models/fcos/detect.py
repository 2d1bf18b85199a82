"""FCOS's detections."""

import dataclasses

from detjax.models.fcos.places import Places
from detjax.ops import boxes, candidates
from detjax.ops.nms import Method, suppressed
from detjax.settings import Count, Fraction, Positive
from detjax.types import Array, Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has.

    score_threshold: places whose class scores no more are dropped; a score is the
        geometric mean of the probabilities of class and centerness.
    pre_nms_top_k: the best of each level, of all classes, that take part in
        suppression.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.2
    pre_nms_top_k: Count = 1000
    nms: Method = "greedy"
    nms_threshold: Fraction = 0.6
    nms_sigma: Positive = 0.5
    max_detections: Count = 100

    def __call__(
        self, logits: Array, reach: Array, quality: Array, window: Array, *, at: Places
    ) -> Detections:
        """Those of one image, with boxes clipped to `window` [4]."""
        best = candidates.by_level(
            logits, at.counts, self.pre_nms_top_k, self.score_threshold, quality
        )
        kept = suppressed(
            self,
            boxes.clip(at.box(reach[best.index], best.index), window),
            best.scores,
            best.labels,
            best.valid,
        )
        return kept.detections
