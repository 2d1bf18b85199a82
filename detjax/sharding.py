"""The mesh, and the only file that names its axes.

Parameters are replicated and batches are split by image. Losses are sums over the
global batch under jit, so XLA inserts the reductions; nothing else knows of it.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices`, all of them by default, that splits batches."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters and of everything else that each device holds."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose leading axis counts images."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def put(batch: Any, mesh: Mesh) -> Any:
    """`batch` of this process on the mesh's devices, joined to a global one.

    Raises ValueError where the images do not divide among this process's devices.
    """
    local = len(mesh.local_devices)
    count = len(jax.tree.leaves(batch)[0])
    if count % local:
        raise ValueError(
            f"a batch of {count} images does not divide among {local} devices; "
            f"set data.batch_size to a multiple of {len(mesh.devices.flat)}"
        )
    target = by_batch(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(target, np.asarray(x)), batch
    )
