"""Random colours and random geometry for one image.

Geometry is accumulated in one 3x3 affine matrix from original pixels to a frame; pixels
and masks are warped once, at the end.

The recipe is SSD's (Liu et al., ECCV 2016, sec. 2.2 and 3.6), which YOLACT trains with;
the crops of classifiers are Inception's (Szegedy et al., CVPR 2015, sec. 6).
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from detjax.data.colours import Colours, blurring, erasing, photometric
from detjax.data.frames import Frame, centred, move_boxes, overlap, rotation, scaling
from detjax.data.randaugment import MOST, randaugment
from detjax.settings import Count, Fraction, Positive, Range, Rising, Span, Whole

_OVERLAPS = (-1.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # below 0: no crop
_TRIES = 10  # windows of a random-resized crop that are drawn before one is fitted
Degrees = Annotated[float, Range(-180, 180)]
Area = Annotated[float, Range(1e-6, 1)]


def expand(rng: np.random.Generator, frame: Frame, most: float) -> Frame:
    """`frame` inside a canvas of up to `most` times its sides, with probability 1/2."""
    if most <= 1 or rng.random() < 0.5:
        return frame
    h, w = frame.size
    ratio = rng.uniform(1, most)
    dx, dy = rng.uniform(0, w * ratio - w), rng.uniform(0, h * ratio - h)
    return Frame(scaling(1, 1, dx, dy) @ frame.matrix, (h * ratio, w * ratio))


def iou_crop(rng: np.random.Generator, frame: Frame, boxes: np.ndarray) -> Frame:
    """A window of 0.3 to 1 of each side that meets an object with some overlap.

    The overlap (IoU of window and box) is at least one of .1, .3, .5, .7, .9, or free,
    or the full frame is kept. A window holds at least one object's centre.
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


def rescale(rng: np.random.Generator, frame: Frame, span: tuple[float, float]) -> Frame:
    """A random window of the frame's shape, which magnifies it `span` times."""
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


def resized_crop(
    rng: np.random.Generator,
    frame: Frame,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Frame:
    """A random window of a share of the frame's `area`, of a w / h out of `ratio`.

    The logarithm of the ratio is uniform. Where ten windows in turn do not fit into the
    frame, the largest of the nearest ratio, from its middle.
    """
    h, w = frame.size
    for _ in range(_TRIES):
        pixels = h * w * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        side, across = math.sqrt(pixels * shape), math.sqrt(pixels / shape)
        if side <= w and across <= h:
            x, y = rng.uniform(0, w - side), rng.uniform(0, h - across)
            return Frame(scaling(1, 1, -x, -y) @ frame.matrix, (across, side))
    shape = min(max(w / h, ratio[0]), ratio[1])
    side, across = min(w, h * shape), min(h, w / shape)
    x, y = (w - side) / 2, (h - across) / 2
    return Frame(scaling(1, 1, -x, -y) @ frame.matrix, (across, side))


def sized_crop(
    rng: np.random.Generator,
    frame: Frame,
    size: tuple[int, int],
    span: tuple[float, float],
) -> Frame:
    """A random window of `size` (h, w) pixels of the frame, magnified `span` times.

    It lies inside of the frame, and where that is smaller, has all of it.
    """
    zoom = rng.uniform(*span)
    sides = [side / zoom for side in size]
    dy, dx = (
        rng.uniform(min(0, whole - side), max(0, whole - side))
        for side, whole in zip(sides, frame.size, strict=True)
    )
    return Frame(scaling(1, 1, -dx, -dy) @ frame.matrix, (sides[0], sides[1]))


def rotated(
    rng: np.random.Generator, frame: Frame, degrees: float | tuple[float, float]
) -> Frame:
    """`frame`, its contents turned around its middle by an angle out of `degrees`.

    A number stands for as much both ways; above 0 is clockwise.
    """
    low, high = (
        (-degrees, degrees) if isinstance(degrees, float | int) else tuple(degrees)
    )
    if low == high == 0:
        return frame
    h, w = frame.size
    turn = rotation(rng.uniform(low, high), (w / 2, h / 2))
    return Frame(turn @ frame.matrix, frame.size)


def augment(
    rng: np.random.Generator,
    size: tuple[int, int],
    boxes: np.ndarray,
    *,
    colour: bool = False,
    blur: Fraction = 0.0,
    blur_sigma: Span = (0.1, 2.0),
    expand_to: Annotated[float, Range(1)] = 1.0,
    crop: bool = False,
    crop_area: Annotated[tuple[Area, Area], Rising()] | None = None,
    crop_ratio: Span = (3 / 4, 4 / 3),
    crop_size: tuple[Count, Count] | None = None,
    scale: tuple[Positive, Positive] = (1, 1),
    mirror: bool = False,
    turn: bool = False,
    rotate: Degrees | Annotated[tuple[Degrees, Degrees], Rising()] = 0.0,
    randaugment_count: Whole = 0,
    randaugment_magnitude: Annotated[float, Range(0, MOST)] = 9.0,
    erase: Fraction = 0.0,
    erase_area: Annotated[tuple[Area, Area], Rising()] = (0.02, 0.33),
) -> tuple[Colours, Frame]:
    """Random colours for an image of `size` (h, w), and the frame to warp it into.

    colour: brightness, contrast, saturation and hue, as SSD changes them.
    blur: the probability of a Gaussian blur.
    blur_sigma: the range of its sigma in pixels of the network's input.
    expand_to: the most times that the sides of a canvas around the image are as long.
    crop: a window that meets an object, as SSD draws it.
    crop_area: the range of a random-resized crop's share of the area; None is none.
    crop_ratio: the range of such a crop's width by height.
    crop_size: the (h, w) in pixels of a window that is cut out of the picture after it
        was enlarged `scale` times, as segmentation is trained: with an input of that
        size, pixels are shown `scale` times as large as they are. What the picture does
        not fill is padding.
    scale: the range of a zoom.
    mirror: left to right, every second time.
    turn: the eight symmetries of the square, for images without orientation, such as
        microscopy.
    rotate: the range of a rotation in degrees, or the most of them both ways.
    randaugment_count: operations of RandAugment (Cubuk et al. 2020), 2 in the paper.
    randaugment_magnitude: how strong they are, of at most 30.
    erase: the probability that a rectangle becomes noise (Zhong et al. 2020).
    erase_area: the range of its share of the input.

    `boxes` [n 4] in original pixels steer `crop`. Objects whose centre a crop leaves
    out are dropped. A rotation is clockwise above 0, and shows the fill colour where
    the image ends; see `frames.move_boxes` for what becomes of boxes.
    """
    colours = photometric(rng) if colour else Colours()
    frame = expand(rng, Frame(np.eye(3), size), expand_to)
    if crop:
        frame = iou_crop(rng, frame, boxes)
    if crop_area is not None:
        frame = resized_crop(rng, frame, crop_area, crop_ratio)
    if crop_size is None:
        frame = rescale(rng, frame, scale)
    else:
        frame = sized_crop(rng, frame, crop_size, scale)
    tosses = rng.random(3) < 0.5
    frame = flip(
        frame,
        horizontal=bool(tosses[0]) and (mirror or turn),
        vertical=bool(tosses[1]) and turn,
        transpose=bool(tosses[2]) and turn,
    )
    # After what there was before them, so that its draws stay what they were.
    colours = blurring(rng, colours, blur, blur_sigma)
    frame = rotated(rng, frame, rotate)
    if randaugment_count:
        frame, operations = randaugment(
            rng, frame, randaugment_count, randaugment_magnitude
        )
        colours = colours._replace(operations=operations)
    return erasing(rng, colours, erase, erase_area, frame.size), frame


def turns(settings: Mapping[str, Any]) -> bool:
    """Whether `augment` with these settings turns or shears pictures."""
    return bool(settings.get("rotate") or settings.get("randaugment_count"))
