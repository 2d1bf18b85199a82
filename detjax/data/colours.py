"""Photometric augmentation of SSD (Liu et al., ECCV 2016): brightness to hue.

And Gaussian blur, as SimCLR has it (Chen et al., ICML 2020, appendix A).
"""

from typing import NamedTuple

import cv2
import numpy as np


class Colours(NamedTuple):
    """Colour operations, in this order; None for no change."""

    before: tuple[float, float] | None = None  # (a, b): values become a * value + b
    hsv: tuple[float, float] | None = None  # degrees of hue, factor of saturation
    after: tuple[float, float] | None = None  # as before
    blur: float = 0.0  # sigma in pixels of the network's input; 0 for none


def photometric(rng: np.random.Generator) -> Colours:
    """Random brightness, contrast, saturation and hue, each with probability 1/2.

    SSD's order: contrast comes before or after saturation and hue, at random.
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


def blurring(
    rng: np.random.Generator, colours: Colours, part: float, sigma: tuple[float, float]
) -> Colours:
    """`colours`, with probability `part` with a blur of a `sigma` (least, most)."""
    if not part or rng.random() >= part:
        return colours
    return colours._replace(blur=rng.uniform(*sigma))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """`image` [h w 3] under a Gaussian of `sigma` pixels; as it is at 0."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image


def recolour(image: np.ndarray, colours: Colours) -> np.ndarray:
    """`image` [h w 3] uint8 with jittered colours, rounded and clipped at each step.

    Not blurred: that is done to what is seen of it, at its size there.
    """
    if colours.before is not None:
        image = _linear(image, *colours.before)
    if colours.hsv is not None:
        hue, saturation = colours.hsv
        # The full circle of hues is 256 steps here, so that uint8 wraps around
        # correctly.
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        steps = round(hue * 256 / 360) % 256
        if steps:
            rows = hsv.reshape(len(hsv), -1)
            rows += np.resize(np.array([steps, 0, 0], np.uint8), rows.shape[1])
        if saturation != 1:
            hsv = cv2.transform(hsv, np.diag([1, saturation, 1]))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return image if colours.after is None else _linear(image, *colours.after)


def _linear(image: np.ndarray, a: float, b: float) -> np.ndarray:
    """a * `image` + b, rounded and clipped to bytes; faster than a table."""
    return cv2.transform(image, np.column_stack([a * np.eye(3), [b, b, b]]))
