"""The ids and sizes of a split's images, kept beside its records."""

import contextlib
import secrets
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Ids = Sequence[int | str]


class Listing(NamedTuple):
    """The ids and sizes of a split's images."""

    ids: Ids  # whole numbers, or text
    sizes: np.ndarray  # [n 2] int32: h, w


def path_of(directory: Path, split: str) -> Path:
    """The path of a split's listing."""
    return directory / f"records.{split}.npz"


def store(directory: Path, split: str, ids: Ids, sizes: np.ndarray) -> None:
    """Stores a listing atomically, safe against concurrent writers."""
    held: dict[str, Any] = {"sizes": np.asarray(sizes, np.int32)}
    if any(isinstance(number, str) for number in ids):
        texts = [str(number).encode() for number in ids]
        held["text"] = np.frombuffer(b"".join(texts), np.uint8)
        held["ends"] = np.cumsum([len(text) for text in texts], dtype=np.int64)
    else:
        held["ids"] = np.array(ids, np.int64)
    beside = directory / f"records.{split}.{secrets.token_hex(4)}.tmp"
    try:
        with open(beside, "wb") as file:
            np.savez(file, **held)
        beside.replace(path_of(directory, split))
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def stored(directory: Path, split: str, count: int) -> Listing | None:
    """The listing of a split of `count` images; None if missing or invalid."""
    path = path_of(directory, split)
    broken = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile)
    with contextlib.suppress(*broken):
        if not path.is_file():
            return None
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
            sizes = held["sizes"]
            if sizes.shape != (count, 2) or sizes.dtype != np.int32:
                return None
            if "ids" in held:
                ids = held["ids"]
                sound = ids.shape == (count,) and ids.dtype == np.int64
                return Listing(ids.tolist(), sizes) if sound else None
            text, ends = held["text"].tobytes(), held["ends"].tolist()
            texts = [text[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
            return Listing(texts, sizes) if len(texts) == count else None
    return None
