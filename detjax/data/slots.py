"""Batches in memory that processes share: rows are written where they are read.

The memory is a file without a name (`memfd_create`, or a deleted temporary file where
the system has none): it needs no room in /dev/shm, nothing of it is left when processes
are killed, and its pages count as memory of those that wrote them. It holds slots of
one length, each with room for a batch of any bucket. A slot is used again when nothing
refers to the arrays of its last batch: JAX may read from them without a copy for as
long as its own arrays live.
"""

import ctypes
import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax.types import Batch

# Smaller arrays are copied out of their slot: who keeps some numbers of each batch
# shall not keep its images.
LEAST = 1 << 16
_ALIGNED = 64  # bytes; JAX takes arrays that begin so as they are


class Layout(NamedTuple):
    """Where the arrays of a batch lie in a slot."""

    tree: Any
    offsets: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]
    length: int  # bytes


def layout(room: Batch, rows: int) -> Layout:
    """The layout of batches of `rows` rows, like `room` of one row."""
    leaves, tree = jax.tree.flatten(room)
    shapes = tuple((rows, *leaf.shape[1:]) for leaf in leaves)
    sizes = [leaf.nbytes * rows for leaf in leaves]
    padded = [size + -size % _ALIGNED for size in sizes]
    ends = np.cumsum([0, *padded]).tolist()
    dtypes = tuple(leaf.dtype for leaf in leaves)
    return Layout(tree, tuple(ends[:-1]), shapes, dtypes, ends[-1])


def batch_in(buffer: Any, places: Layout) -> Batch:
    """The batch whose arrays lie in `buffer`, without a copy."""
    arrays = [
        np.ndarray(shape, dtype, buffer=buffer, offset=offset)
        for shape, dtype, offset in zip(
            places.shapes, places.dtypes, places.offsets, strict=True
        )
    ]
    return jax.tree.unflatten(places.tree, arrays)


def capacity(layouts: Sequence[Layout]) -> int:
    """The bytes of slots that hold batches of any of `layouts`: whole pages."""
    most = max(places.length for places in layouts)
    return most + -most % mmap.ALLOCATIONGRANULARITY


def memory() -> int:
    """The descriptor of an empty file in memory that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("detjax-batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Mapped:
    """The slots of `fd`, mapped when they are first used; see `capacity`."""

    def __init__(self, fd: int, length: int):
        self._fd, self._length = fd, length
        self._maps: dict[int, mmap.mmap] = {}

    def __getitem__(self, slot: int) -> mmap.mmap:
        if slot not in self._maps:
            start = slot * self._length
            self._maps[slot] = mmap.mmap(self._fd, self._length, offset=start)
        return self._maps[slot]


class Slots:
    """The slots of `layouts`, and which of them are free.

    There are as many as are in use at once. Of those that become free, `kept` keep
    their memory; that of the others goes back to the system.
    """

    def __init__(self, layouts: Sequence[Layout], kept: int):
        self._layouts, self._kept = layouts, kept
        self.length, self.fd = capacity(layouts), memory()
        self._maps = Mapped(self.fd, self.length)
        self._count = 0  # of the slots that the file has room for
        self._free: dict[int, int] = {}  # and the buckets of their last batches
        # Filled by whatever thread drops the last reference.
        self._returned: deque[tuple[int, int]] = deque()
        self._close = weakref.finalize(self, os.close, self.fd)

    def take(self, bucket: int) -> int:
        """A free slot for a batch of `bucket`.

        It holds zeros, or what the last batch of that bucket left.
        """
        while self._returned:
            slot, last = self._returned.popleft()
            self._free[slot] = last
            if slot >= self._kept:
                self._empty(slot)
        if not self._free:
            os.ftruncate(self.fd, (self._count + 1) * self.length)
            self._free[self._count] = bucket
            self._count += 1
        alike = [slot for slot, last in self._free.items() if last == bucket]
        slot = min(alike or self._free)
        if self._free.pop(slot) != bucket:
            self._empty(slot)
        return slot

    def _empty(self, slot: int) -> None:
        """Fills a slot with zeros, if possible by giving its memory back."""
        if hasattr(mmap, "MADV_REMOVE"):
            self._maps[slot].madvise(mmap.MADV_REMOVE)
        else:
            np.frombuffer(self._maps[slot], np.uint8)[:] = 0

    def give(self, slot: int, bucket: int) -> Batch:
        """The batch in a slot, which becomes free when the batch is no longer used."""
        # numpy refers to it, and not, as it does of a memoryview, to what is behind it.
        lease = (ctypes.c_char * self.length).from_buffer(self._maps[slot])
        back = weakref.finalize(lease, self._returned.append, (slot, bucket))
        back.atexit = False
        batch = batch_in(lease, self._layouts[bucket])
        return jax.tree.map(lambda x: x.copy() if x.nbytes < LEAST else x, batch)

    def put_back(self, slot: int, bucket: int) -> None:
        """Makes a slot free that was not given."""
        self._returned.append((slot, bucket))

    def close(self) -> None:
        """Closes the file; batches that are in use stay valid."""
        self._close()
