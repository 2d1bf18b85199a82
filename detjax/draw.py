"""Pictures of detections, through supervision and matplotlib."""

import pathlib
import struct
import sys
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib.figure
import numpy as np
import supervision as sv

from detjax import files
from detjax.data import rle
from detjax.data.loader import decode
from detjax.data.records import Record
from detjax.errors import reason
from detjax.evaluate import points_of
from detjax.predict import Found

# Small pictures are enlarged, but to no longer side than this.
ENLARGED_SIDE = 2000
# Pictures of a comparison are an inch or two wide: larger ones are shrunk first, so
# that names and boxes stay as large as in small ones.
PANEL_SIDE = 720
# Above this many, spreading labels out takes minutes and there is no room for them.
MOST_LABELS = 100
# What a PNG file that was drawn here says of itself, after its header.
_TEXT = b"Software\0detjax"
_MARK = struct.pack(">I", len(_TEXT)) + b"tEXt" + _TEXT
_MARK += struct.pack(">I", zlib.crc32(b"tEXt" + _TEXT))
_HEADER = 8 + 25  # bytes of a PNG file's signature and header


def detections(
    image: np.ndarray,
    found: Found,
    classes: Sequence[str],
    *,
    least_side: int = 480,
    most_side: int | None = None,
) -> np.ndarray:
    """A copy of `image` [h w 3] uint8 with all that was found drawn in.

    That is masks, boxes, keypoints of a score above 0, names and scores. Small pictures
    are enlarged to `least_side` pixels first, so that text can be read, and those with
    a side above `most_side` are shrunk. Instances of a one-class set are told apart by
    colour; otherwise it is the class.
    """
    size = canvas_size(image.shape[:2], least_side, most_side)
    smaller = size[0] < image.shape[0] or size[1] < image.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    canvas: Any = cv2.resize(image, size[::-1], interpolation=kind)
    if not len(found.boxes):
        return canvas
    h, w = size
    scale = np.divide(size, image.shape[:2])[::-1]
    boxes = np.nan_to_num(np.asarray(found.boxes, np.float64)) * np.tile(scale, 2)
    drawn = sv.Detections(
        xyxy=np.clip(boxes, 0, [w, h, w, h]).astype(np.float32),
        class_id=np.asarray(found.labels, int),
    )
    several = len(classes) > 1
    lookup = sv.ColorLookup.CLASS if several else sv.ColorLookup.INDEX
    if found.rles:
        shades = found.labels if several else range(len(found.labels))
        canvas = blended(canvas, found, [int(shade) for shade in shades])
    # Lines and letters grow with large pictures, which are looked at as a whole.
    unit = max(1.0, min(size) / 800)
    canvas = sv.BoxAnnotator(thickness=round(2 * unit), color_lookup=lookup).annotate(
        canvas, drawn
    )
    if found.keypoints is not None:
        points = _inside(found.keypoints, scale, size)
        canvas = sv.VertexAnnotator(radius=round(3 * unit)).annotate(canvas, points)
    # Names on dozens of small objects would hide them all.
    side = np.sqrt(np.prod(drawn.xyxy[:, 2:] - drawn.xyxy[:, :2], axis=1)).mean()
    many = len(found.boxes) > 12 and side < 60 * unit
    if many or len(found.boxes) > MOST_LABELS:
        return canvas
    labels = [
        plain(classes[label], 40) + ("" if np.isnan(score) else f" {score:.2f}")
        for label, score in zip(found.labels, found.scores, strict=True)
    ]
    return sv.LabelAnnotator(
        text_scale=0.4 * unit,
        text_thickness=round(unit),
        text_padding=round(2 * unit),
        color_lookup=lookup,
        smart_position=True,
    ).annotate(canvas, drawn, labels)


def canvas_size(
    size: tuple[int, int], least_side: int, most_side: int | None
) -> tuple[int, int]:
    """(h, w) at which a picture of `size` is drawn; see `detections`."""
    scale = max(1.0, min(least_side / min(size), ENLARGED_SIDE / max(size)))
    if most_side is not None:
        scale = min(scale, most_side / max(size))
    h, w = (max(1, round(side * scale)) for side in size)
    return h, w


def blended(canvas: np.ndarray, found: Found, shades: Sequence[int]) -> np.ndarray:
    """`canvas` with the masks of `found` on it, in the palette's colours `shades`.

    Small masks lie on large ones. Only one mask is decoded at a time, in its box.
    """
    codes = [code["counts"] for code in found.rles]
    codes = [code.encode() if isinstance(code, str) else code for code in codes]
    runs = rle.runs_of_all(codes, found.size)
    before = np.append(0, np.cumsum(runs.highs - runs.lows))[runs.first]
    scale = np.divide(canvas.shape[:2], found.size)[::-1]
    painted = canvas.copy()
    for i in np.argsort(before[:-1] - before[1:], kind="stable"):
        ends = runs.boxes[i].reshape(2, 2)
        if (ends[0] == ends[1]).any():
            continue
        (x1, y1), (x2, y2) = np.rint(ends * scale).astype(int)
        x1, y1 = min(x1, canvas.shape[1] - 1), min(y1, canvas.shape[0] - 1)
        side = max(x2 - x1, 1), max(y2 - y1, 1)
        window = runs.shades(i).T
        if side != window.shape[::-1]:
            window = cv2.resize(np.ascontiguousarray(window), side)
        colour = sv.ColorPalette.DEFAULT.by_idx(shades[i]).as_bgr()
        part = painted[y1 : y1 + side[1], x1 : x1 + side[0]]
        np.copyto(part, np.array(colour, np.uint8), where=(window > 127)[..., None])
    return cv2.addWeighted(painted, 0.45, canvas, 0.55, 0)


def _inside(
    keypoints: np.ndarray, scale: np.ndarray, size: tuple[int, int]
) -> sv.KeyPoints:
    """`keypoints` [n k 3] on a canvas of `size`; those outside are not visible."""
    places = np.asarray(keypoints[..., :2], np.float64) * scale
    # What is not a number is not inside either.
    inside = ((places >= 0) & (places <= size[::-1])).all(axis=-1)
    return sv.KeyPoints(
        xy=np.where(inside[..., None], places, 0).astype(np.float32),
        visible=inside & (keypoints[..., 2] > 0),
    )


def plain(text: str, limit: int) -> str:
    """`text` in one line of at most `limit` characters, the last ones, that print."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else f"…{text[1 - limit :]}"


def truth(record: Record) -> Found:
    """The annotations of `record` as detections without a score."""
    some = [a for a in record.annotations if not a.crowd]
    size = (record.height, record.width)
    rles = [{"size": [*size], "counts": a.rle} for a in some if a.rle]
    return Found(
        np.array([a.box for a in some], np.float32).reshape(-1, 4),
        np.full(len(some), np.nan),
        np.array([a.label for a in some], int),
        rles if some and len(rles) == len(some) else None,
        keypoints=points_of([a.keypoints for a in some]),
        size=size,
    )


def comparison(
    path: str | pathlib.Path,
    records: Sequence[Record],
    predictions: Sequence[Found],
    classes: Sequence[str],
    *,
    columns: int = 3,
) -> None:
    """Writes a grid to `path`: of each record the truth, the prediction beside it.

    A picture that cannot be drawn is told of on stderr, and its place stays empty.
    """
    rows = -(-len(records) // columns)
    # Strips would make the figure a strip of any length.
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
                (axes[2 * i], truth(record), "truth"),
                (axes[2 * i + 1], found, "prediction"),
            ):
                title = f"{plain(record.file_name, 30)}: {name}"
                axis.set_title(title, fontsize=8, parse_math=False)
                axis.imshow(detections(image, what, classes, most_side=PANEL_SIDE))
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
    """Writes `image` [h w 3] uint8 RGB to `path`, whole or not at all.

    A PNG file says that it was drawn here; see `is_drawing`. Raises OSError where it
    cannot be written.
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
