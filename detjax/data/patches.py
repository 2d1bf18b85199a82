"""Masks as windows of an image; on the host.

A mask of a few pixels costs a few bytes here, however large the picture is.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped

from detjax.data import rle
from detjax.data.rle import Rle

# Runs of masks whose codes are computed together, in about as many kilobytes.
_TOGETHER = 1 << 14


class Patch(NamedTuple):
    """What is in a window of a picture of `size` (h, w); around it all is 0."""

    x: int  # the window's first column
    y: int  # its first row
    pixels: np.ndarray  # [wh ww]
    size: tuple[int, int]


class _Outline(NamedTuple):
    """A mask by where it changes."""

    x: int  # those of its patch
    y: int
    stride: int  # the rows of its window and one more
    size: tuple[int, int]
    changes: np.ndarray  # see `_changes`


def nothing(size: tuple[int, int], dtype: Any = bool) -> Patch:
    """A patch of no pixels."""
    return Patch(0, 0, np.zeros((0, 0), dtype), size)


def full_mask(patch: Patch) -> Shaped[np.ndarray, "h w"]:
    """The picture that `patch` is a part of."""
    image = np.zeros(patch.size, patch.pixels.dtype)
    h, w = patch.pixels.shape
    image[patch.y : patch.y + h, patch.x : patch.x + w] = patch.pixels
    return image


def encode_rle(patch: Patch) -> Rle:
    """The encoding of the binary mask `patch`; everything but 0 is foreground.

    Time and memory are proportional to the window, not to the picture.
    """
    return encode_all([patch])[0]


def encode_all(patches: Iterable[Patch]) -> list[Rle]:
    """The encodings of binary masks; see `encode_rle`.

    Each is looked at when it comes; what is short of all of them is computed together.
    """
    codes: list[Rle] = []
    waiting: list[_Outline] = []
    count = 0
    for x, y, pixels, size in patches:
        changes = _changes(pixels)
        waiting.append(_Outline(x, y, len(pixels) + 1, size, changes))
        count += len(changes)
        if count > _TOGETHER:
            codes += _codes(waiting)
            waiting, count = [], 0
    return codes + _codes(waiting)


def _changes(pixels: np.ndarray) -> np.ndarray:
    """Where the foreground of `pixels` [h w] begins and ends by turns.

    In places down its columns, each of which ends in a row of background, so that no
    run goes on in the next one.
    """
    h, w = pixels.shape
    if not pixels.size:
        return np.zeros(0, np.int64)
    binary = pixels if pixels.dtype == bool else pixels != 0
    flat = np.zeros(w * (h + 1) + 1, np.uint8)  # after a pixel of background
    shades = np.ascontiguousarray(binary).view(np.uint8)
    flat[1:].reshape(w, h + 1)[:, :h] = cv2.transpose(shades)
    return np.flatnonzero(flat[1:] != flat[:-1])


def _codes(masks: Sequence[_Outline]) -> list[Rle]:
    """The encodings of masks of these outlines."""
    if not masks:
        return []
    sizes = [mask.size for mask in masks]
    heights, widths = np.array(sizes).T
    counts = np.array([len(mask.changes) for mask in masks])
    windows = [(*mask[:3], height) for mask, height in zip(masks, heights, strict=True)]
    x, y, stride, height = np.repeat(np.array(windows).T, counts, axis=1)
    column, row = np.divmod(np.concatenate([m.changes for m in masks]), stride)
    edges = (x + column) * height + y + row
    edges, counts = _joined(edges, counts)
    # The last run ends with the picture, of background where no other one does.
    totals, ends = heights * widths, np.cumsum(counts)
    full, some = np.zeros(len(counts), bool), counts > 0
    full[some] = edges[ends[some] - 1] == totals[some]
    first = np.append(0, np.cumsum(counts + ~full))
    stops = np.empty(first[-1], np.int64)
    stops[first[1:] - 1] = totals
    stops[np.arange(len(edges)) + np.repeat(first[:-1] - ends + counts, counts)] = edges
    starts = np.append(0, stops[:-1])
    starts[first[:-1]] = 0
    codes = rle.encode(stops - starts, first)
    return [
        {"size": [int(h), int(w)], "counts": code.decode("ascii")}
        for (h, w), code in zip(sizes, codes, strict=True)
    ]


def _joined(edges: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges of masks, and `counts` of each, where runs that touch are one.

    In a window as high as the picture a run may go on in the next column.
    """
    which = np.repeat(np.arange(len(counts)), counts)
    apart = np.ones(len(edges), bool)
    # Of a mask begins and ends take turns, an even number of them.
    goes_on = (edges[1:-1:2] == edges[2::2]) & (which[1:-1:2] == which[2::2])
    apart[1:-1:2], apart[2::2] = ~goes_on, ~goes_on
    return edges[apart], np.bincount(which[apart], minlength=len(counts))
