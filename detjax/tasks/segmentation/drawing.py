"""Label maps laid over their pictures, with a legend, and as files."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from detjax.data import label_maps
from detjax.data.records import Record
from detjax.draw import canvas, font, plain
from detjax.eval.boundaries import outlines
from detjax.eval.semantic import label_counts
from detjax.tasks.segmentation.answers import Found
from detjax.tasks.segmentation.palette import has_background, palette
from detjax.types import Array

# Of a class's colour in what is drawn over the picture, which is grey there.
SHARE = 0.6
HATCH = (90, 90, 90), (225, 225, 225)  # stripes of what is ignored
LEGEND = 0.5  # of a picture's height, that its legend may have
ENDING = "-labels.png"


def truth(record: Record) -> Found:
    """The label map of `record` as an answer without scores."""
    labels, valid = label_maps.decode(record.truth, (record.height, record.width))
    return Found(labels, valid)


def files(found: Found, classes: Sequence[str]) -> dict[str, bytes]:
    """The label map as a PNG: the numbers of classes, 255 where they are ignored.

    With the colours of the drawing as its palette; of 256 classes and more 16 bits deep
    and grey, with 65535 where they are ignored.
    """
    from PIL import Image

    kind = label_maps.dtype(len(classes))
    if kind is np.uint16:
        return {ENDING: label_maps.encode(found.labels, found.valid, len(classes))}
    held = np.where(found.valid, found.labels, 255).astype(np.uint8)
    sheet = Image.fromarray(held, mode="P")
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(classes)] = palette(classes)
    sheet.putpalette(colours.tobytes())
    out = io.BytesIO()
    # The least compression is four times as fast and a few per cent larger.
    sheet.save(out, format="PNG", compress_level=1)
    return {ENDING: out.getvalue()}


def draw(
    image: Any,
    found: Found,
    classes: Sequence[str],
    *,
    least_side: int = 480,
    most_side: int | None = None,
) -> np.ndarray:
    """A copy of `image`, [h w 3] uint8 or of PIL, under the colours of its classes.

    Each class has an outline and, below the picture, a line with its name and its share
    of the pixels. A first class that is called background has no colour; what is
    ignored is hatched. Small pictures are enlarged to `least_side` pixels first, and
    those with a side above `most_side` are shrunk.
    """
    picture = canvas(image, least_side, most_side)
    h, w = size = picture.shape[:2]
    labels, valid = (
        cv2.resize(x, size[::-1], interpolation=cv2.INTER_NEAREST)
        for x in (np.asarray(found.labels), np.asarray(found.valid).view(np.uint8))
    )
    sheet = blended(picture, labels, valid.astype(bool), classes)
    letter = max(12, min(size) // 40)
    lines = legend(found, classes)
    # A thin picture lies on a sheet that has room for a line of its legend.
    room = _column(lines, letter)
    wide = max(w, room if most_side is None else min(room, most_side))
    left = (wide - w) // 2
    sheet = cv2.copyMakeBorder(
        sheet, 0, 0, left, wide - w - left, cv2.BORDER_CONSTANT, value=(255,) * 3
    )
    return below(sheet, shortened(lines, h, wide, letter), letter)


def blended(
    picture: np.ndarray, labels: np.ndarray, valid: np.ndarray, classes: Sequence[str]
) -> np.ndarray:
    """`picture` [h w 3] under the colours of labels [h w], of one size."""
    unit = max(1, round(min(picture.shape[:2]) / 500))
    # One more for what is ignored.
    held = np.where(valid, labels, len(classes)).astype(label_maps.dtype(len(classes)))
    colours = np.concatenate([palette(classes), np.array(HATCH[:1], np.uint8)])
    tints = colours[held]
    # Grey below the colours: they are those of classes and not of things.
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    drawn = cv2.addWeighted(grey, 1 - SHARE, tints, SHARE, 0)
    if has_background(classes):
        cv2.copyTo(picture, (held == 0).view(np.uint8), drawn)
    if not valid.all():
        _hatch(drawn, ~valid, 4 * unit)
    edge = outlines(held, np.ones(held.shape, bool))
    if unit > 1:
        edge = cv2.dilate(edge.view(np.uint8), np.ones((unit, unit), np.uint8)) > 0
    # An outline is of the full colour, and black where there is none.
    cv2.copyTo(tints, edge.view(np.uint8), drawn)
    return drawn


def _hatch(drawn: np.ndarray, some: np.ndarray, width: int) -> None:
    """Stripes over `some` [h w] of a picture's pixels, so wide."""
    h, w = some.shape
    # A diagonal is one of the rows of this, shifted.
    stripes = np.array(HATCH, np.uint8)[np.arange(w + 2 * width) // width % 2]
    for y in range(h):
        row = stripes[y % (2 * width) :][:w]
        drawn[y][some[y]] = (drawn[y][some[y]] // 2) + row[some[y]] // 2


class Line(NamedTuple):
    """A class in a legend."""

    tint: tuple[int, int, int] | None  # None of what is ignored
    name: str
    part: float  # of the pixels
    bare: bool = False  # the picture itself: its box is open

    @property
    def text(self) -> str:
        bare = " (not coloured)" if self.bare else ""
        return f"{self.name} {share(self.part)}{bare}"


def legend(found: Found, classes: Sequence[str]) -> list[Line]:
    """A line for each class in a map, the largest first, and for what is ignored."""
    counts = label_counts(found.labels, found.valid, len(classes))
    total = max(found.labels.size, 1)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    colours, nothing = palette(classes).tolist(), has_background(classes)
    lines = [
        Line(
            tuple(colours[i]),
            plain(classes[i], 24),
            counts[i] / total,
            nothing and i == 0,
        )
        for i in order.tolist()
    ]
    ignored = total - int(counts.sum())
    return [*lines, *[Line(None, "ignored", ignored / total)] * (ignored > 0)]


def shortened(lines: list[Line], h: int, w: int, letter: int) -> list[Line]:
    """The first of `lines` that a legend of a picture [h w] has room for.

    The rest of them are one line.
    """
    rows = max(round(LEGEND * h / _line(letter)), 3)
    most = rows * _columns(lines, w, letter)
    if len(lines) <= most:
        return lines
    rest = lines[most - 1 :]
    others = Line((255, 255, 255), f"{len(rest)} others", sum(x.part for x in rest))
    return [*lines[: most - 1], others]


def _line(letter: int) -> int:
    """The pixels from one line of a legend to the next."""
    return round(letter * 1.5)


def _columns(lines: Sequence[Line], w: int, letter: int) -> int:
    """The columns of a legend that is `w` pixels wide."""
    return max(w // _column(lines, letter), 1)


def _column(lines: Sequence[Line], letter: int) -> int:
    """The pixels of a column of a legend."""
    longest = max((font(letter).getlength(one.text) for one in lines), default=0)
    return round(longest) + 2 * _line(letter)


def share(part: float) -> str:
    """A share in per cent, of which even a small one is not none."""
    return f"{part:.0%}" if part >= 0.095 else f"{max(part, 0.001):.1%}"


def below(picture: np.ndarray, lines: Sequence[Line], letter: int) -> Array:
    """`picture` [h w 3] above a legend of letters so high, in columns."""
    from PIL import Image, ImageDraw

    if not lines:
        return picture
    h, w = picture.shape[:2]
    letters, line = font(letter), _line(letter)
    columns = min(_columns(lines, w, letter), len(lines))
    rows = -(-len(lines) // columns)
    sheet = Image.new("RGB", (w, h + rows * line + line // 3), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(sheet)
    for i, one in enumerate(lines):
        left = (i // rows) * (w // columns) + line // 4
        top = h + (i % rows) * line + line // 6
        box = (left, top + letter // 6, left + letter, top + letter // 6 + letter)
        fill = "white" if one.bare else one.tint or HATCH[1]
        pen.rectangle(box, fill=fill, outline=(120, 120, 120))
        if one.tint is None:
            for corner in (
                (0, 0, letter, letter),
                (0, letter // 2, letter // 2, letter),
            ):
                x1, y1, x2, y2 = corner
                ends = (box[0] + x1, box[1] + y1, box[0] + x2, box[1] + y2)
                pen.line(ends, fill=HATCH[0], width=max(1, letter // 8))
        pen.text((left + line, top), one.text, fill="black", font=letters)
    return np.asarray(sheet)
