"""Synthetic images of coloured shapes: a data set without download.

One to six circles, rectangles, triangles and stars lie on each other before a textured
background. The class is the shape; colours, sizes, rotations and positions are random.
Masks are the visible parts, and objects that are almost hidden are not annotated.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np

from detjax import settings
from detjax.data import rle
from detjax.data.records import (
    Annotation,
    Box,
    Catalogue,
    Dataset,
    Reading,
    Record,
    collect,
)
from detjax.settings import Count, Range, Seed

TASK = "detection"
POOL = None

CLASSES = ("circle", "rectangle", "triangle", "star")
MAX_OBJECTS = 6
# Sides of pictures on which an object can be seen, in pixels.
Side = Annotated[int, Range(8)]
# Of a shape that is alone.
SINGLE: dict[str, Any] = {"span": (0.3, 0.7), "centres": (0.25, 0.75)}
# Increment on any change of the images.
EDITION = 1

# Sizes as a fraction of the picture's side: 14 to 70 pixels of 128.
SPAN = (14 / 128, 70 / 128)
# Where in the picture their centres lie.
CENTRES = (0.1, 0.9)
# Minimum visible part of an annotated object, as a fraction of itself and of the
# picture (40 pixels of 128 x 128).
_VISIBLE, _PIXELS = 0.12, 40 / 128**2

# Noise does not compress: searching for repetitions only costs time.
_PNG = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]


def records(split: str, num: int, size: int = 128, seed: int = 0) -> list[Record]:
    """`num` pictures of `size` x `size`; number i depends on (seed, split, i) alone."""
    return [record(i, split, size, seed) for i in range(num)]


class Drawn(NamedTuple):
    """A picture, and what is in it."""

    image: np.ndarray  # [h w 3] uint8
    owner: np.ndarray  # [h w]: object i owns the pixels of value i + 1
    labels: list[int]  # every object's class
    # Of every object the box of all that is in the picture, what is hidden included
    wholes: list[Box]


def record(
    i: int,
    split: str,
    size: int = 128,
    seed: int = 0,
    single: bool = False,
    amodal: bool = False,
) -> Record:
    """Picture number `i` of a split, of `size` x `size`."""
    how = {"most": 1, **SINGLE} if single else {}
    image, owner, labels, wholes = picture(stream(split, seed, i), size, **how)
    made = Record(i + 1, f"{split}_{i:06d}.png", size, size, image=encoded(image))
    made.truth = annotations(i, owner, labels)
    if amodal:
        for annotation in made.truth:
            annotation.amodal = wholes[annotation.id % 100 - 1]
    return made


def stream(split: str, seed: int, i: int) -> np.random.Generator:
    """The random stream of picture number `i` of a split."""
    code = int.from_bytes(hashlib.sha256(split.encode()).digest()[:4], "big")
    return np.random.default_rng([seed, code, i])


def encoded(image: np.ndarray) -> bytes:
    """The bytes of a PNG of `image` [h w 3]."""
    return cv2.imencode(".png", image, _PNG)[1].tobytes()


def annotations(i: int, owner: np.ndarray, labels: Sequence[int]) -> list[Annotation]:
    """The objects of picture number `i`, as `picture` has them."""
    return [
        Annotation((i + 1) * 100 + value, box, labels[value - 1], area, rle=code)
        for value, (code, box, area) in rle.instances(owner).items()
    ]


def read_entry(i: int, **which: Any) -> Reading:
    """Picture number `i`, as a catalogue has it."""
    return Reading(record(i, **which), [])


def picture(
    rng: np.random.Generator,
    size: int,
    kinds: Sequence[str] = CLASSES,
    most: int = MAX_OBJECTS,
    span: tuple[float, float] = SPAN,
    centres: tuple[float, float] = CENTRES,
    hide: bool = True,
) -> Drawn:
    """An image, who owns each pixel, and every object's class and whole extent.

    There are 1 to `most` objects of `kinds`, which the classes are indices of, and of
    sizes in the `span` (least, most) of shares of the picture's side, as `centres` are
    the range of their centres. Object i owns the pixels of value i + 1; 0 is background
    and, with `hide`, objects that are almost hidden.
    """
    canvas = background(rng, size)
    owner = np.zeros((size, size), np.uint8)
    labels, areas, wholes = [], [0], []
    for value in range(1, rng.integers(1, most + 1) + 1):
        labels.append(int(rng.integers(len(kinds))))
        mask = outline(rng, kinds[labels[-1]], size, span, centres)
        paint(rng, canvas, mask)
        owner[mask] = value
        areas.append(int(mask.sum()))
        wholes.append(around(mask))
    canvas += rng.standard_normal(canvas.shape, np.float32) * rng.uniform(3, 9)
    seen = np.bincount(owner.ravel(), minlength=len(areas))
    hidden = hide & (seen < np.maximum(_VISIBLE * np.array(areas), _PIXELS * size**2))
    owner[hidden[owner]] = 0
    return Drawn(np.clip(canvas, 0, 255).astype(np.uint8), owner, labels, wholes)


def around(mask: np.ndarray) -> Box:
    """The box xyxy around a mask [h w]; zeros of an empty one."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    x1, x2 = float(columns[0]), float(columns[-1] + 1)
    return x1, float(rows[0]), x2, float(rows[-1] + 1)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A slope from one colour to another under cloudy texture, [h w 3] float32."""
    ends = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    ramp = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    slope = (ramp - ramp.min()) / np.ptp(ramp)
    cells = int(rng.integers(3, 16))
    coarse = rng.standard_normal((cells, cells, 3), np.float32) * rng.uniform(5, 20)
    clouds = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    canvas = ends[0] + slope[..., None] * (ends[1] - ends[0]) + clouds
    return canvas.astype(np.float32)


def outline(
    rng: np.random.Generator,
    kind: str,
    size: int,
    span: tuple[float, float] = SPAN,
    centres: tuple[float, float] = CENTRES,
) -> np.ndarray:
    """The pixels [h w] bool of one shape at a random place, turn and size."""
    radius = size * rng.uniform(*span) / 2
    centre = size * rng.uniform(*centres, 2)
    mask = np.zeros((size, size), np.uint8)
    if kind == "circle":
        cv2.circle(mask, np.rint(centre).astype(int).tolist(), round(radius), 1, -1)
        return mask.astype(bool)
    corners = _corners(rng, kind) * radius
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    corners = corners @ np.array([[cos, sin], [-sin, cos]]) + centre
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
    return mask.astype(bool)


def _corners(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A polygon's corners [n 2] in the unit circle."""
    if kind == "rectangle":
        half = rng.uniform(0.3, np.pi / 4)  # from about 3:1 to square
        angles = np.array([half, np.pi - half, np.pi + half, -half])
    elif kind == "cross":
        turn = np.pi / 2 * np.arange(4)[:, None]
        angles = (turn + np.array([-0.3, 0.3, np.pi / 4])).ravel()
    else:
        count = {"triangle": 3, "hexagon": 6, "star": 10, "ellipse": 32}[kind]
        angles = 2 * np.pi * np.arange(count) / count
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if kind == "star":
        corners[1::2] *= 0.42
    if kind == "cross":
        corners[2::3] *= np.sqrt(2) * np.sin(0.3)
    if kind == "ellipse":
        corners[:, 1] *= rng.uniform(0.35, 0.65)
    return corners


def paint(rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray) -> None:
    """Fills `mask` with a slightly shaded colour that contrasts with the background."""
    if not mask.any():
        return
    covered = canvas[mask].mean(axis=0)
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - covered).max() < 60:
        colour = rng.uniform(0, 255, 3)
    side = canvas.shape[0]
    shade = np.linspace(-1, 1, side, dtype=np.float32) * np.float32(
        rng.uniform(-25, 25)
    )
    shaded = np.broadcast_to(shade[:, None], mask.shape)[mask]
    canvas[mask] = colour.astype(np.float32) + shaded[:, None]


def catalogues(
    *,
    num_train: Count = 2000,
    num_val: Count = 200,
    size: Side = 128,
    seed: Seed = 0,
    single: bool = False,
    amodal: bool = False,
) -> dict[str, Catalogue]:
    """The splits train and val of drawn shapes.

    num_train, num_val: images of each.
    size: their side in pixels.
    seed: another one draws others.
    single: one large shape each, for classification with localisation.
    amodal: whether the whole extent of each shape is known, what is hidden included.

    Raises UserError for invalid numbers.
    """
    given = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    switches = {"single": single, "amodal": amodal}
    settings.check_all("shapes", catalogues, {**given, **switches})
    which: dict[str, Any] = {"size": size, "seed": seed, **switches}
    found = drawn(read_entry, CLASSES, num_train, num_val, **which)
    return {s: dataclasses.replace(c, amodal=amodal) for s, c in found.items()}


def drawn(
    read: Callable[..., Reading],
    classes: tuple[str, ...],
    num_train: int,
    num_val: int,
    **which: Any,
) -> dict[str, Catalogue]:
    """The splits train and val of pictures that `read` (i, split, **which) draws."""
    return {
        split: Catalogue(
            split, classes, range(num), functools.partial(read, split=split, **which)
        )
        for split, num in (("train", num_train), ("val", num_val))
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *,
    num_train: int = 2000,
    num_val: int = 200,
    size: int = 128,
    seed: int = 0,
    single: bool = False,
    amodal: bool = False,
) -> dict[str, str]:
    """A text that identifies each split of `read_splits`."""
    what = "images of one shape" if single else "images"
    what += " with whole extents" if amodal else ""
    return {
        split: f"{num} {what} of {size}, seed {seed}, edition {EDITION}"
        for split, num in (("train", num_train), ("val", num_val))
    }
