"""Checkpoints of a run: orbax, asynchronous, atomic, with the loader's position."""

import contextlib
import copy
import errno
import json
import pathlib
import re
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from detjax import cluster, files
from detjax.errors import MissingFileError, UserError, reason
from detjax.integrity import (
    CHECKSUMS,
    OtherArchitecture,
    check_same,
    check_whole,
    checksums,
)

# Messages, in errors without an errno, that indicate a fault of the machine.
MACHINE = re.compile(
    "RESOURCE_EXHAUSTED|PERMISSION_DENIED|out of memory|Permission denied|"
    "Input/output error|Too many open files",
    re.IGNORECASE,
)


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


@struct.dataclass
class TrainState:
    """The complete state of a run, except the loader's position."""

    step: jax.Array  # [] int32: steps taken
    params: Any
    state: Any  # of the model, such as batch statistics
    opt_state: Any
    key: jax.Array  # [2] uint32: the run's key; each step folds in its number


class Checkpoints:
    """The checkpoints in `workdir`/`folder`; keeps the newest `keep`, or all.

    With `read_only` nothing is created or cleaned up, so that the run that writes them
    may be active; a missing folder is then a MissingFileError.
    """

    # Orbax numbers saves with one counter for all managers of a process, which two
    # concurrent saves confuse: each then waits for signals of the other.
    _one_at_a_time = threading.Lock()
    _saving: ClassVar["Checkpoints | None"] = None  # among several processes

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        keep: int | None = 3,
        folder: str = "checkpoints",
        read_only: bool = False,
    ):
        # Not at the top: a slow import that many users of this file do not need.
        import orbax.checkpoint as ocp

        self._orbax = ocp
        self.directory = pathlib.Path(workdir).absolute() / folder
        if read_only and not self.directory.is_dir():
            raise self._nothing()
        self._read_only = read_only
        self._unsealed: set[int] = set()  # written steps whose checksums are pending
        self._worker = futures.ThreadPoolExecutor(max_workers=1)
        self._writing: futures.Future | None = None
        self._state = ocp.StandardCheckpointHandler()
        self._loader = ocp.JsonCheckpointHandler()
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={"state": self._state, "loader": self._loader},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                cleanup_tmp_directories=not read_only,
                create=not read_only,
            ),
        )

    def save(self, step: int, state: TrainState, position: Any) -> None:
        """Starts writing `state` and the loader's `position`; returns at once.

        Writes a copy made on the device, so that the next step may donate the state's
        buffers. An existing step is left unchanged. Raises OSError, here, in a later
        call or in `close`, if a checkpoint could not be written.
        """
        ocp = self._orbax
        self._wait()
        if jax.process_count() > 1:
            with self._told():
                (Checkpoints._saving or self)._seal()
            Checkpoints._saving = self
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_copy(state)),
            loader=ocp.args.JsonSave(copy.deepcopy(position)),
        )
        if jax.process_count() > 1:
            # Processes synchronise inside, which must not overlap with a step.
            self._write(step, args)
        else:
            # Orbax opens files and creates folders before it turns asynchronous, which
            # takes longer than a step of a small network.
            self._writing = self._worker.submit(self._write, step, args)

    def _write(self, step: int, args: Any) -> None:
        with self._told(), self._one_at_a_time:
            if step not in self._manager.all_steps():
                # By default orbax skips a step below the newest one.
                self._manager.save(step, args=args, force=True)
                self._unsealed.add(step)
            if jax.process_count() == 1:
                self._seal()

    def _seal(self) -> None:
        """Adds checksums to the checkpoints written by this process.

        Not to those of another, killed process: their content is unverified.
        """
        self._manager.wait_until_finished()
        for step in self._unsealed if cluster.primary() else ():
            folder = self.directory / str(step)
            if folder.is_dir():  # and not already deleted
                files.write_text(folder / CHECKSUMS, json.dumps(checksums(folder)))
        self._unsealed.clear()

    def _wait(self) -> None:
        """Waits for the checkpoint being written, and raises its errors."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns errors of writing into one message."""
        try:
            yield
        except Exception as error:
            raise OSError(
                f"a checkpoint could not be written to {self.directory} "
                f"({reason(error)}); those that are complete stay: free some space "
                "there and start the same command again"
            ) from error

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def delete(self, step: int) -> None:
        """Removes the checkpoint of `step`."""
        self._manager.delete(step)

    def position(self, step: int) -> Any:
        """The loader's position saved with the state of `step`.

        Raises UserError if it cannot be read.
        """
        folder = self.directory / str(step) / "loader"
        with files.reading(folder):
            return self._loader.restore(folder, args=self._orbax.args.JsonRestore())

    def restore(self, like: TrainState) -> tuple[TrainState, Any]:
        """The newest state and loader position, with the shardings of `like`.

        Unreadable checkpoints are reported and renamed once every process has read an
        earlier one; if there is none, all stay as they are. Raises MissingFileError if
        there are no checkpoints, UserError if none is readable, OtherArchitecture with
        the difference of names and shapes if it does not fit, OSError if the machine is
        at fault and not the checkpoint.
        """
        damaged: dict[int, str] = {}
        for step in self.steps():
            found, wrong = self._attempt(step, like)
            if wrong is None:
                if damaged:
                    self._set_aside(damaged)
                return found
            damaged[step] = wrong
        if damaged:
            told = "; ".join(f"{step}: {wrong}" for step, wrong in damaged.items())
            raise UserError(
                f"no checkpoint in {self.directory} can be read ({told}); put a copy "
                "of one back, or remove that folder to begin anew"
            )
        raise self._nothing()

    def _attempt(self, step: int, like: TrainState) -> tuple[Any, str | None]:
        """The content of `step`, and its problem in any process."""
        found, error = None, None
        # The handlers are called directly: orbax's manager has a barrier, which a
        # process that failed to read would never reach.
        folder = self.directory / str(step) / "state"
        try:
            check_whole(self.directory / str(step))
            check_same(self._state.metadata(folder).tree, like)
            args = self._orbax.args.StandardRestore(like)
            state = self._state.restore(folder, args=args)
            found = state, self.position(step)
        except Exception as raised:
            error = raised
        said = cluster.gather([[is_damage(error), reason(error)]] if error else [])
        if isinstance(error, OtherArchitecture):
            raise error
        for damage, why in said:
            if not damage:
                raise OSError(
                    f"checkpoint {step} in {self.directory} cannot be read ({why}); "
                    "all checkpoints stay: see to that and start the same command again"
                ) from error
        return found, said[0][1] if said else None

    def _set_aside(self, damaged: dict[int, str]) -> None:
        """Renames damaged checkpoints, so that nothing is lost, and reports it."""
        if cluster.primary():
            for step, wrong in damaged.items():
                aside = files.unused(
                    self.directory.parent / f"damaged-checkpoint-{step}"
                )
                (self.directory / str(step)).rename(aside)
                print(
                    f"warning: checkpoint {step} cannot be read ({wrong}); it is now "
                    f"{aside}, and the one before it is taken",
                    file=sys.stderr,
                )
        cluster.wait("damaged checkpoints are set aside")
        self._manager.reload()

    def restore_weights(self) -> tuple[int, Any, Any]:
        """The newest step, parameters and model state, on one device."""
        step, saved = self.restore_state()
        return step, saved["params"], saved["state"] or {}

    def restore_state(self) -> tuple[int, dict[str, Any]]:
        """The newest step and the fields of its `TrainState`, on one device.

        Raises MissingFileError if there is no checkpoint, ValueError if it cannot be
        read.
        """
        step = self._latest_or_raise()
        folder = self.directory / str(step) / "state"
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        try:
            check_whole(folder.parent)
            like = jax.tree.map(
                lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding),
                self._state.metadata(folder).tree,
            )
            args = self._orbax.args.StandardRestore(like)
            restored = self._state.restore(folder, args=args)
        except Exception as error:
            advice = "see to that and start the same command again"
            if is_damage(error):
                advice = (
                    "where a run wrote it, train on with the same command, which takes "
                    "the one before it; else get it again"
                )
            raise UserError(
                f"checkpoint {step} in {self.directory} cannot be read "
                f"({reason(error)}); {advice}"
            ) from error
        return step, restored

    def _latest_or_raise(self) -> int:
        step = self.latest()
        if step is None:
            raise self._nothing()
        return step

    def _nothing(self) -> MissingFileError:
        return MissingFileError(
            f"no checkpoint in {self.directory}; train with --workdir="
            f"{self.directory.parent} first"
        )

    def wait(self) -> None:
        """Waits for pending writes. Raises OSError if they failed."""
        self._wait()
        with self._told():
            self._manager.wait_until_finished()
            if not self._read_only:
                self._seal()

    def close(self) -> None:
        """Like `finish`; nothing can be saved after it."""
        try:
            self.wait()
        finally:
            if Checkpoints._saving is self:
                Checkpoints._saving = None
            self._worker.shutdown()
            # It raises errors of writing once more.
            with self._told():
                self._manager.close()


def is_damage(error: BaseException) -> bool:
    """Whether reading failed because of the files and not the machine."""
    if isinstance(error, OtherArchitecture | MemoryError) or MACHINE.search(str(error)):
        return False
    missing = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    return not isinstance(error, OSError) or error.errno in missing
