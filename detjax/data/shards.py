"""ArrayRecord files in a folder that is renamed atomically when complete."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from array_record.python import array_record_module
from tensorflow_datasets.core import naming
from tensorflow_datasets.core import splits as tfds_splits

from detjax import files

# Folders that are being written; nothing reads them.
INCOMPLETE = "incomplete."
SHARD_BYTES = 256 << 20


@contextlib.contextmanager
def incomplete(target: Path) -> Iterator[Path]:
    """A temporary folder, renamed to `target` at the end, or removed on errors."""
    made = not target.parent.exists()
    folder = target.with_name(f"{INCOMPLETE}{secrets.token_hex(4)}")
    try:
        with files.writing(folder):
            folder.mkdir(parents=True)
        yield folder
        with files.writing(target):
            folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):
                target.parent.rmdir()
        raise


def remove_leftovers(target: Path) -> None:
    """Removes leftovers of killed runs beside `target`; the caller holds the lock."""
    for left in target.parent.glob(f"{INCOMPLETE}*"):
        if left.is_dir() and not left.is_symlink():
            with files.writing(left):
                shutil.rmtree(left)


class Shards:
    """The files of a split, each of about `SHARD_BYTES`."""

    def __init__(self, folder: Path, name: str, split: str):
        self._template = naming.ShardedFileTemplate(
            dataset_name=name,
            data_dir=folder,
            split=split,
            filetype_suffix="array_record",
        )
        self._folder, self._split = folder, split
        self._lengths: list[int] = []
        self._bytes = self._room = 0
        self._writer: Any = None

    def add(self, data: bytes) -> None:
        """Writes one example. Raises OSError that names the file."""
        if self._room <= 0:
            self.close()
            with _failing(self._part(len(self._lengths))) as path:
                self._writer = array_record_module.ArrayRecordWriter(
                    os.fspath(path), "group_size:1"
                )
            self._lengths.append(0)
            self._room = SHARD_BYTES
        with _failing(self._part(len(self._lengths) - 1)):
            self._writer.write(data)
        self._lengths[-1] += 1
        self._bytes += len(data)
        self._room -= len(data)

    def close(self) -> None:
        """Closes the current file, if there is one."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with _failing(self._part(len(self._lengths) - 1)):
                writer.close()

    def split_info(self) -> tfds_splits.SplitInfo:
        """The split's tfds metadata; gives its files their final names."""
        count = len(self._lengths)
        for i, length in enumerate(self._lengths):
            part = self._part(i)
            with _failing(part):
                reader = array_record_module.ArrayRecordReader(os.fspath(part))
                if reader.num_records() != length:
                    raise RuntimeError("it is not whole")
                reader.close()
            named = self._template.sharded_filepath(shard_index=i, num_shards=count)
            with files.writing(part):
                part.rename(named)
        return tfds_splits.SplitInfo(
            name=self._split,
            shard_lengths=self._lengths,
            num_bytes=self._bytes,
            filename_template=self._template,
        )

    def _part(self, number: int) -> Path:
        """A shard's name until their number is known."""
        return self._folder / f"{self._split}-{number:05d}.part"


@contextlib.contextmanager
def _failing(path: Path) -> Iterator[Path]:
    """Turns the RuntimeError of a file that cannot be written into an OSError."""
    try:
        yield path
    except RuntimeError as error:
        full = os.strerror(errno.ENOSPC)
        why = full if full in str(error) else str(error).split(";")[0]
        with files.writing(path):
            raise OSError(errno.EIO, why) from error
