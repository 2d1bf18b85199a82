"""Darknet's .weights files: the parameters of a cfg's layers, one after the other.

A header of three numbers (the format's version) and the images seen so far, then for
each layer that has some: bias, with norm also scale, mean and variance, and weight; of
a connected layer the weight comes before scale, mean and variance. Numbers are float32,
little endian, channels first. Names are those of `models.darknet.net` with torch's
leaves: "0.norm.bias", "0.norm.weight", "0.norm.running_mean", "0.norm.running_var",
"0.weight".
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from detjax import files
from detjax.errors import UserError
from detjax.models.darknet import seen
from detjax.models.darknet.seen import VERSION
from detjax.weights import convert
from detjax.weights.read import finite

_WHOLE = np.dtype("<i4")
_FLOAT = np.dtype("<f4")
_STATISTICS = ("norm.weight", "norm.running_mean", "norm.running_var")
# Of convolutional, connected and local layers, which the number of their kernels' axes
# tells apart, without norm and with it.
_ORDER = {
    (4, False): ("bias", "weight"),
    (4, True): ("norm.bias", *_STATISTICS, "weight"),
    (2, False): ("bias", "weight"),
    (2, True): ("norm.bias", "weight", *_STATISTICS),
    (5, False): ("bias", "weight"),
}


class Header(NamedTuple):
    """The first bytes of a file."""

    version: tuple[int, ...]
    seen: int  # images
    length: int  # bytes

    @property
    def long(self) -> bool:
        """Whether the images seen have eight bytes and not four."""
        major, minor, _ = self.version
        return 10 * major + minor >= 2 and major < 1000 and minor < 1000

    @property
    def transposed(self) -> bool:
        """Whether connected layers' weights are stored [in, out]."""
        major, minor, _ = self.version
        return major > 1000 or minor > 1000


def manifest(params: Any, state: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters by name, in a file's order, as it has them.

    `params` and `state` are arrays or shapes of a `models.darknet.net.Net`, whose
    layers tell by their kernels what they are.
    """
    found = {}
    for index in sorted(params, key=int):
        layer = params[index]
        for leaf in _ORDER[layer["kernel"].ndim, "norm" in layer]:
            name = f"{index}.{leaf}"
            found[name] = _shape(name, params, state)
    return found


def _shape(name: str, params: Any, state: Any) -> tuple[int, ...]:
    index, *inner, leaf = name.split(".")
    ours = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
    at = (state["batch_stats"] if leaf in ("running_mean", "running_var") else params)[
        index
    ]
    for part in inner:
        at = at[part]
    shape = at[ours.get(leaf, "scale" if inner else "kernel")].shape
    if leaf != "weight" or inner:
        return tuple(shape)
    if len(shape) == 4:
        h, w, i, o = shape
        return o, i, h, w
    # A local layer's places lie in front, as in a file.
    return tuple(shape[::-1]) if len(shape) == 2 else tuple(shape)


def header(data: bytes, path: Any = "the file") -> Header:
    """The header of a file. Raises UserError if it is none."""
    if len(data) < 16:
        raise UserError(f"{path} has {len(data)} bytes; it is no file of darknet")
    version = tuple(np.frombuffer(data, _WHOLE, 3).tolist())
    length = 20 if Header(version, 0, 0).long else 16
    if len(data) < length:
        raise UserError(f"{path} is cut off within its header; get it again")
    return Header(version, int.from_bytes(data[12:length], "little"), length)


def read(
    path: str | pathlib.Path, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], Header]:
    """The arrays of a file by name, whose shapes a `manifest` tells.

    A file may end with any layer, as those do that hold the first layers of a network;
    what it does not hold is left out. Raises UserError if it ends within one, or goes
    on behind the last.
    """
    return parsed(files.read_bytes(path), shapes, path)


def parsed(
    data: bytes, shapes: Mapping[str, tuple[int, ...]], path: Any = "the file"
) -> tuple[dict[str, np.ndarray], Header]:
    """`read` of the bytes of a file."""
    known = header(data, path)
    if (len(data) - known.length) % _FLOAT.itemsize:
        raise UserError(f"{path} ends within a number; get it again")
    numbers = np.frombuffer(data, _FLOAT, offset=known.length)
    arrays: dict[str, np.ndarray] = {}
    at = 0
    for name, shape in shapes.items():
        layer = name.partition(".")[0]
        count = int(np.prod(shape))
        if at == len(numbers) and not any(n.startswith(f"{layer}.") for n in arrays):
            break
        if at + count > len(numbers):
            raise UserError(
                f"{path} ends within layer {layer}: it has {len(numbers):,} numbers, "
                f"and {name} ends at number {at + count:,}; is it of another cfg?"
            )
        part = numbers[at : at + count]
        flipped = known.transposed and len(shape) == 2
        arrays[name] = part.reshape(shape[::-1]).T if flipped else part.reshape(shape)
        at += count
    if at < len(numbers):
        raise UserError(
            f"{path} has {len(numbers):,} numbers, and the network takes {at:,}; is it "
            "of another cfg?"
        )
    return arrays, known


def written(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    seen: int = 0,
    version: tuple[int, ...] = VERSION,
) -> bytes:
    """The file of the arrays, which have the names and shapes of a `manifest`.

    `version` is that of the format. Raises UserError if an array is missing or of
    another shape.
    """
    known = Header(version, seen, 0)
    parts = [np.array(version, _WHOLE).tobytes()]
    parts.append(seen.to_bytes(8 if known.long else 4, "little"))
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            had = f"is {arrays[name].shape}" if name in arrays else "is not there"
            raise UserError(f"{name} {had}, the network has {shape}")
        flipped = known.transposed and len(shape) == 2
        value = arrays[name].T if flipped else arrays[name]
        parts.append(np.ascontiguousarray(value, _FLOAT).tobytes())
    return b"".join(parts)


def load(
    path: str | pathlib.Path, params: Any, state: Any
) -> tuple[Any, Any, convert.Report]:
    """`params` and `state` of a network of darknet, filled from a file; and a report.

    Of a file that ends before the last layer the layers behind it stay as they are;
    they have to be arrays, see `whole`. Raises UserError if it does not fit.
    """
    arrays, known = read(path, manifest(params, state))
    late = sorted(set(manifest(params, state)) - arrays.keys())
    allow = "^(" + "|".join(map(re.escape, late)) + ")$" if late else None
    for name, value in arrays.items():
        if not finite(value):
            raise UserError(f"{path}: {name} holds NaN or infinity; get it again")
    params, statistics, report = convert.load(
        arrays, params, seen.without(state), source="darknet", allow=allow
    )
    count = seen.held(known.seen, known.version)
    return params, {**statistics, seen.NAME: count}, report


def whole(path: str | pathlib.Path, params: Any, state: Any) -> bool:
    """Whether a file has all arrays of `params` and `state`, which may be shapes."""
    shapes = manifest(params, state)
    return read(path, shapes)[0].keys() == shapes.keys()


def exported(params: Any, state: Any) -> bytes:
    """The file of a network of darknet; of one that was imported its very bytes."""
    statistics, count = seen.without(state), state[seen.NAME]
    arrays = convert.export(params, statistics, source="darknet")
    version = tuple(int(x) for x in np.asarray(count["version"]))
    shapes = manifest(params, statistics)
    return written(arrays, shapes, seen.exact(count), version)
