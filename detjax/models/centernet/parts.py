"""What the parts of CenterNet share: numbers read at cells, and their errors."""

import jax.numpy as jnp

from detjax.types import Array

# The losses of one image by name: what is summed, and by how much a batch's sum is
# divided.
Sums = dict[str, tuple[Array, Array]]


def at_cells(values: Array, cell: Array) -> Array:
    """Those of a map [mh mw ...] at cells [... 2] (x, y)."""
    return values[cell[..., 1], cell[..., 0]]


def error(
    found: Array, wanted: Array, counts: Array, weight: float
) -> tuple[Array, Array]:
    """The L1 distances of the elements that count, and their number: `Sums`."""
    apart = jnp.abs(found.astype(jnp.float32) - wanted)
    return weight * jnp.sum(jnp.where(counts, apart, 0.0)), jnp.sum(counts)
