"""Checkpoints of a run: orbax, asynchronous, atomic, with the loader's position."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import struct


@struct.dataclass
class TrainState:
    """All that a run is, but for the loader's position."""

    step: jax.Array  # [] int32: steps taken
    params: Any
    state: Any  # the model's, batch statistics for example
    opt_state: Any
    key: jax.Array  # [2] uint32: the run's key; each step folds its number in


class Checkpoints:
    """The checkpoints in `workdir`/checkpoints, of which the newest `keep` stay."""

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 3):
        self.directory = pathlib.Path(workdir).absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "loader": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True
            ),
        )

    def save(self, step: int, state: TrainState, position: Any) -> None:
        """Starts to write `state` and the loader's `position`; returns at once."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), loader=ocp.args.JsonSave(position)
            ),
        )

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None where there is none."""
        return self._manager.latest_step()

    def restore(self, like: TrainState) -> tuple[TrainState, Any]:
        """The newest state and loader position, with the shardings of `like`.

        Raises FileNotFoundError where there is no checkpoint, and ValueError with the
        difference of names and shapes where it is of another architecture.
        """
        step = self._latest_or_raise()
        check_same(self._manager.item_metadata(step)["state"].tree, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), loader=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["loader"]

    def restore_weights(self) -> tuple[int, Any, Any]:
        """The newest step, parameters and model state, on one device.

        Raises FileNotFoundError where there is no checkpoint.
        """
        step = self._latest_or_raise()
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding),
            self._manager.item_metadata(step)["state"].tree,
        )
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
        )["state"]
        return step, restored["params"], restored["state"] or {}

    def _latest_or_raise(self) -> int:
        step = self.latest()
        if step is None:
            raise FileNotFoundError(
                f"no checkpoint in {self.directory}; train with --workdir="
                f"{self.directory.parent} first"
            )
        return step

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf by its dotted name."""

    def name(entry):
        return str(getattr(entry, "key", getattr(entry, "name", None) or entry))

    return {
        ".".join(name(p) for p in path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_same(saved: Any, wanted: TrainState) -> None:
    """Raises ValueError with what `saved` lacks, has too much, or shapes otherwise."""
    have, want = shapes(saved["params"]), shapes(wanted.params)
    rows = [f"only in the checkpoint: {k} {have[k]}" for k in have.keys() - want]
    rows += [f"only in the model: {k} {want[k]}" for k in want.keys() - have]
    rows += [
        f"{k}: {have[k]} in the checkpoint, {want[k]} in the model"
        for k in have.keys() & want
        if have[k] != want[k]
    ]
    if rows:
        listed = "\n  ".join(sorted(rows)[:20])
        raise ValueError(
            "the checkpoint is of another architecture; choose another --workdir or "
            f"the config that made it ({len(rows)} differences):\n  {listed}"
        )
