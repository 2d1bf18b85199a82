"""A step that failed, kept to be looked at: its batch, and the run just before it."""

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax import cluster, files
from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import MissingFileError
from detjax.types import Batch, Model, Objects, Proposals

# The fields of a batch that have fields.
PARTS: dict[str, Any] = {"objects": Objects, "proposals": Proposals}


def save(
    workdir: pathlib.Path,
    step: int,
    run: TrainState,
    batch: Batch,
    names: Sequence[str],
) -> None:
    """Writes `run` and `batch` to `workdir`/failed-<step>, each process its share.

    `names` are what its images are called. What an earlier failure of the same step
    left there goes.
    """
    folder = workdir / f"failed-{step}"
    if cluster.primary() and folder.exists():
        shutil.rmtree(folder)
    cluster.wait("what an earlier failure left is gone")
    folder.mkdir(exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    named = {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves}
    process = jax.process_index()
    np.savez(folder / f"batch-{process}.npz", **named)
    files.write_text(folder / f"batch-{process}.json", json.dumps(list(names)))
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(step, run, {})


class Failed(NamedTuple):
    """A step that failed, as `save` wrote it."""

    step: int
    run: TrainState  # before the step
    batch: Batch  # of all processes
    names: list[str]  # what its images are called


def read(folder: str | pathlib.Path) -> Failed:
    """What `save` wrote to `folder`.

    Raises UserError where it did not, or where something of it is gone.
    """
    folder = pathlib.Path(folder)
    shares = sorted(folder.glob("batch-*.npz"))
    if not shares:
        raise MissingFileError(
            f"there is no batch-0.npz in {folder}; give the failed-<step> folder of a "
            "run whose loss was not finite"
        )
    batch = jax.tree.map(lambda *x: np.concatenate(x), *map(_read_batch, shares))
    names = [
        name for share in shares for name in files.read_json(share.with_suffix(".json"))
    ]
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        step, saved = checkpoints.restore_state()
    return Failed(step, TrainState(**saved), batch, names)


def _read_batch(path: pathlib.Path) -> Batch:
    """One process's share. Raises UserError where the file does not hold one."""
    fields: dict[str, Any] = {}
    data = io.BytesIO(files.read_bytes(path))
    with (
        files.reading(path, "run the failed step again to have it written anew"),
        np.load(data, allow_pickle=False) as held,
    ):
        for name in held.files:
            part, _, leaf = name.rpartition(".")
            (fields.setdefault(part, {}) if part else fields)[leaf] = held[name]
        for name, kind in PARTS.items():
            if name in fields:
                fields[name] = kind(**fields[name])
        return Batch(**fields)


class Finding(NamedTuple):
    """What a step says when it is done again, without changing anything."""

    losses: dict[str, float]  # of the whole batch, the sum as "loss"
    images: list[tuple[str, float]]  # each with its loss, the others not counting
    gradients: list[str]  # names of the parameters whose gradients are not finite
    params: list[str]  # names of the parameters that were not finite before


def replay_step(model: Model, failed: Failed, key: jax.Array) -> Finding:
    """The failed step once more, looked at in parts."""
    run, batch = failed.run, failed.batch

    @jax.jit
    def step(params, batch):
        return jax.value_and_grad(model.loss, has_aux=True)(
            params, run.state, batch, key
        )

    (loss, (_, metrics)), gradients = step(run.params, batch)
    each = []
    for i, name in enumerate(failed.names):
        alone = np.zeros_like(batch.valid)
        alone[i] = batch.valid[i]
        loss_alone = step(run.params, dataclasses.replace(batch, valid=alone))[0][0]
        each.append((name, float(loss_alone)))
    named = {"loss": loss, **metrics}
    return Finding(
        {name: float(value) for name, value in named.items()},
        each,
        not_finite(gradients),
        not_finite(run.params),
    )


def not_finite(tree: Any) -> list[str]:
    """The dotted names of the arrays in which something is not finite."""
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if not bool(jnp.isfinite(x).all())
    ]


def describe(step: int, found: Finding) -> str:
    """`found` in lines for a person."""
    lines = [f"step {step} again:"]
    lines += [f"  {name:16} {value:.6g}" for name, value in found.losses.items()]
    lines += [f"  {value:<16.6g} {name}" for name, value in found.images]
    for names, what in (
        (found.params, "parameters that were not finite before it"),
        (found.gradients, "gradients that are not finite"),
    ):
        shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        lines.append(f"  {what}: {f'{len(names)}: {shown}' if names else 'none'}")
    return "\n".join(lines)
