"""Sizes of the pictures and objects of a data set, and its classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detjax.plots.style import COLOURS, figure, plain_ticks, short

MOST_POINTS = 4000
MOST_BARS = 30  # classes; of more the most and the least frequent


def sizes(
    pictures: np.ndarray,
    counts: np.ndarray,
    classes: Sequence[str],
    sides: np.ndarray | None,
    each: np.ndarray,
    part: str = "",
) -> Any:
    """Panels of a split: classes, pictures, and where it has boxes objects.

    pictures [n 2] (h, w), counts [c] by class, sides [m 2] (w, h) of objects or None,
    each [r] objects of a picture. All but the pictures are of the `part` that is named.
    """
    rows = 1 if sides is None else 2
    drawn = figure(13.5 if rows > 1 else 10, 4.1 * rows)
    axes = drawn.subplots(rows, 3 if rows > 1 else 2, squeeze=False)
    noun = "pictures" if sides is None else "objects"
    _bars(axes[0, 0], counts, classes, f"{noun} by class{f' ({part})' if part else ''}")
    _scatter(axes[0, 1], pictures[:, ::-1], "pictures: size in pixels", COLOURS[2])
    if sides is None:
        return drawn
    _histogram(axes[0, 2], each, f"objects a picture (mean {each.mean():.1f})")
    sides = np.maximum(sides, 1e-2)
    _scatter(axes[1, 0], sides, "objects: size in pixels", COLOURS[0])
    root = np.sqrt(sides.prod(axis=1))
    title = "objects: square root of the area, pixels"
    _logarithmic(axes[1, 1], root, title)
    for edge, name in ((32, "small | medium"), (96, "medium | large")):
        axes[1, 1].axvline(edge, color="#666666", linewidth=1, linestyle="--")
        axes[1, 1].annotate(
            name,
            (edge, 1),
            xycoords=("data", "axes fraction"),
            fontsize=7,
            rotation=90,
            ha="right",
            va="top",
        )
    ratio = sides[:, 0] / sides[:, 1]
    _logarithmic(axes[1, 2], ratio, "objects: width over height")
    return drawn


def _bars(axis: Any, counts: np.ndarray, classes: Sequence[str], title: str) -> None:
    order = np.argsort(-counts, kind="stable")
    cut = len(order) > MOST_BARS
    if cut:
        half = MOST_BARS // 2
        order = np.concatenate([order[:half], order[-half:]])
        title += f"\nthe {half} most and {half} least frequent of {len(classes)}"
    place = np.arange(len(order))
    axis.barh(place, counts[order], color=COLOURS[0])
    size = 8 if len(order) <= 16 else 5.5
    axis.set_yticks(place, [short(classes[i], 20) for i in order], fontsize=size)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set(title=title)
    some = counts[order][counts[order] > 0]
    if len(some) and some.max() > 50 * some.min():
        axis.set_xscale("log")
        plain_ticks(axis.xaxis)
    axis.margins(x=0.15)
    for y, count in zip(place, counts[order].tolist(), strict=True):
        axis.annotate(
            f"{count:,}",
            (count, y),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=size - 0.5,
        )


def _scatter(axis: Any, points: np.ndarray, title: str, colour: str) -> None:
    few = points[:: max(1, len(points) // MOST_POINTS)]
    axis.scatter(*few.T, s=8, color=colour, alpha=0.35, linewidths=0)
    axis.set(xlabel="width", ylabel="height", title=title)
    if not len(points):
        return
    if (points == points[0]).all():
        axis.set_title(f"{title}, all {points[0, 0]:g} x {points[0, 1]:g}")
    span = points.max() / max(points.min(), 1e-6)
    if span > 8:
        axis.set(xscale="log", yscale="log")
        plain_ticks(axis.xaxis)
        plain_ticks(axis.yaxis)
    else:
        axis.set(xlim=(0, points[:, 0].max() * 1.1), ylim=(0, points[:, 1].max() * 1.1))


def _histogram(axis: Any, values: np.ndarray, title: str) -> None:
    most = int(values.max()) if len(values) else 1
    width = max(1, -(-most // 40))
    edges = np.arange(0, most + width + 1, width) - 0.5
    axis.hist(values, bins=edges, color=COLOURS[0], edgecolor="white", linewidth=0.4)
    axis.set(title=title, ylabel="pictures")


def _logarithmic(axis: Any, values: np.ndarray, title: str) -> None:
    if len(values):
        low, high = np.log10([values.min() * 0.9, values.max() * 1.1])
        edges = np.logspace(low, high, 45)
        axis.hist(
            values, bins=edges, color=COLOURS[0], edgecolor="white", linewidth=0.3
        )
        axis.set_xscale("log")
        plain_ticks(axis.xaxis)
    axis.set(title=title, ylabel="objects")
