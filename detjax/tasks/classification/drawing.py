"""Pictures above the names of their classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detjax.data.records import Record
from detjax.draw import canvas, font, plain
from detjax.tasks.classification.answers import Found, written


def truth(record: Record) -> Found:
    """The labels of `record` as an answer without scores."""
    labels = np.array(record.truth, np.int64)
    return Found(labels, np.full(len(labels), np.nan))


def draw(
    image: Any,
    found: Found,
    classes: Sequence[str],
    *,
    least_side: int = 480,
    most_side: int | None = None,
) -> np.ndarray:
    """A copy of `image`, [h w 3] uint8 or of PIL, above the names of its classes.

    The five most probable, and others with a score of at least .5; behind each name is
    a bar as long as the class is probable. Small pictures are enlarged to `least_side`
    pixels first, and those with a side above `most_side` are shrunk.
    """
    from PIL import Image, ImageDraw  # here: evaluating draws nothing

    count = written(found)
    found = Found(found.labels[:count], found.scores[:count])
    picture = canvas(image, least_side, most_side)
    h, w = picture.shape[:2]
    size = max(12, min(h, w) // 20)
    line = size * 3 // 2
    sheet = Image.new("RGB", (w, h + line * len(found.labels)), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    pen, letters = ImageDraw.Draw(sheet), font(size)
    for i, (label, score) in enumerate(zip(found.labels, found.scores, strict=True)):
        top = h + i * line
        known = not np.isnan(score)
        if known:
            right = max(round((w - 1) * float(np.clip(score, 0, 1))), 0)
            pen.rectangle((0, top, right, top + line - 2), fill=(173, 216, 230))
        text = plain(classes[int(label)], 60) + (f"  {score:.2f}" if known else "")
        pen.text((size // 2, top + size // 8), text, fill="black", font=letters)
    return np.asarray(sheet)
