"""A failed step, saved for debugging: its batch, and the run just before it."""

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
from flax import traverse_util

from detjax import cluster, files
from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import MissingFileError
from detjax.types import Batch, Inputs, Model, Proposals, View

# The struct fields of a batch, except the task's target.
PARTS: dict[str, Any] = {"inputs": Inputs, "view": View, "proposals": Proposals}


def save(
    workdir: pathlib.Path,
    step: int,
    run: TrainState,
    batch: Batch,
    names: Sequence[str],
) -> None:
    """Writes `run` and `batch` to `workdir`/failed-<step>; each process its share.

    `names` are the names of its images. Replaces an earlier failure of the same step.
    """
    folder = workdir / f"failed-{step}"
    if cluster.primary() and folder.exists():
        shutil.rmtree(folder)
    cluster.wait("what an earlier failure left is gone")
    folder.mkdir(exist_ok=True)
    process = jax.process_index()
    np.savez(folder / f"batch-{process}.npz", **flatten(batch))
    files.write_text(folder / f"batch-{process}.json", json.dumps(list(names)))
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(step, run, {})


class Failed(NamedTuple):
    """A failed step, as `save` wrote it."""

    step: int
    run: TrainState  # before the step
    batch: Batch  # of all processes
    names: list[str]  # the names of its images


def shares(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The files of a batch in `folder`, one per process. Raises UserError for none."""
    found = sorted(pathlib.Path(folder).glob("batch-*.npz"))
    if not found:
        raise MissingFileError(
            f"there is no batch-0.npz in {folder}; give the failed-<step> folder of a "
            "run whose loss was not finite"
        )
    return found


def read(folder: str | pathlib.Path, target: type) -> Failed:
    """What `save` wrote to `folder`, of batches whose targets are of the type `target`.

    Raises UserError if `save` did not write it, or if a part of it is missing.
    """
    folder, paths = pathlib.Path(folder), shares(folder)
    batch = jax.tree.map(
        lambda *x: np.concatenate(x), *(_read_batch(path, target) for path in paths)
    )
    names = [
        name for share in paths for name in files.read_json(share.with_suffix(".json"))
    ]
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        step, saved = checkpoints.restore_state()
    return Failed(step, TrainState(**saved), batch, names)


def flatten(batch: Batch) -> dict[str, Any]:
    """The arrays of a batch by dotted name: 'inputs.view.valid'."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves}


def _read_batch(path: pathlib.Path, target: type) -> Batch:
    """One process's share. Raises UserError if the file does not hold one."""
    data = io.BytesIO(files.read_bytes(path))
    with (
        files.reading(path, "run the failed step again to have it written anew"),
        np.load(data, allow_pickle=False) as held,
    ):
        return _struct(Batch, traverse_util.unflatten_dict(dict(held), sep="."), target)


def _struct(kind: type, fields: dict[str, Any], target: type) -> Any:
    """A struct of the fields' arrays, with nested structs of the types in `PARTS`."""
    kinds = {**PARTS, "target": target}
    return kind(
        **{
            name: _struct(kinds[name], value, target) if name in kinds else value
            for name, value in fields.items()
        }
    )


class Finding(NamedTuple):
    """The diagnostics of a replayed step."""

    losses: dict[str, float]  # of the whole batch, the sum as "loss"
    images: list[tuple[str, float]]  # each with its own loss, without the others
    gradients: list[str]  # names of the parameters whose gradients are not finite
    params: list[str]  # names of the parameters that were not finite before


def replay_step(model: Model, failed: Failed, key: jax.Array) -> Finding:
    """Replays a failed step, image by image and parameter by parameter."""
    run, batch = failed.run, failed.batch

    @jax.jit
    def step(params, batch):
        return jax.value_and_grad(model.loss, has_aux=True)(
            params, run.state, batch, key
        )

    (loss, (_, metrics)), gradients = step(run.params, batch)
    each = []
    for i, name in enumerate(failed.names):
        alone = np.zeros_like(batch.inputs.view.valid)
        alone[i] = batch.inputs.view.valid[i]
        view = dataclasses.replace(batch.inputs.view, valid=alone)
        inputs = dataclasses.replace(batch.inputs, view=view)
        loss_alone = step(run.params, dataclasses.replace(batch, inputs=inputs))[0][0]
        each.append((name, float(loss_alone)))
    named = {"loss": loss, **metrics}
    return Finding(
        {name: float(value) for name, value in named.items()},
        each,
        not_finite(gradients),
        not_finite(run.params),
    )


def not_finite(tree: Any) -> list[str]:
    """The dotted names of the arrays with non-finite values."""
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if not bool(jnp.isfinite(x).all())
    ]


def describe(step: int, found: Finding) -> str:
    """`found` as readable lines."""
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
