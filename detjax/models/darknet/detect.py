"""From what darknet's heads find to detections.

    p        places of all heads, c classes
    k        pairs of a place and a class that take part in suppression

A place may be several detections, each of a class of its own.
"""

import dataclasses

import jax.numpy as jnp

from detjax.models.darknet.truths import Found
from detjax.ops.nms import Method, suppressed
from detjax.ops.ranking import top_k
from detjax.settings import Count, Fraction, Positive
from detjax.types import Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has; the defaults are darknet's for validation.

    score_threshold: classes whose probability, objectness included, is no more are
        dropped.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    pre_nms_top_k: the best pairs of a place and a class of an image that take part in
        suppression; the result is exact where there are no more.
    max_detections: detections of an image.
    tree_threshold: of classes that are a tree's, how probable one has to be for an
        answer below the one above it.
    """

    score_threshold: Fraction = 0.005
    nms_threshold: Fraction = 0.45
    pre_nms_top_k: Count = 1000
    max_detections: Count = 100
    tree_threshold: Fraction = 0.5
    nms: Method = "greedy"
    nms_sigma: Positive = 0.5

    def __call__(self, found: Found) -> Detections:
        """Those of one image, as darknet's: boxes may reach out of it.

        Darknet asks the objectness to exceed the threshold too, which a product with a
        probability cannot do without it; YOLOv1's classes are no probabilities, and
        there darknet does not ask.
        """
        count = found.classes.shape[1]
        # The best k pairs are of k places at the most, those of the best classes.
        best = (found.objectness[:, None] * found.classes).max(axis=1)
        k = min(self.pre_nms_top_k, len(best))
        _, place = top_k(jnp.where(best > self.score_threshold, best, -1.0), k)
        scores = found.objectness[place, None] * found.classes[place]
        scores = jnp.where(scores > self.score_threshold, scores, -1.0)
        score, pair = top_k(scores.ravel(), min(self.pre_nms_top_k, scores.size))
        kept = suppressed(
            self,
            found.boxes[place[pair // count]],
            score,
            pair % count,
            score >= 0,
        )
        return kept.detections
