"""From class scores and a box for each class to detections."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from detjax.ops import boxes, nms
from detjax.ops.ranking import top_k
from detjax.settings import Count, Fraction
from detjax.types import Array, Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Settings of what is detected.

    score_threshold: boxes of a class that score less are dropped.
    nms_threshold: the IoU of suppression, which is greedy and class by class.
    top_k: the best boxes of each class that take part in suppression.
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    nms_threshold: Fraction = 0.3
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
        of_class = functools.partial(
            nms.greedy, threshold=self.nms_threshold, most=self.max_detections
        )
        keep = jax.vmap(of_class)(chosen, best, valid=best > -jnp.inf)
        ranking = jnp.where(keep, best, -jnp.inf).ravel()
        missing = max(self.max_detections - ranking.size, 0)
        ranking = jnp.pad(ranking, (0, missing), constant_values=-jnp.inf)
        score, index = top_k(ranking, self.max_detections)
        real = score > -jnp.inf
        index = jnp.where(real, index, 0)
        return Detections(
            boxes=chosen.reshape(-1, 4)[index],
            scores=jnp.where(real, score, 0.0),
            labels=(index // best.shape[1]).astype(jnp.int32),
            valid=real,
        )
