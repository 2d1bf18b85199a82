"""Which reader fits a file or a folder, judged by names and first bytes."""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from detjax.data import pictures

_HEAD = 1 << 16
# Entries of a folder that are looked at.
_MOST = 500
_PACKED = (".zip", ".gz", ".tgz", ".tar", ".rar", ".7z")
_MAPS = (".png", ".tif", ".tiff", ".npy", ".bmp")


class Guess(NamedTuple):
    """A format, and the flags that name these files to its reader."""

    format: str
    flags: str

    def __str__(self) -> str:
        return f"try `{self.format} {self.flags}`"


def guess(path: Path) -> Guess | None:
    """The format of the files at `path`, None if none is recognised. Never raises."""
    with contextlib.suppress(OSError, ValueError):
        return _of_file(path) if path.is_file() else _of_folder(path)
    return None


def advice(path: Path, reader: str) -> str:
    """What to add to an error of `reader` about `path`: the format that fits better."""
    if path.suffix.lower() in _PACKED:
        return "; unpack it first"
    found = guess(path)
    if found is None or found.format == reader:
        return ""
    return f"; {path} looks like the format {found.format!r}: {found}"


def _of_file(path: Path) -> Guess | None:
    ending = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if ending in (".yaml", ".yml") and re.search(rb"^names\s*:", head, re.MULTILINE):
        return Guess("yolo", f"--root={path}")
    if ending == ".xml":
        return _of_xml(path, head)
    if ending == ".json":
        return _of_json(path, head)
    if ending in (".csv", ".tsv"):
        return Guess("csv", f"--root={path}")
    return None


def _of_xml(path: Path, head: bytes) -> Guess | None:
    if b"<annotations" in head:
        return Guess("cvat", f"--root={path}")
    if b"<annotation" in head:
        root = path.parent
        root = root.parent if root.name.lower() == "annotations" else root
        return Guess("voc", f"--root={root}")
    return None


def _of_json(path: Path, head: bytes) -> Guess | None:
    if b'"shapes"' in head and b'"images"' not in head:
        return Guess("labelme", f"--root={path.parent}")
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _HEAD, 0))
        ends = head + file.read()
    keys = (b'"images"', b'"annotations"', b'"categories"')
    if sum(key in ends for key in keys) >= 2 or b'"image_id"' in ends:
        return Guess("coco", f"--split train={path} and --images=DIR")
    return None


def _of_folder(path: Path) -> Guess | None:
    names = [entry.name for entry in itertools.islice(os.scandir(path), _MOST)]
    lower = {name.lower() for name in names}
    for ending in (".yaml", ".yml", ".xml", ".json"):
        for name in sorted(n for n in names if n.lower().endswith(ending))[:5]:
            found = _of_file(path / name)
            if found:
                whole = found.format in ("voc", "yolo", "cvat")
                flags = f"--root={path}" if whole else found.flags
                return found._replace(flags=flags)
    here = f"--root={path}"
    if "annotations" in lower:
        inner = path / next(n for n in names if n.lower() == "annotations")
        found = _of_folder(inner) if inner.is_dir() else None
        if found and found.format in ("voc", "coco"):
            voc = found.format == "voc"
            return found._replace(flags=here) if voc else found
    if {"leftimg8bit", "gtfine"} <= lower or "objectinfo150.txt" in lower:
        return Guess("semantic", here)
    if "segmentationclass" in lower and "annotations" not in lower:
        return Guess("semantic", here)
    if {"images", "masks"} <= lower:
        return Guess("objectmasks", here)
    if "labeltxt" in lower:
        return Guess("dota", f"--root={path.parent} --split {path.name}={path.name}")
    if "labels" in lower:
        endings = {e for e in _endings(path / "labels") if e}
        if ".txt" in endings:
            return Guess("yolo", here)
        if endings & {*_MAPS}:
            return Guess("labelmaps", here)
    if any(_is_yolo_row(path / n) for n in names[:20] if n.lower().endswith(".txt")):
        return Guess("yolo", here)
    return _of_folders(path, names)


def _of_folders(path: Path, names: list[str]) -> Guess | None:
    """The format of a folder by what its folders hold."""
    inner = [path / n for n in sorted(names) if (path / n).is_dir() and n[0] != "."]
    if not inner:
        return None
    held = {n.lower() for n in os.listdir(inner[0])}
    if {"images", "masks"} <= held:
        return Guess("objectmasks", f"--root={path}")
    if {"images", "labels"} <= held:
        deep = _of_folder(inner[0])
        return deep and deep._replace(flags=f"--root={path}")
    if len(inner) > 1 and all(
        any(map(pictures.is_picture, os.listdir(folder))) for folder in inner[:5]
    ):
        return Guess("folders", f"--root={path}")
    return None


def _endings(folder: Path) -> Iterator[str]:
    """The endings of some files in a folder and in its first folder."""
    with contextlib.suppress(OSError):
        found = sorted(itertools.islice(os.scandir(folder), _MOST), key=os.fspath)
        yield from (Path(entry.name).suffix.lower() for entry in found)
        for entry in found:
            if entry.is_dir():
                yield from (Path(name).suffix.lower() for name in os.listdir(entry))
                return


def _is_yolo_row(path: Path) -> bool:
    with path.open("rb") as file:
        row = file.readline(1000)
    return bool(re.fullmatch(rb"\d+(\s+[\d.eE+-]+){4,}\s*", row))
