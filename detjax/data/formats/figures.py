"""Synthetic figures of jointed limbs with fourteen keypoints: poses without download.

Figures stand, stride and wave before a textured background, with the proportions of a
person, and face us: the left limbs, which are darker, begin on the right. Joints are
those of MPII's protocol, whose PCKh measures distances by the head.
"""

import dataclasses
from typing import Any

import cv2
import numpy as np

from detjax import settings
from detjax.data import rle
from detjax.data.formats import shapes
from detjax.data.records import (
    Annotation,
    Catalogue,
    Dataset,
    Reading,
    Record,
    collect,
)
from detjax.settings import Count, Seed

TASK = "detection"
POOL = None
CLASSES = ("figure",)
KEYPOINTS = (
    *("head_top", "upper_neck"),
    *("left_shoulder", "left_elbow", "left_wrist"),
    *("right_shoulder", "right_elbow", "right_wrist"),
    *("left_hip", "left_knee", "left_ankle"),
    *("right_hip", "right_knee", "right_ankle"),
)
# The height of a figure that stands, as a share of the picture's side.
SPAN = (0.45, 0.75)
# In shares of that height: where limbs begin, to the right of the figure's middle and
# down from its neck, and the lengths of their two parts.
_HEAD, _TRUNK = 0.16, 0.3
_ARM, _LEG = (0.1, 0.02, 0.16, 0.15), (0.06, _TRUNK, 0.25, 0.24)
# Part of a turn by which limbs leave the vertical, at their beginning and at the joint.
_REACH = {_ARM: (0.45, 0.3), _LEG: (0.12, 0.1)}
# A keypoint that another limb covers is there, and not seen.
_HIDDEN, _SEEN = 1, 2
# Increment on any change of the images.
EDITION = 1


def joints(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    """The places [14 2] (x, y) of a figure's joints in pixels, and its height."""
    height = size * rng.uniform(*SPAN)
    lean = rng.normal(0, 0.12)
    down = np.array([np.sin(lean), np.cos(lean)])
    side = np.array([down[1], -down[0]])
    neck = np.zeros(2)
    places = [neck - _HEAD * down, neck]
    for limb in (_ARM, _LEG):
        out, below, upper, lower = limb
        for sign in (1, -1):  # the left of one that faces us is on our right
            start = neck + below * down + sign * out * side
            first = lean + sign * abs(rng.normal(0, _REACH[limb][0] * np.pi / 1.5))
            bend = first + rng.normal(0, _REACH[limb][1] * np.pi)
            joint = start + upper * np.array([np.sin(first), np.cos(first)])
            end = joint + lower * np.array([np.sin(bend), np.cos(bend)])
            places += [start, joint, end]
    found = height * np.array(places)
    low, high = found.min(axis=0), found.max(axis=0)
    room = np.maximum(size - (high - low), 0)
    return found - low + room * rng.uniform(0.1, 0.9, 2), height


def figure(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image [h w 3] uint8, where the figure is [h w] bool, its keypoints [14 3]."""
    canvas = shapes.background(rng, size)
    places, height = joints(rng, size)
    colour = rng.uniform(60, 255, 3)
    while np.abs(colour - canvas.mean(axis=(0, 1))).max() < 60:
        colour = rng.uniform(60, 255, 3)
    owner = np.zeros((size, size), np.uint8)
    width = max(round(0.045 * height), 1)
    head, neck = places[0], places[1]
    limbs = [(places[i : i + 3], 2 + i) for i in (2, 5, 8, 11)]
    # The back ones first: which those are is up to chance.
    for points, code in [limbs[i] for i in rng.permutation(4)]:
        _drawn(owner, points, width, code)
    trunk = places[[2, 5, 11, 8]]
    cv2.fillPoly(owner, [np.rint(trunk).astype(np.int32)], 1)
    centre, radius = (head + neck) / 2, np.linalg.norm(head - neck) / 2
    cv2.circle(owner, np.rint(centre).astype(int).tolist(), round(radius), 1, -1)
    shade = np.ones(14, np.float32)
    shade[[4, 10]], shade[[7, 13]] = 0.55, 0.85  # left arm and leg, right ones
    drawn = np.asarray(owner > 0)
    canvas[drawn] = colour.astype(np.float32) * shade[owner[drawn]][:, None]
    canvas += rng.standard_normal(canvas.shape, np.float32) * rng.uniform(3, 9)
    own = np.zeros(14, int)
    for start, code in ((2, 4), (5, 7), (8, 10), (11, 13)):
        own[start : start + 3] = code
    at = np.clip(np.rint(places), 0, size - 1).astype(int)
    inside = np.all((places >= 0) & (places <= size - 1), axis=1)
    over = owner[at[:, 1], at[:, 0]]
    # Shoulders and hips lie on the trunk, which hides no joint.
    hidden = (over != own) & (over != 1) & (own > 0)
    seen = np.where(inside, np.where(hidden, _HIDDEN, _SEEN), 0)
    points = np.column_stack([places, seen])
    points[~inside] = 0
    return np.clip(canvas, 0, 255).astype(np.uint8), drawn, points.astype(np.float32)


def _drawn(owner: np.ndarray, points: np.ndarray, width: int, code: int) -> None:
    """Draws a limb of two parts into `owner` as `code`."""
    line = np.rint(points).astype(np.int32)
    cv2.polylines(owner, [line], False, code, width)


def record(i: int, split: str, size: int, seed: int) -> Record:
    """Picture number `i` of a split, of `size` x `size`."""
    image, drawn, points = figure(shapes.stream(split, seed, i), size)
    made = Record(i + 1, f"{split}_{i:06d}.png", size, size)
    made.image = shapes.encoded(image)
    [(code, box, area)] = rle.instances(drawn.astype(np.uint8)).values()
    made.truth = [Annotation(i + 1, box, 0, area, rle=code, keypoints=points)]
    return made


def read_entry(i: int, **which: Any) -> Reading:
    """Picture number `i`, as a catalogue has it."""
    return Reading(record(i, **which), [])


def catalogues(
    *,
    num_train: Count = 2000,
    num_val: Count = 200,
    size: shapes.Side = 128,
    seed: Seed = 0,
) -> dict[str, Catalogue]:
    """The splits train and val of drawn figures, one a picture.

    num_train, num_val: images of each.
    size: their side in pixels.
    seed: another one draws others.

    Raises UserError for invalid numbers.
    """
    given = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    settings.check_all("figures", catalogues, given)
    found = shapes.drawn(read_entry, CLASSES, num_train, num_val, size=size, seed=seed)
    return {s: dataclasses.replace(c, keypoints=KEYPOINTS) for s, c in found.items()}


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: collect(c) for s, c in catalogues(**arguments).items()}


def digests(**arguments: Any) -> dict[str, str]:
    """A text that identifies each split of `read_splits`."""
    told = shapes.digests(**arguments)
    return {s: f"figures: {t}, edition {EDITION}" for s, t in told.items()}
