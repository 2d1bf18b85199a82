"""RandAugment (Cubuk et al., NeurIPS 2020): a few operations out of fourteen.

Magnitudes go from 0 to 30, as in the paper, and mean what AutoAugment's largest mean
(Cubuk et al., CVPR 2019, table 6) at 30. What moves pixels changes the frame, so that
boxes, masks and keypoints follow; the rest changes colours.
"""

import math

import numpy as np

from detjax.data.colours import Operation
from detjax.data.frames import Frame, rotation, scaling

MOST = 30
_SHEAR, _DEGREES = 0.3, 30.0
_SHIFT = 150 / 331  # of a side: AutoAugment's pixels, of its pictures
_MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_COLOURS = (
    "identity",
    "autocontrast",
    "equalize",
    "solarize",
    "posterize",
    "colour",
    "contrast",
    "brightness",
    "sharpness",
)
_SIGNED = ("colour", "contrast", "brightness", "sharpness")


def randaugment(
    rng: np.random.Generator, frame: Frame, count: int, magnitude: float
) -> tuple[Frame, tuple[Operation, ...]]:
    """`frame` moved by those of `count` random operations that move, and the others.

    Each is one of fourteen with equal probability, and goes one way or the other where
    there are two.
    """
    share, colours = magnitude / MOST, []
    for _ in range(count):
        name = (*_MOVES, *_COLOURS)[rng.integers(len(_MOVES) + len(_COLOURS))]
        sign = -1 if rng.random() < 0.5 else 1
        if name in _MOVES:
            frame = moved(frame, name, sign * share)
        elif name != "identity":
            colours.append((name, _strength(name, share, sign)))
    return frame, tuple(colours)


def moved(frame: Frame, name: str, share: float) -> Frame:
    """`frame`, its contents moved around its middle by a `share` of the most.

    `share` is from -1 to 1. "shear_x" moves rows along each other by up to 0.3 of their
    distance, "rotate" turns by up to 30 degrees, and "translate_x" moves by up to 0.45
    of the width.
    """
    h, w = frame.size
    if name == "rotate":
        step = rotation(_DEGREES * share, (w / 2, h / 2))
    elif name.startswith("translate"):
        across = name.endswith("x")
        step = scaling(
            1, 1, _SHIFT * share * w * across, _SHIFT * share * h * (not across)
        )
    else:
        step = np.eye(3)
        if name.endswith("x"):
            step[0, 1:] = _SHEAR * share, -_SHEAR * share * h / 2
        else:
            step[1, [0, 2]] = _SHEAR * share, -_SHEAR * share * w / 2
    return Frame(step @ frame.matrix, frame.size)


def _strength(name: str, share: float, sign: int) -> float:
    """The parameter of an operation on colours; see `colours.operated`."""
    if name in _SIGNED:
        return 1 + sign * 0.9 * share
    if name == "posterize":
        return 8 - round(4 * share)  # bits that are kept
    if name == "solarize":
        return 256 - math.floor(256 * share)  # values from there on are inverted
    return 0.0
