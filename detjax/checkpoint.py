"""Checkpoints of a run: orbax, asynchronous, atomic, with the loader's position."""

import contextlib
import copy
import pathlib
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import struct


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


@struct.dataclass
class TrainState:
    """All that a run is, but for the loader's position."""

    step: jax.Array  # [] int32: steps taken
    params: Any
    state: Any  # the model's, batch statistics for example
    opt_state: Any
    key: jax.Array  # [2] uint32: the run's key; each step folds its number in


class Checkpoints:
    """The checkpoints in `workdir`/`folder`, of which the newest `keep` stay.

    With `read_only` nothing is made or cleaned up, so that the run that writes them
    may be under way. Raises FileNotFoundError then, where there is no such folder.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        keep: int = 3,
        folder: str = "checkpoints",
        read_only: bool = False,
    ):
        self.directory = pathlib.Path(workdir).absolute() / folder
        if read_only and not self.directory.is_dir():
            raise self._nothing()
        self._worker = futures.ThreadPoolExecutor(max_workers=1)
        self._writing: futures.Future | None = None
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "loader": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                cleanup_tmp_directories=not read_only,
                create=not read_only,
            ),
        )

    def save(self, step: int, state: TrainState, position: Any) -> None:
        """Starts to write `state` and the loader's `position`; returns at once.

        What is written is a copy, made on the device, so that the next step may have
        the state's memory. A step that is there already stays as it is. Raises OSError,
        here or in a later call or `close`, where a checkpoint could not be written.
        """
        self._wait()
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_copy(state)),
            loader=ocp.args.JsonSave(copy.deepcopy(position)),
        )
        if jax.process_count() > 1:
            # Processes meet inside, which they may not do beside a step.
            self._write(step, args)
        else:
            # Orbax opens files and lays out folders before it turns asynchronous,
            # which takes longer than a step of a small network.
            self._writing = self._worker.submit(self._write, step, args)

    def _write(self, step: int, args: ocp.args.Composite) -> None:
        with self._told():
            if step not in self._manager.all_steps():
                self._manager.save(step, args=args)

    def _wait(self) -> None:
        """Waits for the checkpoint that is being written, and raises what it raised."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what goes wrong with writing into one sentence."""
        try:
            yield
        except Exception as error:
            raise OSError(
                f"a checkpoint could not be written to {self.directory} "
                f"({reason(error)}); those that are complete stay: free some space "
                "there and start the same command again"
            ) from error

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None where there is none."""
        return self._manager.latest_step()

    def restore(self, like: TrainState) -> tuple[TrainState, Any]:
        """The newest state and loader position, with the shardings of `like`.

        A checkpoint that cannot be read is told of and set aside, and the one before it
        is taken; the last one stays and raises what is wrong with it. Raises
        FileNotFoundError where there is none, OtherArchitecture with the difference of
        names and shapes where it does not fit.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._restore_one(step, like)
            except (OtherArchitecture, MemoryError):
                raise
            except Exception as error:
                if step == steps[-1]:
                    raise
                self._set_aside(step, error)
        raise self._nothing()

    def _restore_one(self, step: int, like: TrainState) -> tuple[TrainState, Any]:
        check_same(self._manager.item_metadata(step)["state"].tree, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), loader=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["loader"]

    def _set_aside(self, step: int, error: Exception) -> None:
        """Renames a damaged checkpoint, so that nothing is lost, and says so."""
        aside = self.directory.parent / f"damaged-checkpoint-{step}"
        (self.directory / str(step)).rename(aside)
        self._manager.reload()
        print(
            f"warning: checkpoint {step} cannot be read ({reason(error)}); it is now "
            f"{aside}, and the one before it is taken",
            file=sys.stderr,
        )

    def restore_weights(self) -> tuple[int, Any, Any]:
        """The newest step, parameters and model state, on one device.

        Raises FileNotFoundError where there is no checkpoint.
        """
        step, saved = self.restore_state()
        return step, saved["params"], saved["state"] or {}

    def restore_state(self) -> tuple[int, dict[str, Any]]:
        """The newest step and the fields of its `TrainState`, on one device.

        Raises FileNotFoundError where there is no checkpoint, ValueError where it
        cannot be read.
        """
        step = self._latest_or_raise()
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        try:
            like = jax.tree.map(
                lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding),
                self._manager.item_metadata(step)["state"].tree,
            )
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
            )["state"]
        except Exception as error:
            raise ValueError(
                f"checkpoint {step} in {self.directory} cannot be read "
                f"({reason(error)}); train on with the same command, which takes the "
                "one before it, or remove its folder"
            ) from error
        return step, restored

    def _latest_or_raise(self) -> int:
        step = self.latest()
        if step is None:
            raise self._nothing()
        return step

    def _nothing(self) -> FileNotFoundError:
        return FileNotFoundError(
            f"no checkpoint in {self.directory}; train with --workdir="
            f"{self.directory.parent} first"
        )

    def close(self) -> None:
        """Waits for what is being written. Raises OSError where it could not be."""
        try:
            self._wait()
            with self._told():
                self._manager.wait_until_finished()
        finally:
            self._worker.shutdown()
            self._manager.close()


def reason(error: BaseException) -> str:
    """What `error` says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every array by its dotted name."""

    def name(entry):
        return str(getattr(entry, "key", getattr(entry, "name", None) or entry))

    return {
        ".".join(name(p) for p in path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if hasattr(leaf, "shape")
    }


class OtherArchitecture(ValueError):
    """A checkpoint's names or shapes are not the run's."""


def check_same(saved: Any, wanted: TrainState) -> None:
    """Raises OtherArchitecture where names or shapes of `saved` are not `wanted`'s."""
    have, want = (
        {**shapes(params), **shapes(state)}
        for params, state in (
            (saved["params"], saved.get("state")),
            (wanted.params, wanted.state),
        )
    )
    rows = [f"only in the checkpoint: {k} {have[k]}" for k in have.keys() - want]
    rows += [f"only in the model: {k} {want[k]}" for k in want.keys() - have]
    rows += [
        f"{k}: {have[k]} in the checkpoint, {want[k]} in the model"
        for k in have.keys() & want
        if have[k] != want[k]
    ]
    if rows:
        listed = "\n  ".join(sorted(rows)[:20])
        raise OtherArchitecture(
            "the checkpoint is of another architecture; choose another --workdir or "
            f"the config that made it ({len(rows)} differences):\n  {listed}"
        )
    memories = (saved.get("opt_state"), wanted.opt_state)
    # Their names differ before and after writing, their arrays do not.
    have_memory, want_memory = (sorted(shapes(m).values()) for m in memories)
    if have_memory != want_memory:
        raise OtherArchitecture(
            "the checkpoint is of a run with another optimizer; choose another "
            "--workdir, or set train.init_from to take its weights alone"
        )
