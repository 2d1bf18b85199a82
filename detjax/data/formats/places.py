"""Files and folders that a user names: there, and of the right kind."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detjax import files
from detjax.data import lint
from detjax.data.formats import sniff
from detjax.errors import MissingFileError, UserError

# A split that stands for all images, to be divided; no data set has one of this name.
ALL = "all"


def folder(path: str | Path, what: str, reader: str) -> Path:
    """The folder `path`. Raises UserError that says what is there instead.

    `what` says what the folder holds, `reader` is the format it is to be read as.
    """
    path = lint.expanded(path)
    if os.path.isdir(path):
        return path
    if path.exists():
        raise UserError(
            f"{path} is a file, not the folder of {what}{sniff.advice(path, reader)}"
        )
    raise missing(path, f"the folder of {what}")


def no_folder(path: Path, what: str) -> MissingFileError:
    """The error for a folder that is not there, or is a file."""
    if path.exists():
        return MissingFileError(f"no folder {path}: it is a file; give that of {what}")
    return MissingFileError(f"no folder {path}; give that of {what}{files.near(path)}")


def file(path: str | Path, what: str, reader: str) -> Path:
    """The file `path`. Raises UserError that says what is there instead."""
    path = lint.expanded(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not {what}{sniff.advice(path, reader)}")
    if not path.exists():
        raise missing(path, what)
    return path


def missing(path: Path, what: str) -> MissingFileError:
    """The error for a `path` that does not exist, with the nearest name that does."""
    return MissingFileError(f"{path} does not exist: give {what}{files.near(path)}")


def joined(root: Any, path: str | Path) -> Path:
    """`path`, below `root` if there is one and the path is relative."""
    path = lint.expanded(path)
    if root is None or path.is_absolute():
        return path
    inner = lint.expanded(root) / path
    # Paths from the working directory are understood beside a root too.
    return path if not inner.exists() and path.exists() else inner


def splits_of(
    splits: Mapping[str, Any] | None, root: Any, reader: str
) -> dict[str, Path]:
    """The place of each split: `splits`, below `root` if there is one.

    Raises UserError if none is named.
    """
    if not splits:
        raise unnamed(root, reader)
    if root is not None:
        root = lint.expanded(root)
        if not root.exists():
            raise missing(root, "the folder or file of the data set")
    return {split: joined(root, path) for split, path in splits.items()}


def folders(splits: Any, root: Any, what: str, reader: str) -> dict[str, Path]:
    """The folder of each split, which holds `what`; see `splits_of` and `folder`."""
    found = splits_of(splits, root, reader)
    return {split: folder(path, what, reader) for split, path in found.items()}


def unnamed(root: Any, reader: str) -> UserError:
    """The error for splits that nobody named."""
    there = ""
    if root is not None:
        root = lint.expanded(root)
        if not root.exists():
            return missing(root, "the folder or file of the data set")
        there = sniff.advice(root, reader)
    if reader == "coco":
        return UserError(
            "no split is named; give each one's JSON file, --split train=train.json "
            f"val=val.json, or one to divide with --split-by=train:0.8,val:0.2{there}"
        )
    return UserError(
        "no split is named; divide the images with --split-by=train:0.8,val:0.2 "
        "(split_by={'train': 0.8, 'val': 0.2}), or name what each split is with "
        f"--split train=... val=...{there}"
    )
