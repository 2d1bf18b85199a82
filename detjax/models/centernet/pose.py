"""Keypoints by their distance from the centre, and by maps of their own.

    j        keypoints of an object

Zhou et al. 2019, section 4.2 (human pose estimation).
"""

import dataclasses

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.errors import UserError
from detjax.models.centernet.match import Centres
from detjax.models.centernet.parts import Sums, at_cells, error
from detjax.ops import gaussians, peaks
from detjax.settings import Count, Fraction, NonNegative
from detjax.types import Array, Batch, Objects


@dataclasses.dataclass(frozen=True)
class Pose:
    """Keypoints of objects.

    count: keypoints of an object; 17 are COCO's of a person.
    weight: of the L1 loss of their distances from the centre, in cells.
    heat_weight: of the focal loss of their own maps.
    offset_weight: of the L1 loss of their offsets in cells.
    candidates: peaks of each keypoint's map that objects choose from.
    score_threshold: peaks that score less are nobody's keypoint.
    reach: how far a keypoint may lie from the place that its object tells, in lengths
        of the box's longer side; one without such a peak stays at that place.
    """

    count: Count = 17
    weight: NonNegative = 1.0
    heat_weight: NonNegative = 1.0
    offset_weight: NonNegative = 1.0
    candidates: Count = 100
    score_threshold: Fraction = 0.1
    reach: NonNegative = 0.3

    def maps(self) -> dict[str, int]:
        """The channels of the maps, by the names of the authors' code."""
        return {"hps": 2 * self.count, "hm_hp": self.count, "hp_offset": 2}

    def sums(self, maps: dict[str, Array], target: Centres, objects: Objects) -> Sums:
        """The losses of one image."""
        mh, mw, _ = maps["hps"].shape
        at = objects.keypoints[..., :2] * target.scale  # [n j 2]
        cell = jnp.floor(at).astype(jnp.int32)
        inside = ((cell >= 0) & (cell < jnp.array([mw, mh]))).all(axis=-1)
        seen = inside & (objects.keypoints[..., 2] > 0) & target.real[:, None]
        counts = jnp.broadcast_to(seen[..., None], at.shape)
        told = at_cells(maps["hps"], target.cell).reshape(at.shape)
        cell = jnp.where(seen[..., None], cell, 0)
        kind = jnp.zeros(len(seen), jnp.int32)

        def drawn(points: tuple[Array, Array]) -> Array:
            at, some = points
            return gaussians.splat(at, target.radii, kind, some, (mh, mw), 1)[..., 0]

        # One keypoint after the other: the maps of all of all objects are 111 MB an
        # image at 100 people and 512 pixels.
        heat = jax.lax.map(drawn, (cell.swapaxes(0, 1), seen.T))
        heat = jnp.moveaxis(heat, 0, -1)
        focal = losses.gaussian_focal(maps["hm_hp"], heat)
        learnt = target.learnt[..., None] | (heat == 1)
        return {
            "pose": error(told, at - target.cell[:, None], counts, self.weight),
            "keypoint_heat": (
                self.heat_weight * jnp.sum(jnp.where(learnt, focal, 0.0)),
                jnp.sum(heat == 1),
            ),
            "keypoint_offset": error(
                at_cells(maps["hp_offset"], cell), at - cell, counts, self.offset_weight
            ),
        }

    def read(self, maps: dict[str, Array], found: peaks.Peaks, boxes: Array) -> Array:
        """The keypoints [k j 3] of peaks, x and y in cells and a score.

        Each is the peak of its map nearest to the place that the object tells, if that
        is near enough and in its box [k 4]. A keypoint's score is that of its map.
        """
        centre = jnp.stack([found.x, found.y], axis=-1)
        told = at_cells(maps["hps"], centre).reshape(len(centre), self.count, 2)
        told = told + centre[:, None]
        heat = jax.nn.sigmoid(maps["hm_hp"])
        spots = jax.vmap(self._spots, (2, None))(heat, maps["hp_offset"])
        chosen = jax.vmap(self._nearest, (1, 0, None), 1)
        at, score, near = chosen(told, spots, boxes)
        mh, mw, _ = heat.shape
        cell = jnp.clip(told, 0, jnp.array([mw - 1, mh - 1])).astype(jnp.int32)
        own = heat[cell[..., 1], cell[..., 0], jnp.arange(self.count)]
        place = jnp.where(near[..., None], at, told)
        return jnp.concatenate([place, jnp.where(near, score, own)[..., None]], axis=-1)

    def _spots(self, heat: Array, offsets: Array) -> tuple[Array, Array]:
        """The peaks of one keypoint's map [mh mw]: places [s 2], scores [s]."""
        best = peaks.highest(heat[..., None], self.candidates)
        cell = jnp.stack([best.x, best.y], axis=-1)
        return cell + at_cells(offsets, cell), best.scores

    def _nearest(
        self, told: Array, spots: tuple[Array, Array], boxes: Array
    ) -> tuple[Array, Array, Array]:
        """One keypoint's peak for each object told [k 2]: place, score, near enough."""
        places, scores = spots
        apart = jnp.linalg.norm(told[:, None] - places, axis=-1)
        apart = jnp.where(scores > self.score_threshold, apart, jnp.inf)
        nearest = apart.argmin(axis=1)
        at, distance = places[nearest], apart.min(axis=1)
        side = (boxes[:, 2:] - boxes[:, :2]).max(axis=-1)
        inside = ((at >= boxes[:, :2]) & (at <= boxes[:, 2:])).all(axis=-1)
        return at, scores[nearest], inside & (distance <= self.reach * side)

    def check(self, batch: Batch) -> None:
        """Raises UserError unless objects have as many keypoints."""
        given = batch.target.keypoints
        number = None if given is None else given.shape[-2]
        if number != self.count:
            raise UserError(
                f"this detector learns {self.count} keypoints but the batch has "
                f"{'none' if number is None else f'{number} an object'}; set "
                "model.pose.count to their number, or model.pose=None"
            )
