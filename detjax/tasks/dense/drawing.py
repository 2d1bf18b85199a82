"""Maps of numbers in colours beside a bar that says which, and as files."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from detjax.data import value_maps
from detjax.data.records import Record
from detjax.draw import canvas_size, font, plain
from detjax.tasks.dense.answers import Found, known
from detjax.types import Array

# Of even steps in lightness, whatever kind of eyes look at it.
COLOURS = cv2.COLORMAP_VIRIDIS
UNKNOWN = (190, 190, 190)
ENDS = (0.01, 0.99)  # quantiles of the values that the colours begin and end with
TICKS = 5
ENDING = "-values.tiff"


def truth(record: Record) -> Found:
    """The map of `record` as an answer."""
    size = record.height, record.width
    return Found(*value_maps.decode(record.truth, size))


def files(found: Found, classes: Sequence[str]) -> dict[str, bytes]:
    """The values as a float32 TIFF, exactly; NaN where nothing is known."""
    valid = np.isfinite(found.values)
    if found.valid is not None:
        valid &= found.valid
    return {ENDING: value_maps.encode(found.values, valid)}


def draw(
    image: Any,
    found: Found,
    classes: Sequence[str],
    *,
    least_side: int = 480,
    most_side: int | None = None,
) -> np.ndarray:
    """The values in colours, at the size of a drawing of `image`, above a colour bar.

    The bar names the quantity, the one of `classes`, and goes from the first to the
    last per cent of the values; what is not known is grey. Sizes are those of
    `draw.canvas`.
    """
    h, w = size = canvas_size(found.values.shape, least_side, most_side)
    low, high = span(found)
    # Of what is not known nothing may come near what is.
    valid = np.isfinite(found.values)
    if found.valid is not None:
        valid &= found.valid
    shades = np.clip((np.where(valid, found.values, low) - low) / (high - low), 0, 1)
    drawn = cv2.applyColorMap(np.rint(255 * shades).astype(np.uint8), COLOURS)
    drawn[~valid] = UNKNOWN
    drawn = cv2.resize(drawn[..., ::-1], (w, h), interpolation=cv2.INTER_NEAREST)
    name = classes[0] if len(classes) == 1 else ""
    return below(drawn, low, high, name, max(12, min(size) // 40))


def span(found: Found) -> tuple[float, float]:
    """The values that the colours begin and end with: apart, and finite."""
    values = known(found)
    if not len(values):
        return 0.0, 1.0
    # A part of the pixels of a large picture tells as much.
    low, high = np.quantile(values[:: max(len(values) // 200_000, 1)], ENDS).tolist()
    if high - low > 1e-6 * max(abs(high), abs(low)):
        return low, high
    return low - 0.5, high + 0.5


def below(
    picture: np.ndarray, low: float, high: float, name: str, letter: int
) -> Array:
    """`picture` [h w 3] above a bar of its colours with numbers."""
    from PIL import Image, ImageDraw

    h, w = picture.shape[:2]
    letters, margin = font(letter), letter
    bar = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], COLOURS)[..., ::-1]
    width = max(w - 2 * margin, 1)
    bar = cv2.resize(bar, (width, letter), interpolation=cv2.INTER_LINEAR)
    sheet = Image.new(
        "RGB", (w, h + 4 * letter + (letter * 3 // 2 if name else 0)), "white"
    )
    sheet.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(sheet)
    top = h + letter // 2
    if name:
        pen.text((margin, top), plain(name, 40), fill="black", font=letters)
        top += letter * 3 // 2
    sheet.paste(Image.fromarray(np.ascontiguousarray(bar)), (margin, top))
    digits = _digits(low, high)
    for i in range(TICKS):
        at = margin + i * (width - 1) // (TICKS - 1)
        text = f"{low + (high - low) * i / (TICKS - 1):.{digits}f}"
        pen.line((at, top, at, top + letter * 5 // 4), fill="black")
        long = letters.getlength(text)
        left = min(max(at - long / 2, 0), w - long)
        pen.text((left, top + letter * 3 // 2), text, fill="black", font=letters)
    return np.asarray(sheet)


def _digits(low: float, high: float) -> int:
    """The places after the point that tell numbers of a bar apart."""
    return int(np.clip(2 - np.floor(np.log10(high - low)), 0, 6))
