"""Checks of a checkpoint: file checksums, array names and shapes."""

import hashlib
import pathlib
from typing import Any

import jax

from detjax import files
from detjax.errors import UserError

# The checksums of a checkpoint's files, by their path in it.
CHECKSUMS = "checksums.json"


def checksums(folder: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of every file in `folder`, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found


def check_whole(folder: pathlib.Path) -> None:
    """Raises UserError if files of a checkpoint do not match their checksums.

    A checkpoint whose process was killed before writing checksums is accepted.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return
    written = files.read_object(path)
    found = checksums(folder)
    other = sorted(name for name in written if found.get(name) != written[name])
    if other:
        what = "gone" if other[0] not in found else "not what was written"
        raise UserError(f"{folder / other[0]} is {what}")


def places(tree: Any) -> dict[str, tuple[int, ...] | None]:
    """Array shapes by dotted name; None for a subtree without arrays."""

    def name(entry):
        return str(getattr(entry, "key", getattr(entry, "name", None) or entry))

    found = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda part: not jax.tree.leaves(part)
    )
    return {
        ".".join(name(p) for p in path): tuple(x.shape) if hasattr(x, "shape") else None
        for path, x in found
    }


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every array by its dotted name."""
    return {name: shape for name, shape in places(tree).items() if shape is not None}


class OtherArchitecture(UserError):
    """A checkpoint's names or shapes are not the run's."""


def check_same(saved: Any, wanted: Any) -> None:
    """Raises OtherArchitecture if names or shapes of `saved` are not `wanted`'s."""
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
    # Subtrees without arrays count too: gradient clipping adds only such a one.
    if places(saved.get("opt_state")) != places(wanted.opt_state):
        raise OtherArchitecture(
            "the checkpoint is of a run with another optimizer, or one with other "
            "settings (clip_norm and freeze count); choose another --workdir, or set "
            "train.init_from to take its weights alone"
        )
