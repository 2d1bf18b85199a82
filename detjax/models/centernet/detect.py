"""CenterNet's detections: peaks, and what is read at them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from detjax.models.centernet.net import HEAT
from detjax.ops import boxes, peaks, rotated
from detjax.ops.nms import Method, suppress
from detjax.settings import Count, Fraction, Positive
from detjax.types import Array, Detections


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has.

    score_threshold: peaks that score no more are dropped.
    window: a peak is the highest of so many cells along each axis around it; odd.
    nms: the NMS method, None for none: peaks are as many as objects. Boxes at an angle
        are compared at that angle, and greedily.
    nms_threshold: the IoU above which two boxes are one object.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.01
    window: Count = 3
    nms: Method | None = None
    nms_threshold: Fraction = 0.5
    nms_sigma: Positive = 0.5
    max_detections: Count = 100

    def __call__(
        self, maps: dict[str, Array], parts: Any, window: Array, *, scale: Array
    ) -> Detections:
        """Those of one image, of its maps [mh mw .], with boxes clipped to `window`.

        scale: [2], the pixels of the input that a cell is wide and high.
        """
        heat = jax.nn.sigmoid(maps[HEAT])
        found = peaks.highest(heat, self.max_detections, self.window)
        placed = parts.box.read(maps, found)
        whole = boxes.clip(placed * jnp.tile(scale, 2), window)
        answer = Detections(
            whole, found.scores, found.labels, found.scores > self.score_threshold
        )
        if parts.pose is not None:
            points = parts.pose.read(maps, found, placed)
            points = points * jnp.append(scale, 1.0)
            answer = dataclasses.replace(answer, keypoints=points)
        if parts.oriented is not None:
            turned = parts.oriented.read(maps, found, scale)
            answer = dataclasses.replace(answer, oriented=turned)
        if parts.amodal is not None:
            beyond = parts.amodal.read(maps, found) * jnp.tile(scale, 2)
            answer = dataclasses.replace(answer, amodal=whole + beyond)
        return answer if self.nms is None else self._kept(answer, self.nms)

    def _kept(self, found: Detections, nms: Method) -> Detections:
        """What suppression leaves of an image's detections; by angle where told."""
        if found.oriented is not None:
            keep = rotated.nms(
                found.oriented,
                found.scores,
                self.nms_threshold,
                found.valid,
                found.labels,
            )
            return dataclasses.replace(found, valid=found.valid & keep)
        kept = suppress(
            found.boxes,
            found.scores,
            found.labels,
            found.valid,
            nms=nms,
            threshold=self.nms_threshold,
            sigma=self.nms_sigma,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
        )
        rest = {
            name: getattr(found, name)[kept.index]
            for name in ("keypoints", "amodal")
            if getattr(found, name) is not None
        }
        return dataclasses.replace(kept.detections, **rest)
