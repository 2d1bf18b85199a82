"""Random colours and random geometry, in numpy and OpenCV, for one image.

Geometry is only ever a 3x3 affine matrix from original pixels to a frame; pixels and
masks are moved once, at the end, whatever was drawn. Coordinates are continuous: the
first pixel's centre is (0.5, 0.5).

The recipe is SSD's (Liu et al., ECCV 2016, sec. 2.2 and 3.6), which YOLACT trains with.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

# What is outside the image: ImageNet's mean, which normalisation turns into zeros.
FILL = (124, 117, 104)
_OVERLAPS = (-1.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # below 0: no crop


class Frame(NamedTuple):
    """A window that images are moved into: its matrix and its (h, w)."""

    matrix: np.ndarray  # [3 3] float64, original pixel (x, y, 1) -> frame pixel
    size: tuple[float, float]


def scaling(x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """The [3 3] matrix of (x', y') = (x * scale + d)."""
    return np.array([[x, 0, dx], [0, y, dy], [0, 0, 1]], np.float64)


def fit(
    frame: Frame, size: tuple[int, int], letterbox: bool, scale: float | None = None
) -> Frame:
    """`frame` brought to `size` (h, w): stretched, or scaled evenly and centred.

    `scale`, where given, is used instead of the one that fills `size`.
    """
    sy, sx = size[0] / frame.size[0], size[1] / frame.size[1]
    if scale is not None:
        sx = sy = scale
    elif letterbox:
        sx = sy = min(sx, sy)
    dx = (size[1] - sx * frame.size[1]) / 2
    dy = (size[0] - sy * frame.size[0]) / 2
    return Frame(scaling(sx, sy, dx, dy) @ frame.matrix, size)


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes [n 4] xyxy under an axis-aligned affine `matrix` [2 or 3, 3]."""
    corners = boxes.reshape(-1, 2, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def move_keypoints(
    points: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    names: tuple[str, ...],
) -> np.ndarray:
    """Keypoints [n k 3] under an affine `matrix` [2 or 3, 3] to a frame of `size`.

    Those outside the frame become zeros, as those are that nobody annotated: visibility
    0. Where `matrix` mirrors, what is called left_ and right_ changes places: the left
    hand of a mirrored person is a right hand.
    """
    h, w = size
    moved = points[..., :2] @ matrix[:2, :2].T + matrix[:2, 2]
    visible = points[..., 2:]
    inside = ((moved >= 0) & (moved <= (w, h))).all(axis=-1, keepdims=True)
    found = np.concatenate([moved, visible], axis=-1) * (inside & (visible > 0))
    mirrored = np.linalg.det(matrix[:2, :2]) < 0
    return found[:, opposites(names)] if mirrored else found


@functools.lru_cache(16)
def opposites(names: tuple[str, ...]) -> list[int]:
    """The number of each keypoint's opposite, left_eye's for right_eye, or its own."""
    turned = {"left": "right", "right": "left"}
    found = []
    for i, name in enumerate(names):
        side, _, part = name.partition("_")
        other = f"{turned.get(side, side)}_{part}"
        found.append(names.index(other) if other in names else i)
    return found


def move_pixels(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], fill=FILL
) -> np.ndarray:
    """`image` [h w] or [h w 3] drawn bilinearly into a frame of `size` (h, w)."""
    if _fills(image, matrix, size):
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.warpAffine(
        image,
        _from_centres(matrix),
        size[::-1],
        flags=cv2.INTER_LINEAR,
        borderValue=fill,
    )


class View(NamedTuple):
    """What is seen of an image in a frame, in whole pixels of both."""

    matrix: np.ndarray  # [3 3], original pixel (x, y, 1) -> frame pixel
    source: tuple[slice, slice]  # rows and columns of the image
    target: tuple[slice, slice]  # rows and columns of the frame


_NOTHING = (slice(0, 0), slice(0, 0))


def snap(frame: Frame, image: tuple[int, int]) -> View:
    """A view of an image of size (h, w) that differs from `frame` by half a pixel.

    So much do the edges of what is seen move, in the image or in the frame, whose sides
    are whole: then pixels can be resized, in a third of the time that warping takes.
    Nothing is seen of an image that has less than a pixel in the frame.
    """
    turned = frame.matrix[0, 0] == 0
    matrix = np.eye(3)
    matrix[:2, :2] = 0
    source, target = [slice(0)] * 2, [slice(0)] * 2
    for axis in (0, 1):  # x and y of the frame
        of = 1 - axis if turned else axis  # the image's axis that runs along it
        scale, shift = float(frame.matrix[axis, of]), float(frame.matrix[axis, 2])
        span = int(frame.size[1 - axis])
        ends = sorted((shift, shift + scale * image[1 - of]))
        there = max(ends[0], 0.0), min(ends[1], span)
        if there[1] - there[0] < 1:
            return View(frame.matrix, _NOTHING, _NOTHING)
        here = sorted((end - shift) / scale for end in there)
        low, high = _whole(here[0], here[1], image[1 - of])
        first, last = _whole(there[0], there[1], span)
        scale = (last - first) / (high - low) * (1 if scale > 0 else -1)
        matrix[axis, of] = scale
        matrix[axis, 2] = first - scale * (low if scale > 0 else high)
        source[1 - of], target[1 - axis] = slice(low, high), slice(first, last)
    return View(matrix, (source[0], source[1]), (target[0], target[1]))


def _whole(low: float, high: float, most: int) -> tuple[int, int]:
    """The whole numbers nearest to an interval's ends, at least one apart."""
    first = min(max(round(low), 0), most - 1)
    return first, min(max(round(high), first + 1), most)


def draw(out: np.ndarray, image: np.ndarray, view: View, colours: "Colours") -> None:
    """Fills `out` [h w 3] with what is seen of `image`, in other colours."""
    part = out[view.target]
    if part.shape != out.shape:
        out[:] = _grey(out.shape[:2])
    if not part.size:
        return
    seen, linear = image[view.source], view.matrix[:2, :2]
    # Colours may come before or after: where there are fewer pixels.
    early = seen.size < part.size
    if early:
        seen = recolour(seen, colours)
    if linear[0, 0] == 0:
        seen = cv2.transpose(seen)
    cv2.resize(seen, part.shape[1::-1], dst=part, interpolation=cv2.INTER_LINEAR)
    if not early:
        part[:] = recolour(part, colours)
    signs = linear.sum(axis=1) < 0
    if signs.any():
        cv2.flip(part, -1 if signs.all() else int(signs[0]), dst=part)


@functools.lru_cache(16)
def _grey(size: tuple[int, int]) -> np.ndarray:
    """An image of FILL: copying it is faster than repeating three numbers."""
    return np.full((*size, 3), FILL, np.uint8)


def _fills(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether `matrix` stretches all of `image` over all of a frame of `size`."""
    h, w = image.shape[:2]
    whole = scaling(size[1] / w, size[0] / h)
    return bool(np.abs(matrix[:2] - whole[:2]).max() <= 1e-9)


def _from_centres(matrix: np.ndarray) -> np.ndarray:
    """`matrix` [3 3] as [2 3] for OpenCV, whose pixel centres are whole numbers."""
    linear = matrix[:2, :2]
    shift = matrix[:2, 2] + linear.sum(axis=1) / 2 - 0.5
    return np.concatenate([linear, shift[:, None]], axis=1)


class Colours(NamedTuple):
    """What is done to a picture's colours, in this order; None where nothing is."""

    before: tuple[float, float] | None = None  # (a, b): values become a * value + b
    hsv: tuple[float, float] | None = None  # degrees of hue, factor of saturation
    after: tuple[float, float] | None = None  # as before


def photometric(rng: np.random.Generator) -> Colours:
    """Random brightness, contrast, saturation and hue, half the time each.

    SSD's order: contrast comes before the colours or after them, by a toss.
    """

    def drawn(low, high, otherwise):
        return rng.uniform(low, high) if rng.random() < 0.5 else otherwise

    brightness, contrast = drawn(-32, 32, 0.0), drawn(0.5, 1.5, 1.0)
    saturation, hue = drawn(0.5, 1.5, 1.0), drawn(-18, 18, 0.0)
    early = contrast if rng.random() < 0.5 else 1.0
    late = contrast / early
    return Colours(
        before=(early, early * brightness) if (early, brightness) != (1, 0) else None,
        hsv=(hue, saturation) if (hue, saturation) != (0, 1) else None,
        after=(late, 0.0) if late != 1 else None,
    )


def recolour(image: np.ndarray, colours: Colours) -> np.ndarray:
    """`image` [h w 3] uint8 in other colours, rounded and clipped at each step."""
    if colours.before is not None:
        image = _linear(image, *colours.before)
    if colours.hsv is not None:
        hue, saturation = colours.hsv
        # The full circle of hues is 256 steps here, so that bytes run over rightly.
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        steps = np.array([round(hue * 256 / 360) % 256, 0, 0], np.uint8)
        rows = hsv.reshape(len(hsv), -1)
        rows += np.tile(steps, hsv.shape[1])
        if saturation != 1:
            hsv = cv2.transform(hsv, np.diag([1, saturation, 1]))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return image if colours.after is None else _linear(image, *colours.after)


def _linear(image: np.ndarray, a: float, b: float) -> np.ndarray:
    """a * `image` + b, rounded and clipped to bytes; faster than a table."""
    return cv2.transform(image, np.column_stack([a * np.eye(3), [b, b, b]]))


def expand(rng: np.random.Generator, frame: Frame, most: float) -> Frame:
    """`frame` inside a canvas of up to `most` times its sides, at a chance of 1/2."""
    if most <= 1 or rng.random() < 0.5:
        return frame
    h, w = frame.size
    ratio = rng.uniform(1, most)
    dx, dy = rng.uniform(0, w * ratio - w), rng.uniform(0, h * ratio - h)
    return Frame(scaling(1, 1, dx, dy) @ frame.matrix, (h * ratio, w * ratio))


def iou_crop(rng: np.random.Generator, frame: Frame, boxes: np.ndarray) -> Frame:
    """A window of 0.3 to 1 of each side that meets an object with some overlap.

    The overlap (IoU of window and box) is at least one of .1, .3, .5, .7, .9, or free,
    or the frame stays whole. A window holds at least one object's centre.
    """
    if len(boxes) == 0:
        return frame
    boxes = move_boxes(boxes, frame.matrix)
    h, w = frame.size
    while True:
        least = _OVERLAPS[rng.integers(len(_OVERLAPS))]
        if least < 0:
            return frame
        sides = rng.uniform(0.3, 1, (50, 2)) * (w, h)
        corners = rng.random((50, 2)) * ((w, h) - sides)
        shapes = sides[:, 1] / sides[:, 0]
        some = (shapes >= 0.5) & (shapes <= 2)
        windows = np.concatenate([corners, corners + sides], axis=1)[some]
        good = centred(boxes, windows).any(axis=1)
        good &= overlap(boxes, windows).max(axis=1) >= least
        if good.any():
            x1, y1, x2, y2 = windows[good.argmax()].tolist()
            return Frame(scaling(1, 1, -x1, -y1) @ frame.matrix, (y2 - y1, x2 - x1))


def centred(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Which boxes [n 4] have their centre inside `window` [... 4]; [... n]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = window[..., None, :2], window[..., None, 2:]
    return ((centre > low) & (centre < high)).all(axis=-1)


def overlap(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """IoU [... n] of each box [n 4] with `window` [... 4]."""
    low = np.maximum(boxes[:, :2], window[..., None, :2])
    high = np.minimum(boxes[:, 2:], window[..., None, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    whole = (window[..., 2:] - window[..., :2]).prod(axis=-1)[..., None]
    return inter / np.maximum(areas + whole - inter, 1e-9)


def rescale(rng: np.random.Generator, frame: Frame, span: tuple[float, float]) -> Frame:
    """A window of the frame's shape that shows it `span` times as large, anywhere."""
    if tuple(span) == (1, 1):
        return frame
    h, w = frame.size
    side = 1 / rng.uniform(*span)
    dx, dy = (
        rng.uniform(min(0, s * (side - 1)), max(0, s * (side - 1))) for s in (w, h)
    )
    return Frame(scaling(1, 1, dx, dy) @ frame.matrix, (h * side, w * side))


def flip(frame: Frame, *, horizontal: bool, vertical: bool, transpose: bool) -> Frame:
    """`frame` mirrored left to right, top to bottom, and along its diagonal."""
    h, w = frame.size
    matrix = frame.matrix
    if horizontal:
        matrix = scaling(-1, 1, w, 0) @ matrix
    if vertical:
        matrix = scaling(1, -1, 0, h) @ matrix
    if transpose:
        return Frame(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]) @ matrix, (w, h))
    return Frame(matrix, (h, w))


def augment(
    rng: np.random.Generator,
    size: tuple[int, int],
    boxes: np.ndarray,
    *,
    colour: bool = False,
    expand_to: float = 1.0,
    crop: bool = False,
    scale: tuple[float, float] = (1, 1),
    mirror: bool = False,
    turn: bool = False,
) -> tuple[Colours, Frame]:
    """Other colours for an image of `size` (h, w), and the frame to move it into.

    `boxes` [n 4] in original pixels steer `crop`. `colour`, `expand_to`, `crop` and
    `mirror` are SSD's; `scale` draws a zoom from a range; `turn` adds the other seven
    symmetries of the square, for pictures that have no up, such as microscopy.
    """
    colours = photometric(rng) if colour else Colours()
    frame = expand(rng, Frame(np.eye(3), size), expand_to)
    if crop:
        frame = iou_crop(rng, frame, boxes)
    frame = rescale(rng, frame, scale)
    tosses = rng.random(3) < 0.5
    return colours, flip(
        frame,
        horizontal=bool(tosses[0]) and (mirror or turn),
        vertical=bool(tosses[1]) and turn,
        transpose=bool(tosses[2]) and turn,
    )
