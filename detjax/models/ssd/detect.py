"""SSD's detections."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from detjax.models.ssd.match import VARIANCES
from detjax.ops import boxes, candidates
from detjax.ops.nms import Method, suppressed
from detjax.settings import Count, Fraction, Positive
from detjax.types import Array, Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has.

    score_threshold: priors of a class that score no more are dropped.
    pre_nms_top_k: the best of each class that take part in suppression.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.01
    pre_nms_top_k: Count = 400
    nms: Method = "greedy"
    nms_threshold: Fraction = 0.45
    nms_sigma: Positive = 0.5
    max_detections: Count = 200

    def __call__(
        self, logits: Array, deltas: Array, window: Array, *, priors: np.ndarray
    ) -> Detections:
        """Those of one image, with boxes clipped to `window` [4]."""
        best = candidates.by_class(
            jax.nn.softmax(logits)[:, :-1], self.pre_nms_top_k, self.score_threshold
        )
        decoded = boxes.clip(
            boxes.decode(deltas, jnp.asarray(priors), VARIANCES), window
        )
        kept = suppressed(
            self,
            decoded[best.index],
            best.scores,
            best.labels,
            best.valid,
        )
        return kept.detections
