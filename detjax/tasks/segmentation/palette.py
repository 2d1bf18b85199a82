"""Colours of the classes of label maps."""

from collections.abc import Sequence

import numpy as np

from detjax.plots.style import COLOURS

BACKGROUND = "background"  # a class of this name is drawn as nothing


def voc(count: int) -> np.ndarray:
    """The first colours [count 3] uint8 of Pascal VOC's palette; black is the first.

    Three bits of a class's number at a time are one bit of red, green and blue each,
    from the highest down.
    """
    number = np.arange(count)
    found = np.zeros((count, 3), np.int64)
    for bit in range(8):
        for colour in range(3):
            found[:, colour] |= (number >> (3 * bit + colour) & 1) << (7 - bit)
    return found.astype(np.uint8)


def palette(classes: Sequence[str]) -> np.ndarray:
    """The colour [c 3] uint8 of each class: of up to eight, ones that the colour-blind
    tell apart (Okabe and Ito 2008), of more those of Pascal VOC.

    Black is the colour of a background alone.
    """
    nothing = has_background(classes)
    few = len(classes) - nothing <= len(COLOURS)
    if not few:
        return voc(len(classes) + 1)[0 if nothing else 1 :][: len(classes)]
    own = [tuple(int(text[i : i + 2], 16) for i in (1, 3, 5)) for text in COLOURS]
    return np.array([*[(0, 0, 0)] * nothing, *own], np.uint8)[: len(classes)]


def has_background(classes: Sequence[str]) -> bool:
    """Whether the first class is what is left between the others."""
    return bool(classes) and classes[0].strip("_ ").lower() == BACKGROUND
