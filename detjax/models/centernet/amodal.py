"""Boxes of whole objects, what is hidden included, at the centres of visible ones."""

import dataclasses

import jax.numpy as jnp

from detjax.errors import UserError
from detjax.models.centernet.match import Centres
from detjax.models.centernet.parts import Sums, at_cells, error
from detjax.ops import peaks
from detjax.settings import NonNegative
from detjax.types import Array, Batch, Objects


@dataclasses.dataclass(frozen=True)
class Amodal:
    """Boxes of whole objects: where their sides lie from the cell, in cells.

    weight: of their L1 loss.
    """

    weight: NonNegative = 0.1

    def maps(self) -> dict[str, int]:
        """The channels of the maps: left, top, right and bottom."""
        return {"whole": 4}

    def sums(self, maps: dict[str, Array], target: Centres, objects: Objects) -> Sums:
        """The losses of one image."""
        wanted = objects.amodal * jnp.tile(target.scale, 2)
        wanted = wanted - jnp.tile(target.cell, 2)
        counts = jnp.broadcast_to(target.real[:, None], wanted.shape)
        found = at_cells(maps["whole"], target.cell)
        return {"whole": error(found, wanted, counts, self.weight)}

    def read(self, maps: dict[str, Array], found: peaks.Peaks) -> Array:
        """The boxes [k 4] of peaks, in cells; they may leave the picture."""
        cell = jnp.stack([found.x, found.y], axis=-1)
        return at_cells(maps["whole"], cell) + jnp.tile(cell, 2)

    def check(self, batch: Batch) -> None:
        """Raises UserError unless objects have such boxes."""
        if batch.target.amodal is None:
            raise UserError(
                "this detector learns the boxes of whole objects but the batch has "
                "none; set data.amodal=True, or model.amodal=None"
            )
