"""Label maps: images/ beside labels/, whose pixel values are instance ids."""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from detjax import files
from detjax.data import images, lint, pixels, records, rle
from detjax.data.records import (
    Annotation,
    Catalogue,
    Dataset,
    Problem,
    Reading,
    Record,
    shown,
)
from detjax.errors import MissingFileError, UserError
from detjax.settings import Location

TASK = "detection"

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_LABELS = (".png", ".tif", ".tiff", ".npy", ".bmp")


class Entry(NamedTuple):
    """An image, its number and the label map of its name."""

    number: int
    image: Path
    labels: Path


def catalogues(
    *, splits: Mapping[str, Location], classes: Sequence[str] = ("object",)
) -> dict[str, Catalogue]:
    """The splits, each of its own folder."""
    return {split: catalogue(path, split, classes) for split, path in splits.items()}


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, splits, classes=("object",)) -> dict[str, str]:
    """A digest of the label maps of each split.

    Raises MissingFileError if they are gone.
    """
    found = {}
    for split, folder in splits.items():
        digest = hashlib.sha256()
        for stem, path in _files(lint.expanded(folder) / "labels", _LABELS):
            digest.update(f"\n{stem}\n".encode("utf-8", "surrogateescape"))
            digest.update(files.read_bytes(path) if path.is_file() else b"no file")
        found[split] = f"annotations {digest.hexdigest()[:16]}"
    return found


def read(
    folder: str | Path, split: str = "train", classes: Sequence[str] = ("object",)
) -> Dataset:
    """One split in memory; see `catalogue`."""
    return records.collect(catalogue(folder, split, classes))


def catalogue(
    folder: str | Path, split: str = "train", classes: Sequence[str] = ("object",)
) -> Catalogue:
    """One split; every value but 0 is an object of the one class, in the values' order.

    Images are sorted by name and numbered from 1, and objects from 1 in each. Raises
    UserError unless there is one class.
    """
    if len(classes) != 1:
        raise UserError(f"label maps have one class, not {list(classes)}; name one")
    lint.check_classes(classes)
    folder = lint.expanded(folder)
    maps = dict(_files(folder / "labels", _LABELS))
    problems: list[Problem] = []
    entries, seen = [], set()
    for number, (stem, path) in enumerate(_files(folder / "images", _IMAGES), 1):
        fault = lint.fault_of_name(path.name)
        if stem in seen:
            fault = ("duplicate id", "has the name of another image but for its ending")
        elif stem not in maps:
            fault = ("missing label map", f"has no label map in {folder / 'labels'}")
        seen.add(stem)
        if fault:
            problems.append(Problem(f"image {number}", path.name, *fault))
        else:
            entries.append(Entry(number, path, maps[stem]))
    for stem in sorted(set(maps) - seen):
        detail = f"has no image in {folder / 'images'}"
        problems.append(Problem("label map", stem, "missing image", detail))
    return Catalogue(split, tuple(classes), entries, read_entry, problems)


def read_entry(entry: Entry) -> Reading:
    """An image with the objects of its label map, or its problem."""
    # The size is not declared anywhere.
    record = Record(entry.number, shown(entry.image.name), 0, 0, entry.image)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    reason = "unreadable label map"
    try:
        labels = load(entry.labels)
        reason = "label map of another size"
        _check_size(labels, record)
        reason = "too many instances"
        masks = rle.instances(labels).values()
        if len(masks) >= lint.MOST_OBJECTS:
            raise UserError(f"has {len(masks)} instances: a million or more")
    except UserError as error:
        subject = f"label map of image {record.id}"
        problem = Problem(subject, entry.labels.name, reason, str(error))
        return Reading(None, [problem], reading.turned)
    record.truth = [
        Annotation(
            lint.object_id(entry.number, number), mask.box, 0, mask.area, rle=mask.rle
        )
        for number, mask in enumerate(masks, 1)
    ]
    return reading


def _check_size(labels: np.ndarray, record: Record) -> None:
    h, w = labels.shape
    if (h, w) != (record.height, record.width):
        raise UserError(
            f"is {w} x {h}, its image {record.width} x {record.height} pixels"
        )


def load(path: Path) -> np.ndarray:
    """The numbers of a label map as they are stored.

    Raises UserError, whose sentence lacks its subject, where they cannot be read, and
    for formats that do not keep numbers apart.
    """
    data = files.read_bytes(path)
    numpy = path.suffix.lower() == ".npy"
    labels = _array(data) if numpy else _picture(data)
    if labels.dtype.kind not in "ui" or labels.ndim != 2:
        raise UserError(
            f"is not one channel of whole numbers ({labels.dtype} {list(labels.shape)})"
        )
    if labels.size and labels.min() < 0:
        raise UserError("has numbers below 0; background is 0, instances count from 1")
    return labels


def _picture(data: bytes) -> np.ndarray:
    """The pixels of a label map as they are stored."""
    if data.startswith(images.JPEG):
        raise UserError(
            "is a JPEG, which is lossy: numbers of instances are not kept; save it as "
            "a PNG"
        )
    if images.cut_off(data):
        raise UserError(f"is cut off after {len(data)} bytes")
    head = images.header(data)
    if head.size and head.size[0] * head.size[1] > images.MOST_PIXELS:
        raise UserError(f"has more than {images.MOST_PIXELS:,} pixels")
    if head.mode == "1":
        raise UserError(
            "has one bit a pixel, which tells no instances apart; number them in a "
            "PNG of 8 or 16 bits"
        )
    return pixels.decode(data, cv2.IMREAD_UNCHANGED)


def _array(data: bytes) -> np.ndarray:
    """The array of a .npy file, whose size must match its header."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, kind = read(file)
        size = int(np.prod(shape, dtype=object)) * kind.itemsize
        if kind.hasobject or size > len(data):
            raise ValueError("it holds something else")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        # numpy evaluates the header as Python's literals, which may raise anything.
        raise UserError("is no array of whole numbers that numpy saved") from error


def _files(folder: Path, endings: tuple[str, ...]) -> list[tuple[str, Path]]:
    """(name without ending, path) of the files of a folder, sorted.

    macOS resource forks (._one.png) are left out.
    """
    if not folder.is_dir():
        raise MissingFileError(
            f"no folder {folder}; label maps need images/ and labels/"
        )
    with files.reading(folder):
        names = sorted(os.listdir(folder))
    paths = [folder / name for name in names if name[:2] != "._"]
    return [(p.stem, p) for p in paths if p.suffix.lower() in endings]
