"""The ids, sizes and classes of a split's images, kept beside its records."""

import contextlib
import secrets
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Ids = Sequence[int | str]
# What reading a file raises that is not one of ours, or not whole.
_BROKEN = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile)


class Listing(NamedTuple):
    """The ids and sizes of a split's images."""

    ids: Ids  # whole numbers, or text
    sizes: np.ndarray  # [n 2] int32: h, w


class Classes(NamedTuple):
    """The classes in each of n images, each once, one image after the other."""

    labels: np.ndarray  # int32, rising in an image
    ends: np.ndarray  # [n] int64: where those of each image end

    def part(self, begin: int, end: int) -> "Classes":
        """Those of the images from number `begin` to before `end`."""
        first = int(self.ends[begin - 1]) if begin else 0
        ends = self.ends[begin:end]
        last = int(ends[-1]) if len(ends) else first
        return Classes(self.labels[first:last], ends - first)


def classes_of(images: Iterable[np.ndarray]) -> Classes:
    """The classes of images, of the labels of each one's objects."""
    found = [np.unique(labels).astype(np.int32) for labels in images]
    return Classes(
        np.concatenate([np.zeros(0, np.int32), *found]),
        np.cumsum([len(labels) for labels in found], dtype=np.int64),
    )


def joined(parts: Sequence[Classes]) -> Classes:
    """The classes of several lists of images, one list after the other."""
    before = np.cumsum([0, *(len(part.labels) for part in parts)])
    ends = [part.ends + n for part, n in zip(parts, before, strict=False)]
    return Classes(np.concatenate([p.labels for p in parts]), np.concatenate(ends))


def path_of(directory: Path, split: str) -> Path:
    """The path of a split's listing."""
    return directory / f"records.{split}.npz"


def store(
    directory: Path, split: str, ids: Ids, sizes: np.ndarray, classes: Classes
) -> None:
    """Stores a listing atomically, safe against concurrent writers."""
    held: dict[str, Any] = {"sizes": np.asarray(sizes, np.int32)}
    held |= {"labels": classes.labels, "label_ends": classes.ends}
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
    with contextlib.suppress(*_BROKEN):
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


def stored_classes(directory: Path, split: str, count: int) -> Classes | None:
    """The classes of a split of `count` images; None if missing or invalid.

    Listings of earlier versions have none.
    """
    path = path_of(directory, split)
    with contextlib.suppress(*_BROKEN):
        if not path.is_file():
            return None
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
            found = Classes(held["labels"], held["label_ends"])
        labels, ends = found
        sound = labels.dtype == np.int32 and ends.dtype == np.int64
        sound = sound and labels.ndim == 1 and ends.shape == (count,)
        rising = np.diff(ends, prepend=0).min(initial=0) >= 0
        if sound and rising and (ends[-1] if count else 0) == len(labels):
            return found
    return None
