"""Shapes of priors that fit the objects of a data set, in numpy.

n        objects
k        shapes: (w, h) in pixels
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from detjax.ops.anchors import best_iou
from detjax.types import PriorLevel

ROUNDS = 60  # of moving shapes; fewer where nothing moves any more


def shape_iou(
    a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "k 2"]
) -> Float[np.ndarray, "n k"]:
    """The IoU of boxes of shapes (w, h) above 0 that share their centre."""
    common = np.minimum(a[:, None], b).prod(axis=-1)
    return common / (a.prod(axis=-1)[:, None] + b.prod(axis=-1) - common)


def mean_best_iou(
    shapes: Float[np.ndarray, "n 2"], centres: Float[np.ndarray, "k 2"]
) -> float:
    """The mean over `shapes` of the highest IoU with one of `centres`."""
    return float(shape_iou(shapes, centres).max(axis=1).mean())


def kmeans(
    shapes: Float[np.ndarray, "n 2"],
    most: int,
    seed: int = 0,
    distance: Literal["iou", "euclidean"] = "iou",
) -> list[Float[np.ndarray, "k 2"]]:
    """Shapes (w, h) for k = 1 ... `most`, by rising area, that cluster those given.

    The distance of a shape and a centre is 1 - IoU and a centre the median of its
    shapes; or, "euclidean", the square of that of (w, h), and their mean. Of two starts
    the one with the lower mean distance is kept: that of k-means++, and the centres of
    k - 1 with one more, so that with "iou" `mean_best_iou` never falls with k.

    Redmon and Farhadi 2017 (YOLO9000), section 2, "dimension clusters".
    """
    rng = np.random.default_rng(seed)
    way = _WAYS[distance]
    found: list[np.ndarray] = []
    for k in range(1, most + 1):
        starts = [_spread(shapes, np.zeros((0, 2)), k, rng, way)]
        if found:
            starts.append(_spread(shapes, found[-1], k, rng, way))
        moved = [_moved(shapes, start, way) for start in starts]
        best = min(moved, key=lambda centres: way.far(shapes, centres).min(1).mean())
        found.append(best[np.argsort(best.prod(axis=1), kind="stable")])
    return found


class _Way(NamedTuple):
    """A way to cluster."""

    far: Callable[[np.ndarray, np.ndarray], np.ndarray]  # [n 2], [k 2] -> [n k]
    centre: Callable[..., np.ndarray]  # of shapes, along axis 0


_WAYS = {
    "iou": _Way(lambda a, b: 1 - shape_iou(a, b), np.median),
    "euclidean": _Way(lambda a, b: ((a[:, None] - b) ** 2).sum(-1), np.mean),
}


def _spread(
    shapes: np.ndarray, centres: np.ndarray, k: int, rng: np.random.Generator, way: _Way
) -> np.ndarray:
    """`centres` and shapes drawn by their distance to those before, `k` together."""
    while len(centres) < k:
        weights = np.ones(len(shapes))
        if len(centres):
            weights = way.far(shapes, centres).min(axis=1)
        total = weights.sum()
        share = weights / total if total > 1e-9 else None
        centres = np.append(centres, shapes[[rng.choice(len(shapes), p=share)]], axis=0)
    return centres


def _moved(shapes: np.ndarray, centres: np.ndarray, way: _Way) -> np.ndarray:
    """The best of `centres` while each moves to the middle of its shapes."""
    best, lowest, before = centres, np.inf, None
    for _ in range(ROUNDS):
        far = way.far(shapes, centres)
        nearest, mean = far.argmin(axis=1), float(far.min(axis=1).mean())
        if mean < lowest:
            best, lowest = centres, mean
        if before is not None and (nearest == before).all():
            break
        before = nearest
        centres = np.array(
            [
                way.centre(shapes[own], axis=0) if own.any() else centre
                for centre, own in (
                    (centre, nearest == i) for i, centre in enumerate(centres)
                )
            ]
        )
    return best


def sizes_and_ratios(
    boxes: Float[np.ndarray, "n 4"],
    levels: Sequence[PriorLevel],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    positive: float = 0.5,
) -> tuple[list[list[int]], list[float]]:
    """Sizes of each level and ratios of all, as many as given, that fit boxes xyxy.

    A size is the square root of an area, a ratio is w / h; every level has its priors
    of all ratios. Boxes count with their places: a prior of a coarse level is often
    far from a small object. A box belongs to the kind of prior that overlaps it most;
    sizes and ratios then move to the geometric mean of their boxes. Of the rounds from
    two starts, the given sizes and the quantiles of the boxes', the one is returned
    where the mean of the boxes' highest IoU, plus the share of those that reach
    `positive`, is highest, rounded to whole pixels and hundredths: never worse than
    what is given, but for that rounding. Boxes of rare sizes count more, so that small
    classes keep their priors: see `rarity`.
    """
    side = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3).astype(np.float64)
    scale = np.log(side).mean(axis=1)
    slant = np.log(side[:, 0] / side[:, 1])
    weights = rarity(scale)
    given = np.log(np.concatenate([np.ravel(s) for s in sizes]).astype(np.float64))
    count, kinds = len(given), len(ratios)
    starts = (
        (given, np.log(np.asarray(ratios, np.float64))),
        (
            np.quantile(scale, (np.arange(count) + 0.5) / count),
            np.quantile(slant, (np.arange(kinds) + 0.5) / kinds),
        ),
    )
    best, highest = starts[0], -1.0
    for start in starts:
        size, ratio = start
        before = None
        for _ in range(ROUNDS):
            iou = best_iou(boxes, _with(levels, size, ratio))[0]
            own, top = iou.argmax(axis=1), iou.max(axis=1)
            score = float(weights @ (top + (top >= positive)))
            if score > highest:
                best, highest = (size, ratio), score
            if before is not None and (own == before).all():
                break
            before = own
            size = _means(scale, weights, own // kinds, size)
            ratio = _means(slant, weights, own % kinds, ratio)
    found = np.maximum(np.rint(np.exp(best[0])), 1).reshape(len(levels), -1)
    slants = sorted(np.maximum(np.round(np.exp(best[1]), 2), 0.01).tolist())
    return np.sort(found, axis=1).astype(int).tolist(), slants


def rarity(scale: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Weights that sum to 1: one over the root of the number of boxes of that size.

    Sizes, given as logarithms, are counted by octave. A size of a hundredth of the
    boxes has a tenth of the weight of a size of all of them.
    """
    octave = np.floor(scale / np.log(2)).astype(np.int64)
    _, index, count = np.unique(octave, return_inverse=True, return_counts=True)
    weights = 1 / np.sqrt(count[index])
    return weights / weights.sum()


def _means(
    values: np.ndarray, weights: np.ndarray, group: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """The mean of each group's values, those of `others` for groups without any."""
    total = np.bincount(group, weights, minlength=len(others))
    sums = np.bincount(group, weights * values, minlength=len(others))
    return np.where(total > 0, sums / np.where(total > 0, total, 1), others)


def _with(levels, size: np.ndarray, ratio: np.ndarray) -> list[PriorLevel]:
    """`levels` with priors of these logarithms: for each size, for each ratio."""
    made = []
    for level, own in zip(levels, np.split(size, len(levels)), strict=True):
        w = np.exp(own[:, None] + ratio / 2).ravel()
        h = np.exp(own[:, None] - ratio / 2).ravel()
        made.append(level._replace(boxes=np.stack([-w, -h, w, h], -1) / 2))
    return made


def climbed(
    boxes: Float[np.ndarray, "n 4"],
    placed: Callable[[np.ndarray], Sequence[PriorLevel]],
    starts: Sequence[np.ndarray],
    positive: float = 0.5,
) -> np.ndarray:
    """The parameters, logarithms [k], whose priors fit boxes xyxy best.

    Where priors are no product of sizes and ratios, they are what `placed` makes of
    the parameters. From the better of `starts`, each parameter in turn moves up or down
    as long as that raises the score of `sizes_and_ratios`, by steps that get smaller.
    """
    side = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3).astype(np.float64)
    weights = rarity(np.log(side).mean(axis=1))

    def score(values: np.ndarray) -> float:
        top = best_iou(boxes, placed(values))[0].max(axis=1)
        return float(weights @ (top + (top >= positive)))

    best = max(starts, key=score)
    highest = score(best)
    for step in (0.3, 0.3, 0.15, 0.07):
        for i in range(len(best)):
            for by in (step, -step):
                moved = best.copy()
                moved[i] += by
                found = score(moved)
                if found > highest:
                    best, highest = moved, found
                    break
    return best
