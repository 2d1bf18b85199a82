"""Drawings of detections, through supervision."""

import colorsys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from detjax.data import rectangles, rle
from detjax.data.handed import rgb
from detjax.data.records import Annotation, Record
from detjax.draw import canvas, font, font_path, plain
from detjax.tasks.detection.compared import points_of
from detjax.tasks.detection.restore import Found

# Colours of classes: those of Okabe and Ito, then others, none of them pale.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F3C8D"),
    *("#F0E442", "#E73F74", "#80BA5A", "#4B4B8F", "#E68310", "#008695", "#CF1C90"),
    *("#F97B72", "#66C5CC", "#11A579", "#A5AA99", "#3969AC", "#B4771F"),
)
# The instances of a class in turn: how much lighter or darker, of one hue, since others
# would be taken for classes.
SHADES = (0, 0.35, -0.25, 0.55, -0.12, 0.2)
# With more objects than this, those are named that are large enough for it.
FEW_OBJECTS = 12
# Above this many, spreading labels out takes long and there is no room for them.
MOST_LABELS = 40
LEGEND_CLASSES = 8


def draw(
    image: Any,
    found: Found,
    classes: Sequence[str],
    *,
    least_side: int = 480,
    most_side: int | None = None,
) -> np.ndarray:
    """A copy of `image`, [h w 3] uint8 or of PIL, with all that was found drawn in.

    That is masks, boxes, keypoints of a score above 0, names and scores; boxes at an
    angle take the others' place, and those of whole objects are dashed. Small pictures
    are enlarged to `least_side` pixels first, so that text can be read, and those with
    a side above `most_side` are shrunk. A class has a colour, its instances shades of
    it; those of a one-class set have colours of their own. Where objects are many and
    small, a legend with their numbers stands for their names.
    """
    import supervision as sv  # here: it brings matplotlib and scipy

    image = rgb(image)
    # supervision draws in BGR.
    drawing: Any = np.ascontiguousarray(canvas(image, least_side, most_side)[..., ::-1])
    if not len(found.boxes):
        return drawing[..., ::-1]
    h, w = size = drawing.shape[:2]
    scale = np.divide(size, image.shape[:2])[::-1]
    boxes = np.nan_to_num(np.asarray(found.boxes, np.float64)) * np.tile(scale, 2)
    labels = np.asarray(found.labels, int)
    drawn = sv.Detections(
        xyxy=np.clip(boxes, 0, [w, h, w, h]).astype(np.float32), class_id=labels
    )
    tints = colours(labels, len(classes))
    palette = sv.ColorPalette([sv.Color(*tint) for tint in tints])
    index = sv.ColorLookup.INDEX
    # Lines and letters grow with large pictures, which are looked at as a whole.
    unit = max(1.0, min(size) / 800)
    if found.rles:
        drawing = blended(drawing, found, tints, max(1, round(1.5 * unit)))
    letter = round(13 * unit)
    some = _named(drawn.xyxy, letter)
    thickness = round((2 if some.any() else 1) * unit)
    if found.oriented is None:
        drawing = sv.BoxAnnotator(
            color=palette, thickness=thickness, color_lookup=index
        ).annotate(drawing, drawn)
    else:
        turned = rectangles.corners(found.oriented) * scale
        drawing = _framed(drawing, turned, tints, thickness)
    if found.amodal is not None:
        whole = np.asarray(found.amodal, np.float64) * np.tile(scale, 2)
        drawing = _dashed(drawing, whole, tints, thickness)
    if found.keypoints is not None:
        points = _inside(found.keypoints, scale, size)
        drawing = sv.VertexAnnotator(radius=round(3 * unit)).annotate(drawing, points)
    if some.any():
        texts = _texts(found, classes)
        chosen = np.flatnonzero(some)
        bright = [_on(tints[i]) for i in chosen]
        part: Any = drawn[chosen]
        drawing = sv.RichLabelAnnotator(
            color=sv.ColorPalette([sv.Color(*tints[i]) for i in chosen]),
            text_color=sv.ColorPalette([sv.Color(*tint) for tint in bright]),
            font_path=font_path(),
            font_size=letter,
            text_padding=round(2 * unit),
            color_lookup=index,
            smart_position=True,
        ).annotate(drawing, part, [texts[i] for i in chosen])
    drawing = np.ascontiguousarray(drawing[..., ::-1])
    return drawing if some.all() else legend(drawing, drawn, classes, letter)


def colours(labels: np.ndarray, num_classes: int) -> list[tuple[int, int, int]]:
    """The RGB colour of each of the detections with these labels.

    The first of a class has the class's own.
    """
    if num_classes == 1:
        return [_shade(PALETTE[i % len(PALETTE)], 0) for i in range(len(labels))]
    seen: Counter[int] = Counter()
    found = []
    for label in labels.tolist():
        found.append(_shade(PALETTE[label % len(PALETTE)], seen[label]))
        seen[label] += 1
    return found


def _shade(colour: str, instance: int) -> tuple[int, int, int]:
    """Shade number `instance` of a colour '#RRGGBB'."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    lighter = SHADES[instance % len(SHADES)]
    if lighter:
        hue, light, full = colorsys.rgb_to_hls(red, green, blue)
        light += lighter * (1 - light if lighter > 0 else light)
        red, green, blue = colorsys.hls_to_rgb(hue, light, full)
    return round(255 * red), round(255 * green), round(255 * blue)


def _on(tint: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = tint
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    return (255, 255, 255) if dark else (0, 0, 0)


def _framed(
    canvas: np.ndarray,
    corners: np.ndarray,
    tints: Sequence[tuple[int, int, int]],
    thickness: int,
) -> np.ndarray:
    """`canvas`, BGR, with frames of `corners` [n 4 2] in the RGB colours `tints`."""
    lines = np.rint(np.clip(np.nan_to_num(corners), -(2**15), 2**15)).astype(np.int32)
    for line, tint in zip(lines, tints, strict=True):
        cv2.polylines(canvas, [line], True, tint[::-1], thickness, cv2.LINE_AA)
    return canvas


def _dashed(
    canvas: np.ndarray,
    boxes: np.ndarray,
    tints: Sequence[tuple[int, int, int]],
    thickness: int,
) -> np.ndarray:
    """`canvas`, BGR, with dashed boxes [n 4] in the RGB colours `tints`."""
    dash = 4 * thickness
    boxes = np.clip(np.nan_to_num(boxes), -(2**15), 2**15)
    for (x1, y1, x2, y2), tint in zip(boxes.tolist(), tints, strict=True):
        ring = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
        for start, end in pairwise(ring):
            length = np.abs(end - start).max()
            for far in np.arange(0, length, 2 * dash):
                parts = far / length, min(far + dash, length) / length
                first, last = (np.rint(start + p * (end - start)) for p in parts)
                line = np.array([first, last], np.int32)
                cv2.polylines(canvas, [line], False, tint[::-1], thickness)
    return canvas


def _named(boxes: np.ndarray, letter: int) -> np.ndarray:
    """Which [n] of the boxes [n 4] get a name, of letters `letter` pixels high."""
    if len(boxes) <= FEW_OBJECTS:
        return np.ones(len(boxes), bool)
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    large = side >= 4 * letter
    return large if large.sum() <= MOST_LABELS else np.zeros(len(boxes), bool)


def _texts(found: Found, classes: Sequence[str]) -> list[str]:
    """A name and a score for each detection, a score alone where there is one class."""
    texts = []
    for label, score in zip(found.labels, found.scores, strict=True):
        scored = "" if np.isnan(score) else f"{score:.2f}"
        named = plain(classes[int(label)], 30)
        texts.append(scored if scored and len(classes) == 1 else f"{named} {scored}")
    return [text.strip() or "?" for text in texts]


def legend(
    picture: np.ndarray, drawn: Any, classes: Sequence[str], letter: int
) -> np.ndarray:
    """`picture` with the colours and numbers of its classes in a corner.

    Those of most objects, where there are many; of one class its number alone. The
    corner is the one where it covers least of the boxes `drawn`.
    """
    from PIL import Image, ImageDraw

    numbers = Counter(drawn.class_id.tolist()).most_common()
    lines = [
        (_shade(PALETTE[label % len(PALETTE)], 0), f"{plain(classes[label], 24)} {n}")
        for label, n in numbers[:LEGEND_CLASSES]
    ]
    rest = sum(n for _, n in numbers[LEGEND_CLASSES:])
    if rest:
        lines.append(((255, 255, 255), f"others {rest}"))
    letters, line = font(letter), round(letter * 1.4)
    width = max(round(letters.getlength(text)) for _, text in lines) + 2 * line
    sheet = Image.fromarray(picture)
    pen = ImageDraw.Draw(sheet, "RGBA")
    x, y = _corner(drawn.xyxy, (width, line * len(lines) + 4), sheet.size)
    pen.rectangle(
        (x, y, x + width, y + line * len(lines) + 4), fill=(255, 255, 255, 215)
    )
    for i, (tint, text) in enumerate(lines):
        top = y + i * line + 3
        if len(classes) > 1:
            pen.rectangle((x + 4, top + 1, x + 4 + letter, top + letter), fill=tint)
        left = x + (letter + 10 if len(classes) > 1 else 6)
        pen.text((left, top - 1), text, fill="black", font=letters)
    return np.asarray(sheet)


def _corner(
    boxes: np.ndarray, size: tuple[int, int], sheet: tuple[int, int]
) -> tuple[int, int]:
    """The (x, y) in a corner of `sheet` where `size` covers least; all (w, h)."""
    places = [
        (x, y) for y in (0, sheet[1] - size[1] - 1) for x in (0, sheet[0] - size[0] - 1)
    ]

    def covered(place: tuple[int, int]) -> float:
        low, high = np.array(place), np.add(place, size)
        common = np.minimum(boxes[:, 2:], high) - np.maximum(boxes[:, :2], low)
        return float(np.maximum(common, 0).prod(axis=1).sum())

    return min(places, key=covered)


def truth(record: Record) -> Found:
    """The annotations of `record` as detections without a score."""
    some = [a for a in record.truth if not a.crowd]
    size = (record.height, record.width)
    nothing = rle.from_runs([record.height * record.width], size)
    masked = any(a.rle for a in some)
    # An object without a mask in a set with masks is drawn as its box.
    rles = [{"size": [*size], "counts": a.rle or nothing} for a in some]
    return Found(
        np.array([a.box for a in some], np.float32).reshape(-1, 4),
        np.full(len(some), np.nan),
        np.array([a.label for a in some], int),
        rles if masked else None,
        keypoints=points_of([a.keypoints for a in some]),
        size=size,
        oriented=_turned(some, size),
        amodal=_wholes(some),
    )


def _turned(
    annotations: Sequence[Annotation], size: tuple[int, int]
) -> np.ndarray | None:
    """The boxes at an angle [n 5] where objects have their own; None where none has."""
    if all(a.corners is None for a in annotations):
        return None
    codes, given = zip(*((a.rle, a.corners) for a in annotations), strict=True)
    return rectangles.of_codes(codes, given, size)


def _wholes(annotations: Sequence[Annotation]) -> np.ndarray | None:
    """The boxes [n 4] of whole objects; None where none is known."""
    if all(a.amodal is None for a in annotations):
        return None
    return np.array([a.box if a.amodal is None else a.amodal for a in annotations])


def blended(
    canvas: np.ndarray,
    found: Found,
    tints: Sequence[tuple[int, int, int]],
    outline: int = 1,
) -> np.ndarray:
    """`canvas`, BGR, with the masks of `found` on it, in the RGB colours `tints`.

    Small masks lie on large ones. Outlines, so many pixels wide, are not blended. Only
    one mask is decoded at a time, in its box.
    """
    codes = [code["counts"] for code in found.rles]
    codes = [code.encode() if isinstance(code, str) else code for code in codes]
    runs = rle.runs_of_all(codes, found.size)
    before = np.append(0, np.cumsum(runs.highs - runs.lows))[runs.first]
    scale = np.divide(canvas.shape[:2], found.size)[::-1]
    painted, lines = canvas.copy(), []
    for i in np.argsort(before[:-1] - before[1:], kind="stable").tolist():
        ends = runs.boxes[i].reshape(2, 2)
        if (ends[0] == ends[1]).any():
            continue
        (x1, y1), (x2, y2) = np.rint(ends * scale).astype(int)
        x1, y1 = min(x1, canvas.shape[1] - 1), min(y1, canvas.shape[0] - 1)
        side = max(x2 - x1, 1), max(y2 - y1, 1)
        window = runs.shades(i).T
        if side != window.shape[::-1]:
            window = cv2.resize(np.ascontiguousarray(window), side)
        inside = window > 127
        part = painted[y1 : y1 + side[1], x1 : x1 + side[0]]
        np.copyto(part, np.array(tints[i][::-1], np.uint8), where=inside[..., None])
        lines.append((i, _outlines(inside, (x1, y1))))
    cv2.addWeighted(painted, 0.45, canvas, 0.55, 0, dst=painted)
    for i, contours in lines:
        cv2.drawContours(painted, contours, -1, tints[i][::-1], outline, cv2.LINE_AA)
    return painted


def _outlines(inside: np.ndarray, corner: tuple[int, int]) -> Any:
    """The outlines of a mask whose upper left corner is at (x, y)."""
    return cv2.findContours(
        inside.astype(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(int(corner[0]), int(corner[1])),
    )[0]


def _inside(keypoints: np.ndarray, scale: np.ndarray, size: tuple[int, int]) -> Any:
    """`keypoints` [n k 3] on a canvas of `size`; those outside are not visible."""
    import supervision as sv

    places = np.asarray(keypoints[..., :2], np.float64) * scale
    # What is not a number is not inside either.
    inside = ((places >= 0) & (places <= size[::-1])).all(axis=-1)
    return sv.KeyPoints(
        xy=np.where(inside[..., None], places, 0).astype(np.float32),
        visible=inside & (keypoints[..., 2] > 0),
    )
