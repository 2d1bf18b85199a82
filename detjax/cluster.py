"""Several processes of one run: how they find each other, and what only one does."""

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


def start(spec: str) -> None:
    """Joins this process to the others of its run; before anything touches a device.

    spec  "auto" where the cluster says who is who (TPU pods, Slurm, Open MPI,
          Kubernetes), else "HOST:PORT,NUMBER_OF_PROCESSES,INDEX", the host being the
          first process's, and INDEX counting from 0.

    Raises ValueError for any other spec, or where no cluster is found.
    """
    if spec == "auto":
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"no cluster was found ({str(error).splitlines()[0]}); say who is who: "
                "--distributed=HOST:PORT,NUMBER_OF_PROCESSES,INDEX"
            ) from None
        return
    found = re.fullmatch(r"([^,]+:\d+),(\d+),(\d+)", spec)
    if not found or int(found[3]) >= int(found[2]):
        raise ValueError(
            f"--distributed={spec} is neither 'auto' nor "
            "HOST:PORT,NUMBER_OF_PROCESSES,INDEX with an index below the number"
        )
    jax.distributed.initialize(found[1], int(found[2]), int(found[3]))


def primary() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def primary_first(make: Callable[[], T]) -> T:
    """`make()`, in the first process alone before the others call it too.

    What it writes is there when they look, on a disk that they share or not.
    """
    made = make() if primary() else None
    wait("primary_first")
    return made if primary() else make()


def wait(name: str) -> None:
    """Waits until every process is here; `name` is the same in all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(rows: list[Any]) -> list[Any]:
    """The rows of every process, those of the first one first; rows are JSON's."""
    if jax.process_count() == 1:
        return rows
    text = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(text)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    each = zip(texts, sizes.ravel(), strict=True)
    return [row for t, n in each for row in json.loads(t[:n].tobytes())]
