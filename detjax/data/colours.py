"""Photometric augmentation of SSD (Liu et al., ECCV 2016): brightness to hue.

And Gaussian blur, as SimCLR has it (Chen et al., ICML 2020, appendix A), the operations
of RandAugment, and random erasing (Zhong et al., AAAI 2020).
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

_ENHANCED = {
    "colour": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}

Operation = tuple[str, float]  # a name and its parameter; see `operated`


class Erased(NamedTuple):
    """A rectangle of noise: its (x1, y1, x2, y2) in shares of the sides, and a seed."""

    window: tuple[float, float, float, float]
    seed: int


class Colours(NamedTuple):
    """Colour operations, in this order; None for no change."""

    before: tuple[float, float] | None = None  # (a, b): values become a * value + b
    hsv: tuple[float, float] | None = None  # degrees of hue, factor of saturation
    after: tuple[float, float] | None = None  # as before
    operations: tuple[Operation, ...] = ()  # of RandAugment, in this order
    blur: float = 0.0  # sigma in pixels of the network's input; 0 for none
    erased: Erased | None = None  # of what is seen of the image


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
    if colours.after is not None:
        image = _linear(image, *colours.after)
    return operated(image, colours.operations)


def operated(image: np.ndarray, operations: Iterable[Operation]) -> np.ndarray:
    """`image` [h w 3] uint8 after operations by name.

    "colour", "contrast", "brightness" and "sharpness" have a factor, 1 for no change;
    "posterize" the bits of a value that are kept, "solarize" the value from which they
    are inverted; "autocontrast" and "equalize" have none. They are Pillow's.
    """
    if not operations:
        return image
    picture = Image.fromarray(image)
    for name, parameter in operations:
        if name in _ENHANCED:
            picture = _ENHANCED[name](picture).enhance(parameter)
        elif name == "posterize":
            picture = ImageOps.posterize(picture, int(parameter))
        elif name == "solarize":
            picture = ImageOps.solarize(picture, int(parameter))
        else:
            picture = getattr(ImageOps, name)(picture)
    return np.asarray(picture)


def erasing(
    rng: np.random.Generator,
    colours: Colours,
    part: float,
    area: tuple[float, float],
    size: tuple[float, float],
) -> Colours:
    """`colours`, with probability `part` with an erased rectangle.

    It has a share of the `area` (least, most) of what is seen, whose (h, w) is `size`,
    and a random shape from 3:10 to 10:3.
    """
    if not part or rng.random() >= part:
        return colours
    share, shape = rng.uniform(*area), math.exp(rng.uniform(-1, 1) * math.log(10 / 3))
    shape *= size[0] / size[1]  # as a share of the sides
    w, h = min(math.sqrt(share * shape), 1), min(math.sqrt(share / shape), 1)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    erased = Erased((x, y, x + w, y + h), int(rng.integers(2**31)))
    return colours._replace(erased=erased)


def erase(image: np.ndarray, erased: Erased | None) -> None:
    """Overwrites a rectangle of `image` [h w 3] uint8 with noise; nothing for None."""
    if erased is None:
        return
    h, w = image.shape[:2]
    x1, y1, x2, y2 = (
        round(share * side)
        for share, side in zip(erased.window, (w, h, w, h), strict=True)
    )
    part = image[y1:y2, x1:x2]
    noise = np.random.default_rng(erased.seed)
    part[:] = noise.integers(0, 256, part.shape, np.uint8)


def _linear(image: np.ndarray, a: float, b: float) -> np.ndarray:
    """a * `image` + b, rounded and clipped to bytes; faster than a table."""
    return cv2.transform(image, np.column_stack([a * np.eye(3), [b, b, b]]))
