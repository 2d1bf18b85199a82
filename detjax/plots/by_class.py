"""Bars of a rate by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detjax.plots.style import COLOURS, GREY, figure, short

MOST = 40  # classes with a bar; of more the best and the worst


def bars(values: np.ndarray, classes: Sequence[str], mean: float, what: str) -> Any:
    """A bar for each of the `values` [c] between 0 and 1, the best first, and the mean.

    Classes whose value is not defined (NaN) have none. `what` names the values.
    """
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(-values[known], kind="stable")]
    left_out = max(len(order) - MOST, 0)
    if left_out:
        order = np.concatenate([order[: MOST // 2], order[-MOST // 2 :]])
    drawn = figure(6.4, max(2.0, 0.21 * len(order) + 1.2))
    axis = drawn.subplots()
    places = np.arange(len(order), dtype=float)
    if left_out:
        places[MOST // 2 :] += 1
    axis.barh(places, values[order], color=COLOURS[0], height=0.72)
    axis.set_yticks(places, [short(classes[i], 28) for i in order])
    for y, value in zip(places, values[order], strict=True):
        inside = value > 0.12
        axis.text(
            *(value - 0.01 if inside else value + 0.01, y, f"{value:.2f}"),
            ha="right" if inside else "left",
            va="center",
            fontsize=7.5,
            color="white" if inside else "black",
        )
    if left_out:
        axis.text(0.01, MOST // 2, f"... {left_out} between", va="center", color=GREY)
    if not np.isnan(mean):
        axis.axvline(mean, color="black", linewidth=1, linestyle="--")
    axis.margins(y=0.01)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlim=(0, 1), xlabel=what)
    axis.set_title(f"{what} by class: mean {mean:.3f} of {len(known)}")
    return drawn
