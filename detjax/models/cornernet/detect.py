"""CornerNet's detections: pairs of corners.

k        corners of each kind
p        pairs of corners
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from detjax.models.cornernet.net import Corners, Maps
from detjax.ops import boxes, peaks, ranking
from detjax.ops.nms import Method, suppressed
from detjax.settings import Count, Fraction, NonNegative, Positive
from detjax.types import Array, Detections


class Pairs(NamedTuple):
    """Pairs of corners by falling score."""

    boxes: Array  # [p 4] in cells of the map
    scores: Array  # [p]: the mean of the corners'
    labels: Array  # [p]
    corners: Array  # [p 2]: the scores of the upper left and the lower right one
    valid: Array  # [p]


@dataclasses.dataclass(frozen=True)
class Detect:
    """Which detections an image has.

    score_threshold: pairs that score no more are dropped; a score is the mean of the
        two corners' probabilities.
    corners: the highest peaks of all classes of each kind of corner that are paired.
    window: a peak is the highest of so many cells along each axis around it; odd.
    tag_distance: corners whose tags are farther apart are of two objects.
    pairs: the best of these that take part in suppression.
    nms: the NMS method; see `detjax.ops.nms.suppress`.
    nms_threshold: the IoU above which two boxes are one object; "soft" has none.
    nms_sigma: of the Gaussians of nms="soft" and "matrix".
    max_detections: detections of an image.
    """

    score_threshold: Fraction = 0.001
    corners: Count = 100
    window: Count = 3
    tag_distance: NonNegative = 0.5
    pairs: Count = 1000
    nms: Method = "soft"
    nms_threshold: Fraction = 0.5
    nms_sigma: Positive = 0.5
    max_detections: Count = 100

    def paired(self, maps: Maps) -> Pairs:
        """The best pairs of the corners of one image, of its maps [mh mw .].

        Corners of one class and nearly the same tag, of which the one lies above and to
        the left of the other: Law and Deng 2018, section 4.1.
        """
        (tl, tl_tag, tl_at), (br, br_tag, br_at) = map(self._corners, maps)
        rows, columns = jnp.meshgrid(
            *(jnp.arange(len(x.scores)) for x in (tl, br)), indexing="ij"
        )
        scores = (tl.scores[:, None] + br.scores) / 2
        fits = (tl.labels[:, None] == br.labels) & (tl_at[:, None] <= br_at).all(-1)
        fits &= jnp.abs(tl_tag[:, None] - br_tag) <= self.tag_distance
        # What is no pair comes last.
        scores = jnp.where(fits, scores, -1.0).ravel()
        best, place = ranking.top_k(scores, min(self.pairs, scores.size))
        i, j = rows.ravel()[place], columns.ravel()[place]
        return Pairs(
            jnp.concatenate([tl_at[i], br_at[j]], axis=-1),
            best,
            tl.labels[i],
            jnp.stack([tl.scores[i], br.scores[j]], axis=-1),
            best > -1,
        )

    def _corners(self, found: Corners) -> tuple[peaks.Peaks, Array, Array]:
        """The highest corners, their tags [k] and places [k 2] in cells."""
        heat = jax.nn.sigmoid(found.heat)
        best = peaks.highest(heat, self.corners, self.window)
        place = jnp.stack([best.x, best.y], axis=-1)
        at = best.y, best.x
        return best, found.tag[at], place + found.offset[at]

    def __call__(self, maps: Maps, window: Array, *, scale: Array) -> Detections:
        """Those of one image, with boxes clipped to `window` [4].

        scale: [2], the pixels of the input that a cell is wide and high.
        """
        found = self.paired(maps)
        placed = boxes.clip(found.boxes * jnp.tile(scale, 2), window)
        valid = found.valid & (found.scores > self.score_threshold)
        scores = jnp.where(found.valid, found.scores, 0.0)
        return suppressed(self, placed, scores, found.labels, valid).detections
