"""Files of torch.save, read without torch.

Both forms: a zip archive (since torch 1.6) and the one before, pickles in sequence with
the storages' bytes behind. Nothing in a file is executed: its pickle may name the
containers, types and constructors of arrays listed here, and nothing else.
"""

import collections
import functools
import io
import operator
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.dtype(jnp.bfloat16),
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
# Constructors of arrays that are not dense.
OTHER = {
    "_rebuild_sparse_tensor": "a sparse or quantised array",
    "_rebuild_sparse_csr_tensor": "a sparse or quantised array",
    "_rebuild_qtensor": "a sparse or quantised array",
    "_rebuild_meta_tensor_no_storage": "a complex array, or has no values",
}


class NotAllowed(Exception):
    """The pickle names something that may be code; the message is its name."""


class Other(NamedTuple):
    """An array that is not dense, or has no values here; `kind` says what it is."""

    kind: str


class Storage(NamedTuple):
    """The numbers that tensors are views of: so many of `kind` from `start` on."""

    key: str
    kind: Any
    start: int
    numbers: int


class Tensor(NamedTuple):
    """A view of a storage; sizes in its numbers, unchecked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of a copy, which a view of one number can make any number."""
        count = functools.reduce(operator.mul, self.shape, 1)
        return count * np.dtype(self.storage.kind).itemsize


class File(NamedTuple):
    """The content of a file: containers of `Tensor`, and the bytes of storages."""

    held: Any
    storages: Mapping[str, Callable[[], bytes]]  # by key


class _Type(NamedTuple):
    """A storage's class, as persistent ids name it."""

    kind: Any


def load(data: bytes) -> File:
    """The content of a file that torch.save wrote.

    Raises NotAllowed, and any exception of reading for a file that is damaged.
    """
    return _zipped(data) if data[:2] == b"PK" else _in_sequence(data)


def array(tensor: Tensor, storages: Mapping[str, Callable[[], bytes]]) -> np.ndarray:
    """The values of `tensor`, whose size the caller has checked; bfloat16 as float32.

    Raises ValueError where they are not in the storage.
    """
    storage = tensor.storage
    kind = np.dtype(storage.kind)
    first = storage.start + tensor.offset
    last = first + sum(
        (n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)
    )
    held = np.frombuffer(storages[storage.key](), kind)
    if min((*tensor.shape, *tensor.strides, first), default=0) < 0 or (
        all(tensor.shape) and last >= min(len(held), first + storage.numbers)
    ):
        raise ValueError("its values are not in the file")
    strides = tuple(s * kind.itemsize for s in tensor.strides)
    found = np.lib.stride_tricks.as_strided(held[first:], tensor.shape, strides)
    return found.astype(np.float32) if kind == jnp.bfloat16 else found


class _Unpickler(pickle.Unpickler):
    """Unpickles containers and tensors; raises NotAllowed for all else."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.kinds: dict[str, np.dtype] = {}  # of the storages met, by key

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in STORAGES:
            return _Type(STORAGES[name])
        if module == "torch" and name == "Size":
            return tuple
        if module == "torch._utils" and name in REBUILD:
            return REBUILD[name]
        if module == "torch._utils" and name in OTHER:
            return lambda *_: Other(OTHER[name])
        if module == "torch.serialization" and name == "_get_layout":
            return str
        if module == "torch" and name in ("device", "dtype"):
            return lambda *said: said
        # Data types and layouts are attributes of torch.
        if module == "torch" and name.islower() and name.isalnum():
            return name
        raise NotAllowed(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        said, kind, key, _, count, *view = pid
        if said not in ("storage", b"storage") or not isinstance(kind, _Type):
            raise pickle.UnpicklingError("a storage is not described as torch does it")
        start = 0
        if view and view[0] is not None:
            _, start, count = view[0]
        self.kinds[str(key)] = np.dtype(kind.kind)
        return Storage(str(key), kind.kind, int(start), int(count))


def _tensor(storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
    whole = tuple(int(n) for n in shape), tuple(int(n) for n in strides)
    return Tensor(storage, int(offset), *whole)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


REBUILD: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
}


def _zipped(data: bytes) -> File:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    pickled = next(name for name in names if name.endswith("data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != (
        b"little"
    ):
        raise pickle.UnpicklingError("its numbers are big-endian; save it anew")
    held = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    start = f"{folder}data/"

    def reader(name: str) -> Callable[[], bytes]:
        # torch stores without compression: nothing in it is larger than the file.
        if archive.getinfo(name).file_size > len(data):
            raise pickle.UnpicklingError(f"{name} is compressed; save it anew")
        return lambda: archive.read(name)

    found = {
        name.removeprefix(start): reader(name)
        for name in names
        if name.startswith(start)
    }
    return File(held, found)


def _in_sequence(data: bytes) -> File:
    file = io.BytesIO(data)
    if _Unpickler(file).load() != MAGIC:
        raise pickle.UnpicklingError("it has not the beginning of one")
    version, system = _Unpickler(file).load(), _Unpickler(file).load()
    if version != PROTOCOL or not system.get("little_endian", True):
        raise pickle.UnpicklingError("it is of another version; save it anew")
    unpickler = _Unpickler(file)
    held = unpickler.load()
    found: dict[str, Any] = {}
    for key in map(str, _Unpickler(file).load()):
        count = int.from_bytes(file.read(8), "little")
        start, size = file.tell(), count * unpickler.kinds[key].itemsize
        if start + size > len(data):
            raise EOFError("it is cut off")
        file.seek(size, io.SEEK_CUR)
        found[key] = functools.partial(data.__getitem__, slice(start, start + size))
    return File(held, found)
