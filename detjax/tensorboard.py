"""Pictures and texts as TensorBoard's summaries."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

MOST_SIDE = 1000  # pixels of a picture; larger ones are shrunk
QUALITY = 85  # of their JPEG


def picture(name: str, image: np.ndarray) -> Any:
    """A summary that shows `image` [h w 3] uint8 RGB under `name`."""
    from tensorboardX.proto.summary_pb2 import Summary

    scale = min(1.0, MOST_SIDE / max(image.shape[:2]))
    if scale < 1:
        h, w = (max(1, round(side * scale)) for side in image.shape[:2])
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    data = cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()
    held = Summary.Image(
        height=image.shape[0],
        width=image.shape[1],
        colorspace=3,
        encoded_image_string=data,
    )
    return Summary(value=[Summary.Value(tag=name, image=held)])


def text(name: str, content: str) -> Any:
    """A summary that shows Markdown under `name`."""
    from tensorboardX.summary import text as summary

    return summary(name, content)


def config(sections: Mapping[str, Any]) -> str:
    """The settings of a run as Markdown: a table for each section, by dotted names."""
    lines: list[str] = []
    for section, held in sections.items():
        rows = _flat(held) if isinstance(held, Mapping) else [("", held)]
        lines += [f"**{section}**", "", "| setting | value |", "|---|---|"]
        lines += [f"| `{name}` | `{str(value)[:200]}` |" for name, value in rows]
        lines.append("")
    return "\n".join(lines)


def _flat(held: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (dotted name, value)."""
    found: list[tuple[str, Any]] = []
    for name, value in held.items():
        inner = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{inner}.")
        else:
            found.append((inner, value))
    return found
