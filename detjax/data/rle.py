"""Masks as run-length codes: down the columns, zeros first, as COCO counts them.

pycocotools does the coding. It does not validate, so codes from files are checked here
first: one that is too short makes it read uninitialised memory.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from detjax.errors import UserError

# An encoding as COCO's files have it: 'size' [h, w], and the code as text in 'counts'.
Rle = dict[str, Any]


# Pixels above and below a mask's box that are decoded sooner than left out.
_SPARE = 1 << 16


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


def decode(rle: Rle) -> np.ndarray:
    """The mask [h w], bool, of a sound encoding."""
    return coco_mask.decode(rle).astype(bool)


def from_runs(runs: Sequence[int], size: tuple[int, int]) -> bytes:
    """The compressed code of the run lengths `runs`.

    Raises UserError where they are not whole numbers that fill `size` (h, w).
    """
    if not all(type(n) is int and n >= 0 for n in runs):
        raise UserError("has a mask whose runs are not all whole numbers from 0 up")
    total = sum(runs)
    if total != size[0] * size[1]:
        raise UserError(_of_another_size(total, size))
    return encode(np.array(runs, np.int64), np.array([0, len(runs)]))[0]


def from_text(text: str | bytes, size: tuple[int, int]) -> bytes:
    """The canonical (shortest) compressed code equivalent to `text`.

    pycocotools decodes others differently. Raises UserError if its runs do not fill
    `size` (h, w).
    """
    code = text.encode("ascii", "replace") if isinstance(text, str) else text
    if len(code) > 7 * (size[0] * size[1] + 1):
        raise UserError("has a mask whose code is longer than any of its image")
    ends, first = _ends_of_all([code], size)
    if not len(ends):
        raise UserError(_of_another_size(0, size))
    return encode(np.diff(ends, prepend=0), first)[0]


def _of_another_size(total: int, size: tuple[int, int]) -> str:
    shown = total if total < 1 << 64 else "countless"
    return f"has a mask of {shown} pixels in an image of {size[0] * size[1]}"


def runs_of(code: bytes) -> list[int]:
    """The run lengths behind a compressed code.

    Six bits a character, from character 48: five of the number, lowest first, then one
    that says whether more follow. From the fourth run on, a number is the difference
    from the run before the last. Raises UserError for other characters.
    """
    numbers, first = _numbers_of_all([code])
    return np.diff(_ends(numbers, first), prepend=0).tolist()


def encode(runs: np.ndarray, first: np.ndarray) -> list[bytes]:
    """The compressed codes of many masks' `runs`; mask i begins at `first[i]`.

    Each number takes the fewest possible characters. See `runs_of`.
    """
    place = np.arange(len(runs)) - np.repeat(first[:-1], np.diff(first))
    numbers = runs.copy()
    later = np.flatnonzero(place > 2)
    numbers[later] -= runs[later - 2]
    # n characters hold -16 * 32^(n-1) up to 16 * 32^(n-1) - 1.
    reach = 16 * 32 ** np.arange(6, dtype=np.int64)
    least = np.where(numbers < 0, ~numbers, numbers)
    lengths = 1 + np.searchsorted(reach, least, side="right")
    ends = np.append(0, np.cumsum(lengths))
    digit = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
    bits = np.repeat(numbers, lengths) >> (5 * digit) & 31
    more = digit < np.repeat(lengths, lengths) - 1
    text = (48 + bits + 32 * more).astype(np.uint8).tobytes()
    at = ends[first].tolist()
    return [text[i:j] for i, j in itertools.pairwise(at)]


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> bytes:
    """The compressed code of the union of polygons [x, y, x, y, ...].

    Raises UserError where one has fewer than three corners, a number that is not
    finite, or a corner more than the image's own size away from the image.
    """
    h, w = size
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise UserError(f"has a polygon of {len(polygon)} numbers")
        corners = np.array(polygon, np.float64)
        if not np.isfinite(corners).all():
            raise UserError("has a polygon with a number that is not finite")
        x, y = corners[::2], corners[1::2]
        if min(x.min() + w, 2 * w - x.max(), y.min() + h, 2 * h - y.max()) < 0:
            raise UserError("has a polygon far outside the image")
    parts = coco_mask.frPyObjects([list(p) for p in polygons], h, w)
    return (parts[0] if len(parts) == 1 else coco_mask.merge(parts))["counts"]


def instances(labels: np.ndarray) -> dict[int, Instance]:
    """The mask of every value above 0 of `labels` [h w], in the values' order.

    All of them are found at once: there may be as many as a label map has pixels.
    """
    flat = labels.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.append(0, changes), np.append(changes, flat.size)
    values = flat[starts]
    # A value's runs together, in order, and nothing of the background.
    order = np.argsort(values, kind="stable")
    order = order[values[order] > 0]
    if not len(order):
        return {}
    starts, ends, values = starts[order], ends[order], values[order]
    heads = np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)
    stops = np.append(heads[1:], len(values))
    # n runs give 2 n + 1 edges, the last one being the map's end: a first run that
    # begins at 0 has a run of zeros of length 0 before it.
    counts = 2 * (stops - heads) + 1
    first = np.append(0, np.cumsum(counts))
    edges = np.empty(first[-1], np.int64)
    inner = np.ones(len(edges), bool)
    inner[first[1:] - 1] = False
    edges[inner] = np.stack([starts, ends], axis=1).ravel()
    edges[~inner] = flat.size
    before = np.append(0, edges[:-1])
    before[first[:-1]] = 0
    lengths = edges - before
    # No run of zeros after a mask that reaches the end.
    kept = np.ones(len(edges), bool)
    kept[first[1:] - 1] = lengths[first[1:] - 1] > 0
    codes = encode(lengths[kept], np.append(0, np.cumsum(kept))[first])
    found = _foreground(edges, first, labels.shape[0])
    areas = np.add.reduceat(ends - starts, heads).astype(float).tolist()
    boxes = found.boxes.astype(float).tolist()
    return {
        value: Instance(code, tuple(box), area)
        for value, code, box, area in zip(
            values[heads].tolist(), codes, boxes, areas, strict=True
        )
    }


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
        h, w = y2 - y1, x2 - x1
        runs = slice(self.first[number], self.first[number + 1])
        lows, highs = self.lows[runs], self.highs[runs]
        edges = np.empty(2 * len(lows) + 2, np.int64)
        edges[1:-1:2], edges[2:-1:2] = lows, highs
        values = np.zeros(len(edges) - 1, np.uint8)
        values[1::2] = 255
        if w * (self.height - h) < _SPARE:
            edges[0], edges[-1] = x1 * self.height, x2 * self.height
            columns = np.repeat(values, edges[1:] - edges[:-1])
            return columns.reshape(w, self.height)[:, y1:y2]
        # Counted down the box's columns: nothing outside of it has a length there, so
        # that the height of a large picture costs nothing.
        column, row = np.divmod(edges[1:-1], self.height)
        edges[1:-1] = (column - x1) * h + np.clip(row - y1, 0, h)
        edges[0], edges[-1] = 0, w * h
        return np.repeat(values, edges[1:] - edges[:-1]).reshape(w, h)


def moved_bounds(runs: Runs, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes [n 4] around masks under an affine `matrix` [3 3], and which [n] exist.

    Tight around the pixels' corners: around what a mask covers, not around its box.
    """
    some = runs.first[1:] > runs.first[:-1]
    found = np.zeros((len(some), 4))
    if not len(runs.lows):
        return found, some
    x, y = corners(runs)
    heads = runs.first[:-1][some]
    for axis in (0, 1):
        places = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2]
        found[some, axis] = np.minimum.reduceat(places.min(axis=0), heads)
        found[some, axis + 2] = np.maximum.reduceat(places.max(axis=0), heads)
    return found, some


def corners(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """x and y [10 r] of the r runs of masks: their hull is that of their pixels."""
    h = runs.height
    left, top = np.divmod(runs.lows, h)
    right, bottom = np.divmod(runs.highs - 1, h)
    bottom = bottom + 1
    # A run that goes on in another column reaches the image's lower and upper edges.
    on = right > left
    end, begin = np.where(on, h, bottom), np.where(on, 0, top)
    last, next_ = np.where(on, right, left + 1), np.where(on, left + 1, left)
    x = np.stack([left, left + 1, left, left + 1, right, right + 1, right, right + 1])
    y = np.stack([top, top, end, end, begin, begin, bottom, bottom])
    # And holds all columns between its first and its last.
    x = np.concatenate([x, next_[None], last[None]])
    return x, np.concatenate([y, begin[None], end[None]])


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

    An empty code is an empty mask. Raises UserError, whose message lacks its subject,
    if one is invalid or its runs do not fill the image. See `runs_of`.
    """
    return _foreground(*_ends_of_all(codes, size), size[0])


def _ends_of_all(
    codes: Sequence[bytes], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of codes end, and where each code's begin, checked."""
    numbers, first = _numbers_of_all(codes)
    ends = _ends(numbers, first)
    totals = ends[first[1:][np.diff(first) > 0] - 1]
    wrong = totals[totals != size[0] * size[1]]
    if len(wrong):
        raise UserError(_of_another_size(int(wrong[0]), size))
    return ends, first


def _numbers_of_all(codes: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of codes one after the other, and [n + 1] where each code's begin."""
    joined = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - 48
    first = np.zeros(len(codes) + 1, np.int64)
    if not len(joined):
        return joined, first
    if joined.min() < 0 or joined.max() > 63:
        raise UserError("has a mask that is not a run-length code")
    last = joined < 32
    counted = np.append(0, np.cumsum(last))
    stops = np.cumsum([len(code) for code in codes])
    if not last[stops[stops > 0] - 1].all():
        raise UserError("has a mask whose run-length code is cut off")
    first[1:] = counted[stops]
    return _numbers(joined, last), first


def _numbers(bits: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The numbers of six-bit characters, whose `last` ones are marked."""
    stops = np.flatnonzero(last)
    starts = np.append(0, stops[:-1] + 1)
    lengths = stops - starts + 1
    if lengths.max() > 7:  # 35 bits are more than any image has pixels
        raise UserError(
            "has a mask whose run-length code has a number of more than 7 characters"
        )
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((bits & 31) << (5 * place), starts)
    negative = bits[stops] & 16 > 0
    return numbers - np.where(negative, np.int64(1) << (5 * lengths), 0)


def _ends(numbers: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Where the runs of masks end, of `numbers` whose masks begin at `first`.

    From its fourth on, a number is the difference from the run before the last. Raises
    ValueError for runs below 0.
    """
    if not len(numbers):
        return numbers
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
        raise UserError("has a mask whose runs are not all whole numbers from 0 up")
    if runs.max() >> 31:
        raise UserError("has a mask with a run longer than any image")
    ends = np.cumsum(runs)
    return ends - np.repeat(np.append(0, ends)[first[:-1]], counts)
