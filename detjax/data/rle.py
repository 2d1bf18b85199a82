"""Masks as run-length codes: down the columns, zeros first, as COCO counts them.

pycocotools does the coding. It believes what it is given, so that codes from files are
checked here first: one that is too short reads memory that was never set.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask


class Instance(NamedTuple):
    """One mask: its compressed code, its tight xyxy box and its area in pixels."""

    rle: bytes
    box: tuple[float, float, float, float]
    area: float


def measure(rle: bytes, size: tuple[int, int]) -> Instance:
    """The box and area of a sound code of `size` (h, w); an empty mask's are zeros."""
    code = {"size": list(size), "counts": rle}
    x, y, w, h = coco_mask.toBbox(code).tolist()
    return Instance(rle, (x, y, x + w, y + h), float(coco_mask.area(code)))


def from_runs(runs: Sequence[int], size: tuple[int, int]) -> bytes:
    """The compressed code of the run lengths `runs`.

    Raises ValueError where they are not whole numbers that fill `size` (h, w).
    """
    runs = _checked(runs, size)
    return coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)["counts"]


def from_text(text: str | bytes, size: tuple[int, int]) -> bytes:
    """The compressed code `text`, checked.

    Raises ValueError where its runs do not fill `size` (h, w).
    """
    code = text.encode("ascii", "replace") if isinstance(text, str) else text
    _checked(runs_of(code), size)
    return code


def _checked(runs: Sequence[int], size: tuple[int, int]) -> list[int]:
    if not all(type(n) is int and n >= 0 for n in runs):
        raise ValueError("has a mask whose runs are not all whole numbers from 0 up")
    if sum(runs) != size[0] * size[1]:
        raise ValueError(
            f"has a mask of {sum(runs)} pixels in an image of {size[0] * size[1]}"
        )
    return list(runs)


def runs_of(code: bytes) -> list[int]:
    """The run lengths behind a compressed code.

    Six bits a character, from character 48: five of the number, lowest first, then one
    that says whether more follow. From the fourth run on, a number is the difference
    from the run before the last. Raises ValueError for other characters.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError("has a mask that is not a run-length code")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("has a mask whose run-length code is cut off")
    return runs


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> bytes:
    """The compressed code of the union of polygons [x, y, x, y, ...].

    Raises ValueError where one has fewer than three corners, a number that is not
    finite, or a corner more than the image's own size away from the image.
    """
    h, w = size
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"has a polygon of {len(polygon)} numbers")
        corners = np.array(polygon, np.float64).reshape(-1, 2)
        if not np.isfinite(corners).all():
            raise ValueError("has a polygon with a number that is not finite")
        if (corners < [-w, -h]).any() or (corners > [2 * w, 2 * h]).any():
            raise ValueError("has a polygon far outside the image")
    parts = coco_mask.frPyObjects([list(p) for p in polygons], h, w)
    return coco_mask.merge(parts)["counts"]


def instances(labels: np.ndarray) -> dict[int, Instance]:
    """The mask of every value above 0 of `labels` [h w], in the values' order."""
    flat = labels.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.append(0, changes), np.append(changes, flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    firsts = np.flatnonzero(np.diff(values[order])) + 1
    masks = {}
    for runs in np.split(order, firsts):
        value = int(values[runs[0]])
        if value > 0:
            edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
            lengths = np.diff(edges, prepend=0, append=flat.size).tolist()
            masks[value] = measure(from_runs(lengths, labels.shape), labels.shape)
    return masks
