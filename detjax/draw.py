"""Canvases for drawings of tasks, grids of them, and image files."""

import functools
import pathlib
import struct
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from detjax import files
from detjax.data.example import decode
from detjax.data.handed import rgb
from detjax.data.records import Record
from detjax.errors import reason
from detjax.types import Task

# Small pictures are enlarged, but to no longer side than this.
ENLARGED_SIDE = 2000
# Pixels of the longer side of a picture in a comparison, which is drawn at that size:
# what shrinks a drawing takes its letters away.
PANEL_SIDE = 430
MARGIN, TITLE = 6, 20  # pixels between panels, and of the line above each
# The marker of PNG files drawn here, after the header.
_TEXT = b"Software\0detjax"
_MARK = struct.pack(">I", len(_TEXT)) + b"tEXt" + _TEXT
_MARK += struct.pack(">I", zlib.crc32(b"tEXt" + _TEXT))
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = 8 + 25  # bytes of a PNG file's signature and header


def canvas(
    image: Any, least_side: int = 480, most_side: int | None = None
) -> np.ndarray:
    """A copy of `image`, an array [h w 3] uint8 or a PIL image, to be drawn on.

    Small pictures are enlarged to `least_side` pixels, so that text can be read, and
    those with a side above `most_side` are shrunk.
    """
    image = rgb(image)
    size = canvas_size(image.shape[:2], least_side, most_side)
    smaller = size[0] < image.shape[0] or size[1] < image.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(image, size[::-1], interpolation=kind)


def canvas_size(
    size: tuple[int, int], least_side: int, most_side: int | None
) -> tuple[int, int]:
    """(h, w) at which a picture of `size` is drawn; see `canvas`."""
    scale = max(1.0, min(least_side / min(size), ENLARGED_SIDE / max(size)))
    if most_side is not None:
        scale = min(scale, most_side / max(size))
    h, w = (max(1, round(side * scale)) for side in size)
    return h, w


def middle_out(text: str, limit: int) -> str:
    """`text` as `plain`, of a long one the two ends: both may tell files apart."""
    half = limit // 2
    whole = plain(text, len(text))
    return whole if len(text) <= limit else f"{whole[:half]}…{whole[1 - half :]}"


def plain(text: str, limit: int) -> str:
    """`text` in one line of at most `limit` characters, the last ones, that print."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else f"…{text[1 - limit :]}"


def comparison(
    path: str | pathlib.Path,
    records: Sequence[Record],
    predictions: Sequence[Any],
    classes: Sequence[str],
    task: Task,
    *,
    columns: int = 2,
) -> None:
    """Writes a grid to `path`: of each record the truth, the prediction beside it.

    An image that cannot be drawn is reported on stderr and left empty.
    """
    pairs = []
    for record, found in zip(records, predictions, strict=True):
        try:
            image = decode(record.image)
            truth = task.truth(record)
            pairs.append(
                pair(image, truth, found, classes, task, name=record.file_name)
            )
        except (ValueError, MemoryError, cv2.error) as error:
            print(
                f"warning: {plain(record.file_name, 200)} is not drawn in {path} "
                f"({reason(error)})",
                file=sys.stderr,
            )
            pairs.append(np.full((PANEL_SIDE // 2, 2 * PANEL_SIDE, 3), 255, np.uint8))
    save(path, grid(pairs, columns))


def pair(
    image: np.ndarray,
    truth: Any,
    found: Any,
    classes: Sequence[str],
    task: Task,
    side: int = PANEL_SIDE,
    name: str = "",
) -> np.ndarray:
    """The truth of an image [h w 3] and beside it what is found, `side` pixels each.

    Both are in the form that `Task.draw` takes.
    """
    panels = [
        task.draw(image, what, classes, least_side=side, most_side=side)
        for what in (truth, found)
    ]
    h = max(panel.shape[0] for panel in panels)
    sheet = np.full((h + TITLE, 2 * side + MARGIN, 3), 255, np.uint8)
    for i, panel in enumerate(panels):
        left = i * (side + MARGIN) + (side - panel.shape[1]) // 2
        sheet[TITLE : TITLE + panel.shape[0], left : left + panel.shape[1]] = panel
    said = f"{middle_out(name, 40)}: truth" if name else "truth"
    places = ((2, 2), (side + MARGIN + 2, 2))
    return written(sheet, [said, "prediction"], places)


def grid(
    pictures: Sequence[np.ndarray], columns: int, gap: int = 3 * MARGIN
) -> np.ndarray:
    """Pictures [h w 3] row by row on white, each row as high as its highest."""
    width = max(picture.shape[1] for picture in pictures)
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    across = min(columns, len(pictures))
    size = sum(heights) + gap * (len(rows) + 1), width * across + gap * (across + 1)
    sheet = np.full((*size, 3), 255, np.uint8)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for i, picture in enumerate(row):
            h, w = picture.shape[:2]
            left = gap + i * (width + gap)
            sheet[top : top + h, left : left + w] = picture
        top += height + gap
    return sheet


def written(
    picture: np.ndarray,
    texts: Sequence[str],
    places: Sequence[tuple[int, int]],
    size: int = 13,
) -> np.ndarray:
    """`picture` [h w 3] with texts in black, their upper left corners at (x, y)."""
    from PIL import Image, ImageDraw

    sheet = Image.fromarray(picture)
    pen = ImageDraw.Draw(sheet)
    for text, place in zip(texts, places, strict=True):
        pen.text(place, text, fill="black", font=font(size))
    return np.asarray(sheet)


@functools.cache
def font(size: int) -> Any:
    """Letters `size` pixels high that look the same everywhere.

    Those of matplotlib, which have more alphabets than Pillow's own.
    """
    from PIL import ImageFont

    return ImageFont.truetype(font_path(), size)


def font_path() -> str:
    """The file of these letters."""
    import matplotlib

    return str(pathlib.Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 ... `count` - 1, evenly."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def save(path: str | pathlib.Path, image: np.ndarray) -> None:
    """Writes `image` [h w 3] uint8 RGB to `path` atomically.

    A PNG file is marked as drawn here; see `is_drawing`. Raises OSError if it cannot be
    written.
    """
    path = pathlib.Path(path)
    try:
        data = cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes()
    except cv2.error as error:
        raise OSError(f"{path} cannot be written as an image of that kind") from error
    if path.suffix.lower() == ".png":
        data = marked(data)
    files.write_bytes(path, data)


def marked(data: bytes) -> bytes:
    """The file `data` marked as made here; see `is_drawing`.

    A PNG has a text chunk after its header; at the end of other kinds, such as TIFFs,
    readers pass over what they are not told of.
    """
    if data.startswith(_PNG):
        return data[:_HEADER] + _MARK + data[_HEADER:]
    return data + _MARK


def is_drawing(path: pathlib.Path) -> bool:
    """Whether `path` is a file that is `marked`."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(_HEADER + len(_MARK))
            if start.startswith(_PNG):
                return start.endswith(_MARK)
            file.seek(-min(len(_MARK), path.stat().st_size), 2)
            return file.read() == _MARK
    except OSError:
        return False
