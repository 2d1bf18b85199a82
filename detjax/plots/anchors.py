"""The plot of priors that fit: objects, clusters, and how well they do."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detjax.plots.style import COLOURS, GREY, figure, plain_ticks

MOST_POINTS = 4000


def anchors(
    shapes: np.ndarray,
    means: Sequence[float],
    held: np.ndarray | None = None,
    fitted: np.ndarray | None = None,
    centres: np.ndarray | None = None,
) -> Any:
    """Objects' shapes [n 2] (w, h) with those of priors [k 2]; mean best IoU by k.

    `held` are a model's present priors and `fitted` those that fit, or `centres` the
    clusters where there is no model; `means` are those of 1, 2, ... clusters.
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
    right.plot(range(1, len(means) + 1), means, marker="o", color=COLOURS[0])
    right.set(xlabel="clusters k", ylabel="mean best IoU", ylim=(0, 1))
    right.set(title="Clusters (k-means by 1 - IoU)", xticks=range(1, len(means) + 1))
    for k, mean in enumerate(means, 1):
        if k in (1, 3, 5, 9, len(means)):
            right.annotate(
                f"{mean:.2f}",
                (k, mean),
                xytext=(0, -14),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    return drawn
