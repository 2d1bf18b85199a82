"""YOLACT's detections: Fast NMS over classes, masks from prototypes."""

import dataclasses

import jax

from detjax.models.yolact.net import Outputs
from detjax.ops import boxes, masks, nms
from detjax.settings import Count, Fraction
from detjax.types import Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has; see `nms.fast`.

    score_threshold: priors whose best class scores less are dropped.
    nms_threshold: the IoU of suppression, class by class.
    top_k: detections of each class before suppression.
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.05
    nms_threshold: Fraction = 0.5
    top_k: Count = 200
    max_detections: Count = 100

    def __call__(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        """Those of one image (h, w), as the original's: boxes may reach out of it."""
        decoded = boxes.decode(outputs.deltas, outputs.priors)
        scores = jax.nn.softmax(outputs.logits)[:, :-1].T
        index, labels, scores, keep = nms.fast(
            decoded,
            scores,
            self.nms_threshold,
            self.top_k,
            self.max_detections,
            score_threshold=self.score_threshold,
        )
        found = Detections(decoded[index], scores, labels, keep)
        if outputs.prototypes is None:
            return found
        logits = masks.assemble(outputs.prototypes, outputs.coefficients[index])
        probs = masks.crop(jax.nn.sigmoid(logits), found.boxes, size)
        return dataclasses.replace(found, masks=probs)
