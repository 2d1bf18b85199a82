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


class Runs(NamedTuple):
    """The masks of one image, decoded as far as their runs of foreground.

    Pixels are counted down the columns, from the image's first.
    """

    lows: np.ndarray  # where runs begin, one mask after the other
    highs: np.ndarray  # where they end
    first: np.ndarray  # [n + 1] where each mask's runs begin
    boxes: np.ndarray  # [n 4] int64 xyxy: holds the whole mask; zeros for an empty one
    height: int  # of the image

    def shades(self, number: int) -> np.ndarray:
        """What is in a mask's box, transposed: [columns rows] uint8 in {0, 255}."""
        x1, y1, x2, y2 = self.boxes[number].tolist()
        runs = slice(self.first[number], self.first[number + 1])
        lows, highs = self.lows[runs], self.highs[runs]
        edges = np.empty(2 * len(lows) + 2, np.int64)
        edges[0], edges[-1] = x1 * self.height, x2 * self.height
        edges[1:-1:2], edges[2:-1:2] = lows, highs
        values = np.zeros(len(edges) - 1, np.uint8)
        values[1::2] = 255
        columns = np.repeat(values, edges[1:] - edges[:-1]).reshape(-1, self.height)
        return columns[:, y1:y2]


def _foreground(ends: np.ndarray, first: np.ndarray, height: int) -> Runs:
    """The masks of `height` whose runs end at `ends`; they begin at `first`."""
    counts = first[1:] - first[:-1]
    odd = (np.arange(len(ends)) - np.repeat(first[:-1], counts)) % 2 == 1
    before = np.append(0, ends[:-1])
    odd &= ends > before
    lows, highs = before[odd], ends[odd]
    first = np.append(0, np.cumsum(odd))[first]
    boxes = np.zeros((len(counts), 4), np.int64)
    some = first[1:] > first[:-1]
    heads = first[:-1][some]
    if len(heads):
        columns = (highs - 1) // height
        tops, bottoms = lows - columns * height, highs - columns * height
        # A run that began in an earlier column fills this one's top, that one's end.
        over = tops < 0
        tops[over], bottoms[over] = 0, height
        boxes[some] = np.stack(
            [
                lows[heads] // height,
                np.minimum.reduceat(tops, heads),
                columns[first[1:][some] - 1] + 1,
                np.maximum.reduceat(bottoms, heads),
            ],
            axis=1,
        )
    return Runs(lows, highs, first, boxes, height)


def runs_of_all(codes: Sequence[bytes], size: tuple[int, int]) -> Runs:
    """The runs behind the codes of one image of `size` (h, w), checked.

    An empty code is an empty mask. Raises ValueError, whose sentence lacks its subject,
    where one is no code or its runs do not fill the image. See `runs_of`.
    """
    joined = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - 48
    first = np.zeros(len(codes) + 1, np.int64)
    if not len(joined):
        return _foreground(joined, first, size[0])
    if joined.min() < 0 or joined.max() > 63:
        raise ValueError("has a mask that is not a run-length code")
    last = joined < 32
    counted = np.append(0, np.cumsum(last))
    stops = np.cumsum([len(code) for code in codes])
    if not last[stops[stops > 0] - 1].all():
        raise ValueError("has a mask whose run-length code is cut off")
    first[1:] = counted[stops]
    numbers = _numbers(joined, last)
    ends = _ends(numbers, first)
    totals = ends[first[1:][np.diff(first) > 0] - 1]
    wrong = totals[totals != size[0] * size[1]]
    if len(wrong):
        raise ValueError(
            f"has a mask of {wrong[0]} pixels in an image of {size[0] * size[1]}"
        )
    return _foreground(ends, first, size[0])


def _numbers(bits: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The numbers of six-bit characters, whose `last` ones are marked."""
    stops = np.flatnonzero(last)
    starts = np.append(0, stops[:-1] + 1)
    lengths = stops - starts + 1
    if lengths.max() > 8:  # forty bits are more than any image has pixels
        raise ValueError("has a mask that is not a run-length code")
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((bits & 31) << (5 * place), starts)
    negative = bits[stops] & 16 > 0
    return numbers - np.where(negative, np.int64(1) << (5 * lengths), 0)


def _ends(numbers: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Where the runs of masks end, of `numbers` whose masks begin at `first`.

    From its fourth on, a number is the difference from the run before the last. Raises
    ValueError for runs below 0.
    """
    counts = np.diff(first)
    # Every mask from an even place on, so that runs two apart are one strided sum.
    even = counts + counts % 2
    at = np.append(0, np.cumsum(even))
    begin = np.repeat(first[:-1], counts)
    rows = np.arange(len(numbers)) - begin + np.repeat(at[:-1], counts)
    padded = np.zeros(at[-1], np.int64)
    padded[rows] = numbers
    heads = at[:-1][counts > 0]
    opening = padded[heads]
    padded[heads] = 0  # the first run is no part of the even ones' sum
    sums = np.cumsum(padded.reshape(-1, 2), axis=0)
    before = np.vstack([np.zeros((1, 2), np.int64), sums])[heads // 2]
    sums -= np.repeat(before, even[counts > 0] // 2, axis=0)
    runs = sums.reshape(-1)
    runs[heads] = opening
    runs = runs[rows]
    if runs.min() < 0:
        raise ValueError("has a mask whose runs are not all whole numbers from 0 up")
    ends = np.cumsum(runs)
    return ends - np.repeat(np.append(0, ends)[first[:-1]], counts)
