"""Files whose pixels name classes: by numbers, by a palette or by colours."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from detjax import files
from detjax.data import images, label_maps, lint, pixels
from detjax.data.formats import mapfile
from detjax.data.records import Problem, Reading, Record, shown
from detjax.errors import UserError

SUFFIXES = mapfile.SUFFIXES
_SHOWN = 5


class Entry(NamedTuple):
    """An image, its number in the split, and its label map."""

    number: int
    name: str
    image: Path
    labels: Path


class Coding(NamedTuple):
    """What pixels of label maps stand for.

    classes  how many there are
    values   of each class the numbers that stand for it
    colours  of each class the colours (r, g, b), or () where maps are of numbers
    ignored  numbers of pixels that have no class
    """

    classes: int
    values: tuple[tuple[int, ...], ...]
    colours: tuple[tuple[tuple[int, int, int], ...], ...] = ()
    ignored: tuple[int, ...] = ()


def read_entry(entry: Entry, coding: Coding) -> Reading:
    """An image with its label map, or its problem."""
    # The size is not declared anywhere.
    record = Record(entry.number, shown(entry.name), 0, 0, entry.image)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    reason = "unreadable label map"
    try:
        found = load(entry.labels, coding)
        reason = "label map of another size"
        _check_size(found, record)
        reason = "value without a class"
        labels, valid = decoded(found, coding)
        reason = "nothing labelled"
        if not valid.any():
            raise UserError("has no pixel with a class: all of them are ignored")
    except UserError as error:
        subject = f"label map of image {record.id}"
        problem = Problem(subject, shown(entry.labels.name), reason, str(error))
        return Reading(None, [problem], reading.turned)
    record.truth = label_maps.encode(labels, valid, coding.classes)
    return reading


def load(path: Path, coding: Coding) -> np.ndarray:
    """The pixels of a label map: [h w] whole numbers, or [h w 3] uint8 RGB.

    Of palette images the numbers, or where `coding` has nothing but colours, the
    palette's colours. Where it has none, grey pictures that are stored as colours are
    numbers too. Raises UserError, whose sentence lacks its subject, where they cannot
    be read.
    """
    data = files.read_bytes(path)
    tinted = bool(coding.colours) and not coding.values
    if path.suffix.lower() == ".npy":
        found = mapfile.array(data)
    else:
        found = _picture(data, tinted)
    if found.dtype == bool:
        found = found.astype(np.uint8)
    if found.ndim == 3 and found.shape[2] in (3, 4) and found.dtype == np.uint8:
        found = np.ascontiguousarray(found[..., :3])
        grey = not coding.colours and (found[..., :1] == found[..., 1:]).all()
        return found[..., 0] if grey else found
    if found.dtype.kind not in "ui" or found.ndim != 2:
        raise UserError(
            f"is neither one channel of whole numbers nor a picture of 8 bits "
            f"({found.dtype} {list(found.shape)})"
        )
    if tinted and found.dtype == np.uint8:
        return np.repeat(found[..., None], 3, axis=2)
    return found


def _picture(data: bytes, tinted: bool) -> np.ndarray:
    """The pixels of an image file: numbers, or RGB, also of palettes if `tinted`."""
    if data.startswith(images.JPEG):
        raise UserError(
            "is a JPEG, which is lossy: the numbers of classes are not kept; save it "
            "as a PNG"
        )
    if images.cut_off(data):
        raise UserError(f"is cut off after {len(data)} bytes")
    head = images.header(data)
    if head.size and head.size[0] * head.size[1] > images.MOST_PIXELS:
        raise UserError(f"has more than {images.MOST_PIXELS:,} pixels")
    if head.mode in ("P", "1"):
        # OpenCV resolves palettes, and spreads bits to 0 and 255.
        from PIL import Image  # here: most maps are read without it

        try:
            with Image.open(io.BytesIO(data)) as picture:
                return np.asarray(picture.convert("RGB") if tinted else picture)
        except Exception as error:  # Pillow's readers raise any
            raise UserError("cannot be decoded") from error
    found = pixels.decode(data, cv2.IMREAD_UNCHANGED)
    return found[..., [2, 1, 0]] if found.ndim == 3 else found


def _check_size(found: np.ndarray, record: Record) -> None:
    h, w = found.shape[:2]
    if (h, w) != (record.height, record.width):
        raise UserError(
            f"is {w} x {h}, its image {record.width} x {record.height} pixels"
        )


def decoded(found: np.ndarray, coding: Coding) -> tuple[np.ndarray, np.ndarray]:
    """The labels [h w] of the pixels of a map, and which of them have one.

    Raises UserError, whose sentence lacks its subject, for pixels that stand for no
    class.
    """
    if found.ndim == 3:
        return _of_colours(found, coding)
    if not coding.values:
        raise UserError("has numbers, and the table of classes has colours only")
    wanted = {v: label for label, own in enumerate(coding.values) for v in own}
    made, unknown = relabelled(found, dict.fromkeys(coding.ignored, -1) | wanted)
    if len(unknown):
        share = np.isin(found, unknown).mean()
        one = len(unknown) == 1
        raise UserError(
            f"has the value{'s' * (not one)} {_listed(unknown.tolist())} "
            f"({share:.1%} of the pixels), which stand{'s' * one} for no class: there "
            f"are {coding.classes}, of the values {_listed(sorted(wanted))}, and "
            f"ignored is {_listed(coding.ignored)}"
        )
    return np.maximum(made, 0), made >= 0


def _of_colours(found: np.ndarray, coding: Coding) -> tuple[np.ndarray, np.ndarray]:
    if not coding.colours:
        raise UserError(
            "has colours, not numbers; say which class each stands for with "
            "--table=FILE.csv of the columns name,r,g,b"
        )
    wanted = {
        # Colours of what is no class come behind those of the classes.
        int(packed(np.array(colour))): label if label < coding.classes else -1
        for label, own in enumerate(coding.colours)
        for colour in own
    }
    codes = packed(found)
    made, unknown = relabelled(codes, wanted)
    if len(unknown):
        told = [f"({v >> 16}, {v >> 8 & 255}, {v & 255})" for v in unknown.tolist()]
        share = np.isin(codes, unknown).mean()
        raise UserError(
            f"has the colour{'s' * (len(told) > 1)} {_listed(told)} "
            f"({share:.1%} of the pixels), which the table does not have"
        )
    return np.maximum(made, 0), made >= 0


def packed(colours: np.ndarray) -> np.ndarray:
    """One number [...] of each RGB colour [... 3]: 65536 R + 256 G + B."""
    r, g, b = np.moveaxis(colours.astype(np.int32), -1, 0)
    return r << 16 | g << 8 | b


def relabelled(
    found: np.ndarray, wanted: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The labels [h w] int32 that `wanted` has for the numbers [h w] of a map.

    And which numbers it lacks, whose label is -2. By a table of all numbers: sorting
    those of 12 megapixels would take a second.
    """
    most = max(int(found.max(initial=0)), *wanted, 0) + 1
    if most > 1 << 24:  # of 32 bits, which may be any
        values, place = np.unique(found, return_inverse=True)
        labels = np.array([wanted.get(int(v), -2) for v in values], np.int32)
        return labels[place].reshape(found.shape), values[labels == -2]
    # Zeros cost nothing until they are touched.
    table = np.zeros(most, np.int32)
    for number, label in wanted.items():
        table[number] = label + 2
    made = table[found] - 2
    return made, np.unique(found[made == -2])


def _listed(items: Sequence[object]) -> str:
    """The first of `items`, and how many more there are."""
    told = ", ".join(map(str, items[:_SHOWN])) or "nothing"
    return told + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
