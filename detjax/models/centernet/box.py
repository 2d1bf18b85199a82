"""Boxes at centres: their sides, and where in its cell a centre lies."""

import dataclasses

import jax.numpy as jnp

from detjax.models.centernet.match import Centres
from detjax.models.centernet.parts import Sums, at_cells, error
from detjax.ops import boxes, peaks
from detjax.settings import NonNegative
from detjax.types import Array, Objects


@dataclasses.dataclass(frozen=True)
class Box:
    """The weights of the losses of boxes, L1 means over both coordinates.

    size_weight: of sides, in cells.
    offset_weight: of offsets, in cells.
    """

    size_weight: NonNegative = 0.1
    offset_weight: NonNegative = 1.0

    def maps(self) -> dict[str, int]:
        """The channels of the maps, by the names of the authors' code."""
        return {"wh": 2, "reg": 2}

    def sums(self, maps: dict[str, Array], target: Centres, objects: Objects) -> Sums:
        """The losses of one image."""
        wanted = {"wh": target.sides, "reg": target.at - target.cell}
        counts = jnp.broadcast_to(target.real[:, None], wanted["wh"].shape)
        return {
            name: error(at_cells(maps[map_], target.cell), wanted[map_], counts, weight)
            for name, map_, weight in (
                ("size", "wh", self.size_weight),
                ("offset", "reg", self.offset_weight),
            )
        }

    def read(self, maps: dict[str, Array], found: peaks.Peaks) -> Array:
        """The boxes [k 4] of peaks, in cells."""
        cell = jnp.stack([found.x, found.y], axis=-1)
        centre = cell + at_cells(maps["reg"], cell)
        # Before they are learnt they may be below 0.
        sides = jnp.maximum(at_cells(maps["wh"], cell), 0)
        return boxes.cxcywh_to_xyxy(jnp.concatenate([centre, sides], axis=-1))
