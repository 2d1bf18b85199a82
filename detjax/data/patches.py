"""Masks as windows of an image; on the host.

A mask of a few pixels costs a few bytes here, however large the picture is.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped

from detjax.data import rle
from detjax.data.rle import Rle


class Patch(NamedTuple):
    """What is in a window of a picture of `size` (h, w); around it all is 0."""

    x: int  # the window's first column
    y: int  # its first row
    pixels: np.ndarray  # [wh ww]
    size: tuple[int, int]


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
    h, w = patch.size
    edges = _edges(patch)
    runs = np.diff(edges, prepend=0, append=h * w)
    if len(edges) and edges[-1] == h * w:
        runs = runs[:-1]
    [code] = rle.encode(runs, np.array([0, len(runs)]))
    return {"size": [h, w], "counts": code.decode("ascii")}


def _edges(patch: Patch) -> np.ndarray:
    """Where runs of foreground begin and end by turns, down the picture's columns."""
    h, (wh, ww) = patch.size[0], patch.pixels.shape
    if not patch.pixels.size:
        return np.zeros(0, np.int64)
    # A row of background below the window ends every run with its column.
    columns = np.zeros((ww, wh + 1), np.uint8)
    columns[:, :wh] = cv2.transpose(np.asarray(patch.pixels != 0, np.uint8))
    flat = columns.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    at = changes if not flat[0] else np.append(0, changes)
    column, row = np.divmod(at, wh + 1)
    edges = (patch.x + column) * h + patch.y + row
    # Where the window is as high as the picture, a run may go on in the next column.
    apart = np.ones(len(edges), bool)
    goes_on = edges[1:-1:2] == edges[2::2]
    apart[1:-1:2], apart[2::2] = ~goes_on, ~goes_on
    return edges[apart]
