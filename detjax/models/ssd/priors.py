"""SSD's priors, its "default boxes" (Liu et al. 2016, section 2.2)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from detjax.errors import UserError
from detjax.ops import fitting
from detjax.settings import NotEmpty, Positive
from detjax.types import PriorLevel


@dataclasses.dataclass(frozen=True)
class Priors:
    """The priors of every location: two squares, and two of every ratio of its level.

    scales: of each level, as a share of the input's side, and one more; the second
        square of a level has the geometric mean of its scale and the next.
    ratios: for each level, the longer over the shorter side of boxes that lie, and
        stand.
    steps: pixels between the cells of each level; if not set the input's side over the
        level's.

    Of an input that is no square the side is the root of its area. No prior is larger
    than the input.
    """

    scales: Annotated[tuple[Positive, ...], NotEmpty()] = (
        0.07,
        0.15,
        0.33,
        0.51,
        0.69,
        0.87,
        1.05,
    )
    ratios: Annotated[tuple[tuple[Positive, ...], ...], NotEmpty()] = (
        (2,),
        (2, 3),
        (2, 3),
        (2, 3),
        (2,),
        (2,),
    )
    steps: tuple[Positive, ...] | None = None

    @property
    def per_location(self) -> tuple[int, ...]:
        """The priors of a location of each level."""
        return tuple(2 + 2 * len(ratios) for ratios in self.ratios)

    def levels(
        self, shapes: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> list[PriorLevel]:
        """The levels that these are placed on, of `shapes` (h, w), for an input."""
        levels = []
        for i, (shape, base) in enumerate(zip(shapes, self.boxes(size), strict=True)):
            if self.steps is None:
                step = size[0] / shape[0], size[1] / shape[1]
            else:
                step = self.steps[i], self.steps[i]
            levels.append(PriorLevel(base, shape, step, 0.5))
        return levels

    def boxes(self, size: tuple[int, int]) -> list[np.ndarray]:
        """The priors [a 4] of each level about the origin, in pixels."""
        side, found = math.sqrt(size[0] * size[1]), []
        for i, ratios in enumerate(self.ratios):
            here, after = self.scales[i : i + 2]
            w, h = [here, math.sqrt(here * after)], [here, math.sqrt(here * after)]
            for ratio in ratios:
                long, short = here * math.sqrt(ratio), here / math.sqrt(ratio)
                w += [long, short]
                h += [short, long]
            wide = np.minimum(np.array(w) * side, size[1])
            tall = np.minimum(np.array(h) * side, size[0])
            found.append(np.stack([-wide, -tall, wide, tall], axis=-1) / 2)
        return found

    def fitted(
        self,
        levels: Sequence[PriorLevel],
        size: tuple[int, int],
        objects: np.ndarray,
        positive: float,
    ) -> dict[str, Any]:
        """Settings of as many priors on `levels` that fit objects' boxes [n 4]."""
        kinds = sorted({ratio for ratios in self.ratios for ratio in ratios})

        def made(values: np.ndarray) -> Priors:
            scales = np.exp(values[: len(self.scales)])
            sizes = dict(
                zip(kinds, np.exp(values[len(self.scales) :]).tolist(), strict=True)
            )
            return dataclasses.replace(
                self,
                scales=tuple(sorted(round(s, 3) for s in scales.tolist())),
                ratios=tuple(
                    tuple(round(max(sizes[r], 1.05), 2) for r in ratios)
                    for ratios in self.ratios
                ),
            )

        def placed(values: np.ndarray) -> list[PriorLevel]:
            return [
                level._replace(boxes=base)
                for level, base in zip(levels, made(values).boxes(size), strict=True)
            ]

        start = np.log(np.array([*self.scales, *kinds], np.float64))
        side = math.sqrt(size[0] * size[1])
        root = np.sqrt(np.maximum(objects[:, 2:] - objects[:, :2], 1e-3).prod(axis=1))
        share = (np.arange(len(self.scales)) + 0.5) / len(self.scales)
        other = np.log(np.quantile(root, share) / side)
        starts = [start, np.concatenate([other, start[len(self.scales) :]])]
        best = made(fitting.climbed(objects, placed, starts, positive))
        return {"scales": best.scales, "ratios": best.ratios}


def check(priors: Priors, levels: int) -> None:
    """Raises UserError where the priors are not those of as many levels."""
    scales, steps = priors.scales, priors.steps
    if len(priors.ratios) != levels or len(scales) != levels + 1:
        raise UserError(
            f"the network has {levels} levels: model.priors.ratios={priors.ratios} "
            f"must hold a tuple for each, and model.priors.scales={scales} a number "
            "for each and one more"
        )
    if steps is not None and len(steps) != levels:
        raise UserError(
            f"model.priors.steps={steps} must hold a number for each of the {levels} "
            "levels, or be left out"
        )
