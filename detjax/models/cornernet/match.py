"""Which cells learn which corner."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from detjax.ops import assign, gaussians
from detjax.settings import Fraction
from detjax.types import Array, Objects


class Corner(NamedTuple):
    """What is to be learnt of one kind of corner of one image."""

    heat: Array  # [mh mw c]: 1 at corners, less around them
    cell: Array  # [n] int32: y * mw + x of each object's corner
    offset: Array  # [n 2]: from the cell to the corner, in cells


class Targets(NamedTuple):
    """What is to be learnt of one image."""

    tl: Corner  # upper left
    br: Corner  # lower right
    objects: Array  # [n] bool: the objects that are learnt
    learnt: Array  # [mh mw] bool: all cells but those on crowds


@dataclasses.dataclass(frozen=True)
class Match:
    """How far around a corner cells are spared.

    min_overlap: a Gaussian reaches as far as corners may be moved while the IoU of
        their box is this.

    Cells whose centre lies in a crowd region are learnt as corners alone.
    """

    min_overlap: Fraction = 0.3

    def targets(
        self,
        objects: Objects,
        size: tuple[int, int],
        cells: tuple[int, int],
        num_classes: int,
    ) -> Targets:
        """The `Targets` of an input of `size` (h, w) for maps of `cells` (mh, mw)."""
        real = jnp.asarray(assign.learnable(objects))
        scale = jnp.array([cells[1] / size[1], cells[0] / size[0]], jnp.float32)
        # A corner on the input's far edge belongs to the last pixel.
        limit = jnp.array([size[1] - 1, size[0] - 1], jnp.float32)
        truth = jnp.where(real[:, None], objects.boxes, 0.0)
        low = jnp.clip(truth[:, :2], 0, limit)
        high = jnp.clip(truth[:, 2:], 0, limit)
        radii = gaussians.radius(
            jnp.maximum(jnp.ceil((high - low) * scale), 1), self.min_overlap
        )

        def corner(at: Array) -> Corner:
            place = at * scale
            cell = jnp.floor(place).astype(jnp.int32)
            heat = gaussians.splat(
                cell, radii, objects.labels, real, cells, num_classes
            )
            index = cell[:, 1] * cells[1] + cell[:, 0]
            return Corner(heat, index, place - cell)

        return Targets(
            corner(low), corner(high), real, ~gaussians.crowded(objects, scale, cells)
        )
