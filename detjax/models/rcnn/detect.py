"""From class scores and a box for each class to detections."""

import dataclasses

import jax.numpy as jnp

from detjax.ops import boxes
from detjax.ops.nms import Method, suppressed
from detjax.ops.ranking import top_k
from detjax.settings import Count, Fraction, Positive
from detjax.types import Array, Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Settings of what is detected.

    score_threshold: boxes of a class that score less are dropped; those that score no
        more, after suppression by methods that lower scores.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    top_k: the best boxes of each class that take part in suppression.
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    nms: Method = "greedy"
    nms_threshold: Fraction = 0.3
    nms_sigma: Positive = 0.5
    top_k: Count = 300
    max_detections: Count = 100

    def detections(
        self, scores: Array, found: Array, valid: Array, window: Array
    ) -> Detections:
        """Detections of one image, from scores [p c] and boxes `found` [p c 4].

        Boxes are clipped to `window` [4].
        """
        taken = valid[:, None] & (scores >= self.score_threshold)
        best, place = top_k(
            jnp.where(taken, scores, -jnp.inf).T, min(self.top_k, len(scores))
        )
        found = boxes.clip(found, window)
        chosen = jnp.take_along_axis(found.swapaxes(0, 1), place[..., None], axis=1)
        labels = jnp.broadcast_to(jnp.arange(len(best))[:, None], best.shape)
        kept = suppressed(
            self,
            chosen.reshape(-1, 4),
            best.ravel(),
            labels.ravel(),
            best.ravel() > -jnp.inf,
        )
        return kept.detections
