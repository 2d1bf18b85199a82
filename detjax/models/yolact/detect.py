"""YOLACT's detections: suppression over classes, masks from prototypes."""

import dataclasses

import jax
import jax.numpy as jnp

from detjax.models.yolact.net import Outputs
from detjax.ops import boxes, masks
from detjax.ops.nms import Method, fast, suppressed
from detjax.ops.ranking import top_k
from detjax.settings import Count, Fraction, Positive
from detjax.types import Array, Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has.

    score_threshold: priors whose best class scores less are dropped; of methods other
        than "fast", every class that scores no more, also after suppression.
    nms: how boxes of one object become one; "fast" is YOLACT's, for the others see
        `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    top_k: detections of each class before suppression.
    pre_nms_top_k: of these the best of all classes, of methods other than "fast".
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    nms: Method = "fast"
    nms_threshold: Fraction = 0.5
    nms_sigma: Positive = 0.5
    top_k: Count = 200
    pre_nms_top_k: Count = 2000
    max_detections: Count = 100

    def __call__(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        """Those of one image (h, w), as the original's: boxes may reach out of it."""
        decoded = boxes.decode(outputs.deltas, outputs.priors)
        scores = jax.nn.softmax(outputs.logits)[:, :-1].T
        index, found = self._suppressed(decoded, scores)
        if outputs.prototypes is None:
            return found
        logits = masks.assemble(outputs.prototypes, outputs.coefficients[index])
        probs = masks.crop(jax.nn.sigmoid(logits), found.boxes, size)
        return dataclasses.replace(found, masks=probs)

    def _suppressed(self, decoded: Array, scores: Array) -> tuple[Array, Detections]:
        """The priors that are detections, and these, of scores [c p]."""
        if self.nms == "fast":
            index, labels, best, keep = fast(
                decoded,
                scores,
                self.nms_threshold,
                self.top_k,
                self.max_detections,
                score_threshold=self.score_threshold,
            )
            return index, Detections(decoded[index], best, labels, keep)
        some = jnp.where(scores > self.score_threshold, scores, -jnp.inf)
        of_class, priors = top_k(some, min(self.top_k, some.shape[1]))
        best, place = top_k(of_class.ravel(), min(self.pre_nms_top_k, of_class.size))
        index = priors.ravel()[place]
        kept = suppressed(
            self,
            decoded[index],
            best,
            place // of_class.shape[1],
            best > -jnp.inf,
        )
        found = kept.detections
        return index[kept.index], found
