"""Images beside maps of a number for each pixel: depth, height, edges.

Maps are PNGs of 16 or 8 bits, TIFFs or .npy files of whole or floating numbers.
"""

import functools
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from detjax import files
from detjax.data import images as image_files
from detjax.data import lint, pixels, records, value_maps
from detjax.data.formats import mapfile, places, semantic_layouts
from detjax.data.formats.semantic_maps import Entry
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record, shown
from detjax.errors import UserError
from detjax.settings import Location, Positive

TASK = "dense"
POOL = {places.ALL: "."}
DEPTHS = ("depth", "depths", "depth_maps", "values")


def catalogues(
    *,
    root: Location,
    splits: Mapping[str, Location] | None = None,
    images: Location | None = None,
    labels: Location | None = None,
    unit: Positive = 1.0,
    unknown: float | None = 0.0,
    quantity: str = "depth",
) -> dict[str, Catalogue]:
    """The splits of a folder of images and maps of the same names.

    root: the folder of everything.
    splits: what each split is called: a folder that holds images and maps, or one in
        both of their folders.
    images, labels: the folders of images and of maps; without them images, JPEGImages
        and the like, and depth, depths, depth_maps or values.
    unit: what a number of 1 stands for, 0.001 for millimetres that are to be metres.
    unknown: the number of pixels without one, as are those that are not finite; None
        for none.
    quantity: what the numbers are.

    Raises UserError if nothing is there.
    """
    folder = places.folder(root, "images and maps", "depth")
    lint.check_classes((quantity,))
    read = functools.partial(read_entry, unit=unit, unknown=unknown)
    found = {}
    for split, listed in _listed(folder, splits, images, labels).items():
        found[split] = Catalogue(
            split, (quantity,), listed.entries, read, listed.problems, name_of=_name
        )
    return found


def _listed(folder, splits, images, labels) -> dict[str, semantic_layouts.Listed]:
    """The files of each split."""
    layout: Any = "folders"
    parts = semantic_layouts.splits_of(folder, layout, splits)
    how = images, labels, DEPTHS
    return {
        split: semantic_layouts.listed(folder, part, layout, *how)
        for split, part in parts.items()
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *,
    root,
    splits=None,
    images=None,
    labels=None,
    unit=1.0,
    unknown=0.0,
    quantity="depth",
) -> dict[str, str]:
    """A digest of the names and sizes of the maps of each split, and of the unit.

    Raises MissingFileError if they are gone.
    """
    folder = places.folder(root, "images and maps", "depth")
    coding = unit, unknown, quantity
    return {
        split: semantic_layouts.digest(listed.entries, coding)
        for split, listed in _listed(folder, splits, images, labels).items()
    }


def _name(entry: Entry) -> str:
    return entry.name


def read_entry(entry: Entry, unit: float, unknown: float | None) -> Reading:
    """An image with its map of numbers, or its problem."""
    # The size is not declared anywhere.
    record = Record(entry.number, shown(entry.name), 0, 0, entry.image)
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    reason = "unreadable map"
    try:
        found = _load(entry)
        if found.shape != (record.height, record.width):
            (h, w), reason = found.shape, "map of another size"
            raise UserError(
                f"is {w} x {h}, its image {record.width} x {record.height} pixels"
            )
        valid = np.isfinite(found)
        if unknown is not None:
            valid &= found != unknown
        reason = "nothing known"
        if not valid.any():
            raise UserError("has no pixel whose number is known")
    except UserError as error:
        subject = f"map of image {record.id}"
        problem = Problem(subject, shown(entry.labels.name), reason, str(error))
        return Reading(None, [problem], reading.turned)
    values = np.where(valid, found, 0) * np.float64(unit)
    record.truth = value_maps.encode(values, valid)
    return reading


def _load(entry: Entry) -> np.ndarray:
    """The numbers [h w] of a map. Raises UserError without its subject."""
    data = files.read_bytes(entry.labels)
    if entry.labels.suffix.lower() == ".npy":
        found = mapfile.array(data)
    else:
        if data.startswith(image_files.JPEG):
            raise UserError("is a JPEG, which is lossy; save it as a PNG of 16 bits")
        if image_files.cut_off(data):
            raise UserError(f"is cut off after {len(data)} bytes")
        found = pixels.decode(data, cv2.IMREAD_UNCHANGED)
    if found.ndim != 2 or found.dtype.kind not in "uif":
        raise UserError(
            f"is not one channel of numbers ({found.dtype} {list(found.shape)})"
        )
    return found
