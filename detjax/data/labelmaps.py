"""Label maps: images/ beside labels/, whose pixels say which instance owns them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from detjax.data import lint, pixels, rle
from detjax.data.records import Annotation, Dataset, Problem, Record

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_LABELS = (".png", ".tif", ".tiff", ".npy", ".bmp")


def read_splits(
    *, splits: Mapping[str, str | Path], classes: Sequence[str] = ("object",)
) -> dict[str, Dataset]:
    """The splits, each of its own folder."""
    return {split: read(path, split, classes) for split, path in splits.items()}


def digests(*, splits, classes=("object",)) -> dict[str, str]:
    """A digest of the label maps of each split.

    Raises FileNotFoundError where they are gone.
    """
    found = {}
    for split, folder in splits.items():
        digest = hashlib.sha256()
        for stem, path in _files(Path(folder).expanduser() / "labels", _LABELS):
            digest.update(f"\n{stem}\n".encode() + path.read_bytes())
        found[split] = f"annotations {digest.hexdigest()[:16]}"
    return found


def read(
    folder: str | Path, split: str = "train", classes: Sequence[str] = ("object",)
) -> Dataset:
    """One split; every value but 0 is an object of the one class, in the values' order.

    Images are sorted by name; images and objects are numbered from 1. Raises ValueError
    unless there is one class.
    """
    if len(classes) != 1:
        raise ValueError(f"label maps have one class, not {list(classes)}; name one")
    folder = Path(folder).expanduser()
    maps = _files(folder / "labels", _LABELS)
    problems: list[Problem] = []
    records = _records(folder, {stem for stem, _ in maps}, problems)
    paths = dict(maps)
    kept, first = [], 1
    for record in lint.good_images(records, problems):
        found = _instances(paths[Path(record.file_name).stem], record)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        record.annotations = [
            Annotation(number, mask.box, 0, mask.area, rle=mask.rle)
            for number, mask in enumerate(found, first)
        ]
        first += len(found)
        kept.append(record)
    return Dataset(split, tuple(classes), kept, problems)


def _records(folder: Path, stems: set[str], problems: list[Problem]) -> list[Record]:
    """A record for every image with a label map; its size is not declared anywhere."""
    records, seen = [], set()
    for number, (stem, path) in enumerate(_files(folder / "images", _IMAGES), 1):
        fault = None
        if stem in seen:
            fault = ("duplicate id", "has the name of another image but for its ending")
        elif stem not in stems:
            fault = ("missing label map", f"has no label map in {folder / 'labels'}")
        seen.add(stem)
        if fault:
            problems.append(Problem(f"image {number}", path.name, *fault))
        else:
            records.append(Record(number, path.name, 0, 0, path))
    for stem in sorted(stems - seen):
        detail = f"has no image in {folder / 'images'}"
        problems.append(Problem("label map", stem, "missing image", detail))
    return records


def _instances(path: Path, record: Record) -> list[rle.Instance] | Problem:
    """The masks of a label map, or what is wrong with it."""
    subject = f"label map of image {record.id}"
    labels = load(path)
    if labels is None or labels.dtype.kind not in "ui" or labels.ndim != 2:
        kind = "" if labels is None else f" ({labels.dtype} {list(labels.shape)})"
        detail = f"is not one channel of whole numbers{kind}"
        return Problem(subject, path.name, "unreadable label map", detail)
    h, w = labels.shape
    if (h, w) != (record.height, record.width):
        detail = f"is {w} x {h}, its image {record.width} x {record.height} pixels"
        return Problem(subject, path.name, "label map of another size", detail)
    return list(rle.instances(labels).values())


def load(path: Path) -> np.ndarray | None:
    """The numbers of a label map as they are stored, None where they cannot be read."""
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            return None
    data = path.read_bytes()
    if lint.cut_off(data):
        return None
    try:
        return pixels.decode(data, cv2.IMREAD_UNCHANGED)
    except ValueError:
        return None


def _files(folder: Path, endings: tuple[str, ...]) -> list[tuple[str, Path]]:
    """(name without ending, path) of the files of a folder, sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; label maps need images/ and labels/"
        )
    found = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in endings]
    return [(path.stem, path) for path in found]
