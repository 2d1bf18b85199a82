"""Boxes of whole objects, what is hidden included, by how far they leave visible ones.

Of most objects nothing is hidden. A distance with an L1 loss alone would be their
median, 0, for all: so it is told apart which sides are hidden, and how far those reach
is learnt of them alone.
"""

import dataclasses

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.errors import UserError
from detjax.models.centernet.match import Centres
from detjax.models.centernet.parts import Sums, at_cells, error
from detjax.ops import peaks
from detjax.settings import NonNegative
from detjax.types import Array, Batch, Objects

# Sides whose whole lies nearer than this, in cells, are seen.
SEEN = 0.25


@dataclasses.dataclass(frozen=True)
class Amodal:
    """Boxes of whole objects: how far their sides lie from the visible box's, in cells.

    weight: of the L1 loss of hidden sides.
    hidden_weight: of the cross-entropy of which sides are hidden.
    """

    weight: NonNegative = 0.1
    hidden_weight: NonNegative = 0.5

    def maps(self) -> dict[str, int]:
        """The channels of the maps: left, top, right and bottom."""
        return {"hidden": 4, "whole": 4}

    def sums(self, maps: dict[str, Array], target: Centres, objects: Objects) -> Sums:
        """The losses of one image."""
        beyond = (objects.amodal - objects.boxes) * jnp.array([-1, -1, 1, 1])
        wanted = beyond * jnp.tile(target.scale, 2)
        hidden = wanted > SEEN
        real = jnp.broadcast_to(target.real[:, None], wanted.shape)
        found = at_cells(maps["whole"], target.cell)
        said = at_cells(maps["hidden"], target.cell).astype(jnp.float32)
        wrong = losses.sigmoid_cross_entropy(said, hidden.astype(jnp.float32))
        return {
            "whole": error(found, wanted, hidden & real, self.weight),
            "hidden": (
                self.hidden_weight * jnp.sum(jnp.where(real, wrong, 0.0)),
                jnp.sum(real),
            ),
        }

    def read(self, maps: dict[str, Array], found: peaks.Peaks) -> Array:
        """How far [k 4] the sides of peaks' boxes are to be moved, in cells.

        Only those that are more likely hidden than not; they may leave the picture.
        """
        cell = jnp.stack([found.x, found.y], axis=-1)
        beyond = jax.nn.relu(at_cells(maps["whole"], cell))
        hidden = at_cells(maps["hidden"], cell) > 0
        return jnp.where(hidden, beyond, 0.0) * jnp.array([-1, -1, 1, 1])

    def check(self, batch: Batch) -> None:
        """Raises UserError unless objects have such boxes."""
        if batch.target.amodal is None:
            raise UserError(
                "this detector learns the boxes of whole objects but the batch has "
                "none; set data.amodal=True, or model.amodal=None"
            )
