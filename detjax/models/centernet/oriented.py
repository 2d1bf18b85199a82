"""Boxes at an angle, at the centres of those that are not.

An angle is told by the cosine and the sine of twice of it, which a half turn leaves as
they are: what the rectangle is, too. A square has no such angle; the less a rectangle
differs from one, the less its angle counts.
"""

import dataclasses

import jax.numpy as jnp

from detjax.errors import UserError
from detjax.models.centernet.match import Centres
from detjax.models.centernet.parts import Sums, at_cells, error
from detjax.ops import peaks
from detjax.settings import NonNegative
from detjax.types import Array, Batch, Objects


@dataclasses.dataclass(frozen=True)
class Oriented:
    """Boxes at an angle: their centres, sides and angles, each with an L1 loss.

    centre_weight: of centres, in cells.
    size_weight: of sides, in cells.
    angle_weight: of the cosine and the sine of twice the angle.
    """

    centre_weight: NonNegative = 1.0
    size_weight: NonNegative = 0.1
    angle_weight: NonNegative = 1.0

    def maps(self) -> dict[str, int]:
        """The channels of the maps."""
        return {"turned_reg": 2, "turned_wh": 2, "turned_angle": 2}

    def sums(self, maps: dict[str, Array], target: Centres, objects: Objects) -> Sums:
        """The losses of one image.

        Sides are compared in units of cells, of which there are as many each way.
        """
        boxes = objects.oriented
        unit = target.scale.mean()
        wanted = {
            "centre": boxes[:, :2] * target.scale - target.cell,
            "sides": boxes[:, 2:4] * unit,
            "angle": jnp.stack([jnp.cos(2 * boxes[:, 4]), jnp.sin(2 * boxes[:, 4])], 1),
        }
        long, short = boxes[:, 2], boxes[:, 3]
        drawn = target.real & (long > 0)
        slender = (long - short) / jnp.maximum(long + short, 1e-6)
        counts = {
            "centre": drawn[:, None],
            "sides": drawn[:, None],
            "angle": drawn[:, None],
        }
        weights = {
            "centre": self.centre_weight,
            "sides": self.size_weight,
            "angle": self.angle_weight,
        }
        found = {
            "centre": at_cells(maps["turned_reg"], target.cell),
            "sides": at_cells(maps["turned_wh"], target.cell),
            "angle": at_cells(maps["turned_angle"], target.cell),
        }
        # The weight of an angle is that of its difference, which is linear in it.
        for held in (found, wanted):
            held["angle"] = held["angle"] * slender[:, None]
        return {
            f"turned_{name}": error(
                found[name],
                wanted[name],
                jnp.broadcast_to(counts[name], wanted[name].shape),
                weights[name],
            )
            for name in wanted
        }

    def read(self, maps: dict[str, Array], found: peaks.Peaks, scale: Array) -> Array:
        """The boxes [k 5] of peaks in pixels, of `scale` [2] pixels a cell."""
        cell = jnp.stack([found.x, found.y], axis=-1)
        centre = (cell + at_cells(maps["turned_reg"], cell)) * scale
        sides = jnp.maximum(at_cells(maps["turned_wh"], cell), 0) * scale.mean()
        cos, sin = jnp.moveaxis(at_cells(maps["turned_angle"], cell), -1, 0)
        # Where both are 0 the angle has no derivative.
        angle = jnp.arctan2(sin, jnp.where((cos == 0) & (sin == 0), 1e-6, cos)) / 2
        return jnp.concatenate([centre, sides, angle[:, None]], axis=-1)

    def check(self, batch: Batch) -> None:
        """Raises UserError unless objects have such boxes."""
        if batch.target.oriented is None:
            raise UserError(
                "this detector learns boxes at an angle but the batch has none; set "
                "data.oriented=True, or model.oriented=None"
            )
