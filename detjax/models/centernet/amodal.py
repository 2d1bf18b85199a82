"""Boxes of whole objects, what is hidden included, by how far they leave visible ones.

Most objects are seen whole: what is learnt begins at 0, which is that.
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
class Amodal:
    """Boxes of whole objects: how far their sides lie from the visible box's, in cells.

    weight: of their L1 loss.
    """

    weight: NonNegative = 0.1

    def maps(self) -> dict[str, int]:
        """The channels of the maps: left, top, right and bottom."""
        return {"whole": 4}

    def sums(self, maps: dict[str, Array], target: Centres, objects: Objects) -> Sums:
        """The losses of one image."""
        wanted = (objects.amodal - objects.boxes) * jnp.tile(target.scale, 2)
        counts = jnp.broadcast_to(target.real[:, None], wanted.shape)
        found = at_cells(maps["whole"], target.cell)
        return {"whole": error(found, wanted, counts, self.weight)}

    def read(self, maps: dict[str, Array], found: peaks.Peaks, boxes: Array) -> Array:
        """The boxes [k 4] of peaks, in cells, beside the visible ones [k 4].

        They may leave the picture.
        """
        cell = jnp.stack([found.x, found.y], axis=-1)
        return boxes + at_cells(maps["whole"], cell)

    def check(self, batch: Batch) -> None:
        """Raises UserError unless objects have such boxes."""
        if batch.target.amodal is None:
            raise UserError(
                "this detector learns the boxes of whole objects but the batch has "
                "none; set data.amodal=True, or model.amodal=None"
            )
