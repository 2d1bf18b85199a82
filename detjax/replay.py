"""A step that failed, kept to be looked at: its batch, and the run just before it."""

import contextlib
import dataclasses
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax import cluster
from detjax.checkpoint import Checkpoints, TrainState
from detjax.types import Batch, Model, Objects, Proposals

# The fields of a batch that have fields.
PARTS: dict[str, Any] = {"objects": Objects, "proposals": Proposals}


def save(workdir: pathlib.Path, step: int, run: TrainState, batch: Batch) -> None:
    """Writes `run` and `batch` to `workdir`/failed-<step>, each process its share.

    What an earlier failure of the same step left there goes.
    """
    folder = workdir / f"failed-{step}"
    if cluster.primary() and folder.exists():
        shutil.rmtree(folder)
    cluster.wait("what an earlier failure left is gone")
    folder.mkdir(exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    named = {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves}
    np.savez(folder / f"batch-{jax.process_index()}.npz", **named)
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(step, run, {})


def read(folder: str | pathlib.Path) -> tuple[int, TrainState, Batch]:
    """The number of the failed step, the run before it, and its global batch.

    Raises FileNotFoundError where `folder` is not one that `save` wrote.
    """
    folder = pathlib.Path(folder)
    files = sorted(folder.glob("batch-*.npz"))
    if not files:
        raise FileNotFoundError(
            f"there is no batch-0.npz in {folder}; give the failed-<step> folder of a "
            "run whose loss was not finite"
        )
    shares = []
    for file in files:
        with np.load(file) as held:
            shares.append({name: held[name] for name in held.files})
    fields: dict[str, Any] = {}
    for name in shares[0]:
        whole = np.concatenate([share[name] for share in shares])
        part, _, leaf = name.rpartition(".")
        (fields.setdefault(part, {}) if part else fields)[leaf] = whole
    for name, kind in PARTS.items():
        if name in fields:
            fields[name] = kind(**fields[name])
    checkpoints = Checkpoints(folder, read_only=True)
    step, saved = checkpoints.restore_state()
    checkpoints.close()
    return step, TrainState(**saved), Batch(**fields)


class Finding(NamedTuple):
    """What a step says when it is done again, without changing anything."""

    losses: dict[str, float]  # of the whole batch, the sum as "loss"
    images: dict[int, float]  # the loss of each image, the others not counting
    gradients: list[str]  # names of the parameters whose gradients are not finite
    params: list[str]  # names of the parameters that were not finite before


def again(model: Model, run: TrainState, batch: Batch, key: jax.Array) -> Finding:
    """The step of `run` on `batch`, looked at in parts."""

    @jax.jit
    def step(params, batch):
        return jax.value_and_grad(model.loss, has_aux=True)(
            params, run.state, batch, key
        )

    (loss, (_, metrics)), gradients = step(run.params, batch)
    each = {}
    for i, number in enumerate(batch.ids.tolist()):
        alone = np.zeros_like(batch.valid)
        alone[i] = batch.valid[i]
        each[number] = float(
            step(run.params, dataclasses.replace(batch, valid=alone))[0][0]
        )
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


def told(step: int, found: Finding) -> str:
    """`found` in lines for a person."""
    lines = [f"step {step} again:"]
    lines += [f"  {name:16} {value:.6g}" for name, value in found.losses.items()]
    lines += [f"  image {i:<10} {value:.6g}" for i, value in found.images.items()]
    for names, what in (
        (found.params, "parameters that were not finite before it"),
        (found.gradients, "gradients that are not finite"),
    ):
        shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        lines.append(f"  {what}: {f'{len(names)}: {shown}' if names else 'none'}")
    return "\n".join(lines)
