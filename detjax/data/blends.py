"""mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019): two in one input.

Both pictures are augmented as if they were alone. mixup adds their pixels up, CutMix
cuts a rectangle out of the second and pastes it over the same place of the first;
labels are shared out alike, after a draw from Beta(alpha, alpha).
"""

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np

from detjax.errors import UserError
from detjax.settings import Fraction, NonNegative


class Blend(NamedTuple):
    """How a second picture enters a first."""

    share: float  # of the first, in the labels
    window: tuple[int, int, int, int] | None  # x1, y1, x2, y2 of a paste; None: mixup

    def into(self, image: np.ndarray, other: np.ndarray) -> None:
        """Puts `other` into `image`, both [h w 3] uint8."""
        if self.window is None:
            cv2.addWeighted(image, self.share, other, 1 - self.share, 0, dst=image)
        else:
            x1, y1, x2, y2 = self.window
            image[y1:y2, x1:x2] = other[y1:y2, x1:x2]


@dataclasses.dataclass(frozen=True)
class Blends:
    """Which rows of a stream hold two pictures, and how; see `blends`."""

    mixup: float
    cutmix: float
    probability: float

    def others(
        self, rng: np.random.Generator, batch: int, records: int
    ) -> tuple[int, ...]:
        """The second of `records` in a row of a batch, any; () for none."""
        if rng.random() >= self.probability:
            return ()
        return (int(rng.integers(records)),)

    def drawn(self, rng: np.random.Generator, size: tuple[int, int]) -> Blend:
        """A random blend in an input of `size` (h, w).

        CutMix's rectangle has the input's shape and 1 - share of its area, around a
        random centre; the share is what it leaves of the first where it is cut off.
        """
        pasted = not self.mixup or (self.cutmix > 0 and rng.random() < 0.5)
        alpha = self.cutmix if pasted else self.mixup
        share = float(rng.beta(alpha, alpha))
        if not pasted:
            return Blend(share, None)
        h, w = size
        side = math.sqrt(1 - share) / 2
        y, x = rng.random(2) * size
        x1, x2 = (round(min(max(x + s * side * w, 0), w)) for s in (-1, 1))
        y1, y2 = (round(min(max(y + s * side * h, 0), h)) for s in (-1, 1))
        return Blend(1 - (x2 - x1) * (y2 - y1) / (h * w), (x1, y1, x2, y2))


def blends(
    *,
    mixup: NonNegative = 0.0,
    cutmix: NonNegative = 0.0,
    blend_probability: Fraction = 1.0,
) -> Blends | None:
    """The blends of a run; None for none. For tasks that label whole pictures.

    mixup: alpha of its Beta distribution, 0.2 in the paper; 0 is none.
    cutmix: the same, 1 in the paper. With both each has every second blend.
    blend_probability: of a row to hold two pictures.

    One more picture is read and decoded for each.
    """
    return Blends(mixup, cutmix, blend_probability) if mixup or cutmix else None


def check(task: str, labels_pictures: bool) -> None:
    """Raises UserError unless the targets of `task` are labels of whole pictures."""
    if not labels_pictures:
        raise UserError(
            "data.augment.mixup and cutmix are for classification: the model answers "
            f"{task}; leave them out, data.augment.mosaic is for it"
        )
