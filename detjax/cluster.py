"""Multi-process runs: initialisation, barriers and work of the first process."""

import contextlib
import itertools
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from detjax.errors import UserError

T = TypeVar("T")

# Timeout in milliseconds for a process that prepares data. One that dies is noticed
# long before.
PATIENCE = 7 * 24 * 3600 * 1000
# XLA's messages, in errors of several types, when the peer process is gone.
GONE = re.compile(
    "(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|"
    "FAILED_PRECONDITION): .*([Gg]loo|NCCL|[Cc]onnection|[Cc]oordination|[Hh]eartbeat)"
)
PIECE = 1 << 25  # bytes that every process sends at once
# Seconds between polls for the error of another process, and its key.
LISTEN = 1.0
ENDED = "detjax/ended"
STOPPED = "another process has stopped"
_turns = itertools.count()
_leaving = threading.Lock()


def start(spec: str) -> None:
    """Joins this process to the others of its run; call before any use of devices.

    spec  "auto" where JAX detects the cluster (TPU pods, Slurm, Open MPI,
          Kubernetes), else "HOST:PORT,NUMBER_OF_PROCESSES,INDEX", the host being the
          first process's, and INDEX counting from 0.

    Raises UserError for any other spec, or if no cluster is found.
    """
    if spec == "auto":
        try:
            jax.distributed.initialize()
            listen()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"no cluster was found ({str(error).splitlines()[0]}); say who is who: "
                "--distributed=HOST:PORT,NUMBER_OF_PROCESSES,INDEX"
            ) from None
        return
    found = re.fullmatch(r"([^,]+:\d+),(\d+),(\d+)", spec)
    if not found or int(found[3]) >= int(found[2]):
        raise UserError(
            f"--distributed={spec} is neither 'auto' nor "
            "HOST:PORT,NUMBER_OF_PROCESSES,INDEX with an index below the number"
        )
    jax.distributed.initialize(found[1], int(found[2]), int(found[3]))
    listen()


def listen() -> None:
    """From now on ends this process when another one of the run fails.

    By default processes wait for minutes for one that is gone.
    """

    def look():
        while client := distributed.global_state.client:  # none once this one exits
            text = heard(client)
            time.sleep(LISTEN)
            if text:  # and this one has not failed too meanwhile
                leave(text)

    threading.Thread(target=look, daemon=True).start()


def heard(client: Any) -> str | None:
    """The message of the process that failed, None if none has."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        return client.key_value_try_get(ENDED)
    return None


def several() -> bool:
    """Whether this process has joined others; does not touch devices."""
    return (
        jax.distributed.is_initialized() and distributed.global_state.num_processes > 1
    )


def leave(sentence: str) -> NoReturn:
    """Ends this process at once with status 1, and the others with its message.

    A regular exit would wait for the others, which wait for this one.
    """
    _leaving.acquire()  # two threads may notice; only one reports
    print(f"error: {sentence}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    told = sentence if sentence.startswith(STOPPED) else f"{STOPPED}: {sentence}"
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one was first
        distributed.global_state.client.key_value_set(ENDED, told)
    if distributed.global_state.process_id == 0:
        # The coordinator holds the message; without it the others end with a stack
        # trace.
        time.sleep(3 * LISTEN)
    os._exit(1)


def lost(error: BaseException) -> str | None:
    """A message if `error` was caused by another process that ended, else None."""
    if not several() or not GONE.match(str(error)):
        return None
    return heard(distributed.global_state.client) or (
        f"{STOPPED} ({str(error).splitlines()[0][:200]}); see what "
        "it said, and start all of them again: the run goes on from its checkpoint"
    )


def primary() -> bool:
    """Whether this is the first process, which writes shared files."""
    return jax.process_index() == 0


def primary_first(make: Callable[[], T]) -> T:
    """`make()`, called by the first process alone, then by the others.

    Its files exist when the others run, on a shared disk or not. All return when the
    last one is done, which may take hours.
    """
    if jax.process_count() == 1:
        return make()
    # A barrier of devices times out after seconds; the coordinator's timeout can be
    # set.
    client = distributed.global_state.client
    turn = f"detjax/primary_first/{next(_turns)}"
    if not primary():
        client.blocking_key_value_get(turn, PATIENCE)
    made = make()
    if primary():
        client.key_value_set(turn, "done")
    client.wait_at_barrier(f"{turn}/all", PATIENCE)
    return made


def wait(name: str) -> None:
    """Barrier of all processes; `name` is the same in all of them."""
    if several():
        client = distributed.global_state.client
        client.wait_at_barrier(f"detjax/{name}/{next(_turns)}", PATIENCE)


def gather(rows: list[Any]) -> list[Any]:
    """The JSON rows of every process, concatenated by process index."""
    if jax.process_count() == 1:
        return rows
    text = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(text)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    each = zip(texts, sizes.ravel(), strict=True)
    return [row for t, n in each for row in json.loads(t[:n].tobytes())]


def gather_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns [n ...] by name of every process, concatenated by process index.

    A process may lack columns that others have. Raises ValueError where those of one
    name differ in more than their rows.
    """
    if jax.process_count() == 1:
        return columns
    mine = [[name, x.dtype.str, list(x.shape)] for name, x in sorted(columns.items())]
    everybody: list[dict[str, tuple[str, list[int]]]] = []
    for process, held in gather([[jax.process_index(), mine]]):
        assert process == len(everybody)
        everybody.append({name: (kind, shape) for name, kind, shape in held})
    found = {}
    for name in sorted(set().union(*everybody)):
        kinds = {
            (held[name][0], *held[name][1][1:]) for held in everybody if name in held
        }
        if len(kinds) > 1:
            raise ValueError(f"processes have columns {name!r} of {sorted(kinds)}")
        kind, shape = next(held[name] for held in everybody if name in held)
        here = columns.get(name, np.zeros((0, *shape[1:]), kind))
        rows = [held[name][1][0] if name in held else 0 for held in everybody]
        found[name] = _joined(here, rows)
    return found


def _joined(here: np.ndarray, rows: list[int]) -> np.ndarray:
    """The column of all processes, of which each has so many `rows`.

    As bytes, since devices have no float64; in pieces, which are all that is on them.
    """
    width = here.dtype.itemsize * math.prod(here.shape[1:])
    text = np.ascontiguousarray(here).reshape(-1).view(np.uint8)
    total = np.empty((sum(rows), *here.shape[1:]), here.dtype)
    parts = np.split(total.reshape(-1).view(np.uint8), np.cumsum(rows)[:-1] * width)
    for lo in range(0, max(rows) * width, PIECE):
        size = min(PIECE, max(rows) * width - lo)
        piece = np.zeros(size, np.uint8)
        mine = text[lo : lo + size]
        piece[: len(mine)] = mine
        for part, its in zip(
            parts, multihost_utils.process_allgather(piece), strict=True
        ):
            part[lo : lo + size] = its[: max(0, len(part) - lo)]
    return total
