"""Canvases for drawings of tasks, grids of them, and image files."""

import pathlib
import struct
import sys
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from detjax import files
from detjax.data.example import decode
from detjax.data.records import Record
from detjax.errors import reason
from detjax.types import Task

# Small pictures are enlarged, but to no longer side than this.
ENLARGED_SIDE = 2000
# Pictures of a comparison are an inch or two wide: larger ones are shrunk first, so
# that names and boxes stay as large as in small ones.
PANEL_SIDE = 720
# The marker of PNG files drawn here, after the header.
_TEXT = b"Software\0detjax"
_MARK = struct.pack(">I", len(_TEXT)) + b"tEXt" + _TEXT
_MARK += struct.pack(">I", zlib.crc32(b"tEXt" + _TEXT))
_HEADER = 8 + 25  # bytes of a PNG file's signature and header


def canvas(
    image: np.ndarray, least_side: int = 480, most_side: int | None = None
) -> np.ndarray:
    """A copy of `image` [h w 3] uint8 of a size to be drawn on.

    Small pictures are enlarged to `least_side` pixels, so that text can be read, and
    those with a side above `most_side` are shrunk.
    """
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
    columns: int = 3,
) -> None:
    """Writes a grid to `path`: of each record the truth, the prediction beside it.

    An image that cannot be drawn is reported on stderr and left empty.
    """
    import matplotlib.figure  # here: training alone draws nothing

    rows = -(-len(records) // columns)
    # Elongated images would make the figure arbitrarily long.
    shape = float(np.clip([r.height / r.width for r in records], 0.4, 2.5).mean())
    figure = matplotlib.figure.Figure(
        figsize=(5.2 * columns, (2.6 * shape + 0.25) * rows), layout="constrained"
    )
    axes = figure.subplots(rows, 2 * columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for i, (record, found) in enumerate(zip(records, predictions, strict=True)):
        try:
            image = decode(record.image)
            for axis, what, name in (
                (axes[2 * i], task.truth(record), "truth"),
                (axes[2 * i + 1], found, "prediction"),
            ):
                title = f"{plain(record.file_name, 30)}: {name}"
                axis.set_title(title, fontsize=8, parse_math=False)
                axis.imshow(task.draw(image, what, classes, most_side=PANEL_SIDE))
        except (ValueError, MemoryError, cv2.error) as error:
            print(
                f"warning: {plain(record.file_name, 200)} is not drawn in {path} "
                f"({reason(error)})",
                file=sys.stderr,
            )
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(path, dpi=120)


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
        data = data[:_HEADER] + _MARK + data[_HEADER:]
    files.write_bytes(path, data)


def is_drawing(path: pathlib.Path) -> bool:
    """Whether `path` is a PNG file that `save` wrote."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(_HEADER + len(_MARK)).endswith(_MARK)
    except OSError:
        return False
