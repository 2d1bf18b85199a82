"""Which cells learn which objects."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from detjax.ops import assign, gaussians
from detjax.settings import Fraction
from detjax.types import Array, Objects


class Centres(NamedTuple):
    """What is to be learnt of the centres of one image."""

    heat: Array  # [mh mw c]: 1 at centres, less around them
    at: Array  # [n 2] float32: x and y of each centre, in cells
    cell: Array  # [n 2] int32: x and y of the cell it lies in
    sides: Array  # [n 2] float32: width and height, in cells
    radii: Array  # [n] cells that its Gaussian reaches
    real: Array  # [n] bool: the objects that are learnt
    learnt: Array  # [mh mw] bool: all cells but those on crowds
    scale: Array  # [2] cells a pixel, across and down


@dataclasses.dataclass(frozen=True)
class Match:
    """How far around a centre cells are spared.

    min_overlap: a Gaussian reaches as far as boxes may be moved while their IoU is
        this; see `gaussians.centernet_radius`.

    Cells whose centre lies in a crowd region are learnt as centres alone.
    """

    min_overlap: Fraction = 0.7

    def centres(
        self,
        objects: Objects,
        size: tuple[int, int],
        cells: tuple[int, int],
        num_classes: int,
    ) -> Centres:
        """The `Centres` of an input of `size` (h, w) for maps of `cells` (mh, mw)."""
        real = jnp.asarray(assign.learnable(objects))
        scale = jnp.array([cells[1] / size[1], cells[0] / size[0]], jnp.float32)
        limit = jnp.array(cells[::-1], jnp.float32)
        truth = jnp.where(real[:, None], objects.boxes, 0.0)
        low = jnp.clip(truth[:, :2] * scale, 0, limit)
        high = jnp.clip(truth[:, 2:] * scale, 0, limit)
        sides, at = high - low, (low + high) / 2
        cell = jnp.minimum(jnp.floor(at), limit - 1).astype(jnp.int32)
        radii = gaussians.centernet_radius(jnp.ceil(sides), self.min_overlap)
        heat = gaussians.splat(cell, radii, objects.labels, real, cells, num_classes)
        learnt = ~gaussians.crowded(objects, scale, cells)
        return Centres(heat, at, cell, sides, radii, real, learnt, scale)
