"""The plot of priors that fit: objects, clusters, and how well they do."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from detjax.plots.style import COLOURS, GREY, figure, plain_ticks

MOST_POINTS = 4000


def anchors(
    shapes: np.ndarray,
    means: Sequence[float],
    others: Sequence[float],
    held: np.ndarray | None = None,
    fitted: np.ndarray | None = None,
    centres: np.ndarray | None = None,
) -> Any:
    """Objects' shapes [n 2] (w, h) with those of priors [k 2]; mean best IoU by k.

    `held` are a model's present priors and `fitted` those that fit, or `centres` the
    clusters where there is no model; `means` are those of 1, 2, ... clusters by IoU,
    and `others` those by Euclidean distance.

    On the right figure 2 of Redmon and Farhadi 2017 (YOLO9000), with table 1's rows.
    """
    drawn = figure(11, 4.8)
    left, right = drawn.subplots(1, 2, width_ratios=(1.25, 1))
    points = shapes[:: max(1, len(shapes) // MOST_POINTS)]
    left.scatter(*points.T, s=5, color=GREY, alpha=0.35, linewidths=0, label="objects")
    for priors, marker, colour, label in (
        (held, "x", COLOURS[1], "priors now"),
        (fitted, "o", COLOURS[0], "fitted priors"),
        (
            centres,
            "o",
            COLOURS[0],
            f"{0 if centres is None else len(centres)} clusters",
        ),
    ):
        if priors is not None:
            face = "none" if marker == "o" else colour
            left.scatter(
                *priors.T,
                s=52,
                marker=marker,
                facecolors=face,
                edgecolors=None if marker == "x" else colour,
                color=colour if marker == "x" else None,
                linewidths=1.7,
                label=label,
            )
    left.set(xscale="log", yscale="log", xlabel="width, input pixels")
    left.set(ylabel="height, input pixels", title="Objects and priors")
    plain_ticks(left.xaxis)
    plain_ticks(left.yaxis)
    left.legend(loc="upper left")
    ranks = range(1, len(means) + 1)
    right.plot(ranks, means, marker="o", color=COLOURS[0], label="by 1 - IoU")
    right.plot(
        *(ranks, others),
        marker="s",
        linestyle="--",
        color=COLOURS[1],
        label="by Euclidean distance",
        zorder=1,
    )
    right.legend(loc="lower right")
    low = math.floor(10 * min(*means, *others) - 0.3) / 10
    right.set(xlabel="clusters k", ylabel="mean best IoU", ylim=(low, 1))
    right.set(title="Clusters of k-means", xticks=range(1, len(means) + 1))
    for k, mean in enumerate(means, 1):
        if k in (1, 3, 5, 9, len(means)):
            right.annotate(
                f"{mean:.2f}",
                (k, mean),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    return drawn
