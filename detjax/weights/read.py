"""Safe reading of weight files: arrays by name.

No code in a file is executed: of torch's arrays and plain containers are read only, and
a safetensors file holds nothing else.
"""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from detjax import files
from detjax.errors import UserError, reason

# The data types of weights in safetensors files.
TYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.dtype(jnp.bfloat16),
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# The keys under which training programs keep a model's state dict.
WRAPPERS = ("state_dict", "model")


def state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors, .pth or .pt file by name; bfloat16 as float32.

    None of them needs torch. Raises UserError that names the file, and the array, if it
    has other content.
    """
    data = files.read_bytes(path)
    if pathlib.Path(path).suffix.lower() == ".safetensors":
        return _of_safetensors(path, data)
    return _of_torch(path, data)


def _of_safetensors(path, data: bytes) -> dict[str, np.ndarray]:
    import safetensors

    try:
        held = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is no safetensors file ({reason(error)}); get it again"
        ) from None
    arrays = {}
    for name, described in held:
        kind = TYPES.get(described["dtype"])
        if kind is None:
            raise UserError(
                f"{path}: {shown(name)} is of type {described['dtype']}; save it as "
                "float32"
            )
        array = np.frombuffer(described["data"], kind).reshape(described["shape"])
        arrays[name] = (
            array.astype(np.float32) if described["dtype"] == "BF16" else array
        )
    return _some(path, arrays)


def _of_torch(path, data: bytes) -> dict[str, np.ndarray]:
    from detjax.weights import torch_file

    try:
        file = torch_file.load(data)
    except torch_file.NotAllowed as error:
        raise UserError(
            f"{path} is no torch file of weights: it holds {error} beside arrays, "
            "which may be code and is not run; save the state dict alone"
        ) from None
    except Exception as error:
        # Unpickling an arbitrary file can raise any exception.
        said = reason(error) if str(error).strip() else "it is empty or cut off"
        raise UserError(f"{path} is no torch file of weights: {said}") from None
    held = file.held
    for wrapper in WRAPPERS:
        if isinstance(held, Mapping) and wrapper in held:
            held = _mapping(held[wrapper], f"{path}: its {wrapper!r}")
    held = _mapping(held, path)
    arrays = {}
    for name, value in held.items():
        if not isinstance(value, torch_file.Tensor | torch_file.Other):
            continue
        if not isinstance(name, str):
            raise UserError(
                f"{path} names an array {shown(repr(name))}, which is not text; save a "
                "state dict"
            )
        arrays[name] = _array(value, file.storages, f"{path}: {shown(name)}", len(data))
    return _some(path, arrays)


def _mapping(held: Any, whose: Any) -> Mapping:
    """`held` if it is a dict. Raises UserError."""
    if isinstance(held, Mapping):
        return held
    raise UserError(
        f"{whose} holds a {type(held).__name__}, not a state dict; save what "
        "model.state_dict() returns"
    )


def _array(value: Any, storages: Any, whose: str, most: int) -> np.ndarray:
    """A tensor of a torch file as an array, of no more bytes than the file's `most`.

    A view of one number can claim any size. Raises UserError.
    """
    from detjax.weights import torch_file

    advice = "; save dense arrays of float32"
    if isinstance(value, torch_file.Other):
        raise UserError(f"{whose} is {value.kind}{advice}")
    if np.dtype(value.storage.kind).kind == "c":
        raise UserError(f"{whose} is a complex array, or has no values{advice}")
    if value.nbytes > most:
        raise UserError(
            f"{whose} has shape {value.shape}, more than the file holds{advice}"
        )
    try:
        return torch_file.array(value, storages)
    except Exception as error:
        # A damaged archive can raise any exception.
        raise UserError(f"{whose} cannot be read ({reason(error)}){advice}") from None


def _some(path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`arrays` if there are any. Raises UserError."""
    if not arrays:
        raise UserError(f"{path} holds no arrays by name; save a state dict")
    return arrays


def shown(name: str, most: int = 120) -> str:
    """`name` in printable form, on one line."""
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def finite(array: np.ndarray, kind: Any = np.float32) -> bool:
    """Whether all values of `array` are finite in the type `kind`."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.astype(kind)).all())


def matches(allow: str | None, name: str) -> Callable[[str], bool]:
    """A predicate: whether the regular expression `allow` matches in a text.

    None matches nowhere. Raises UserError, which names `name`, if it does not compile.
    """
    if allow is None:
        return lambda _: False
    try:
        compiled = re.compile(allow)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(
            f"{name}={allow} is no regular expression ({reason(error)}); dots are "
            r"written \., alternatives a|b"
        ) from None
    return lambda text: compiled.search(text) is not None
