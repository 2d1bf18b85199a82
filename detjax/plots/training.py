"""Curves of a run: losses, learning rate, metrics by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detjax.plots.style import COLOURS, figure, line, plain_ticks, short

MOST_POINTS = 1500  # of a line; of more rows the means of equal parts
MOST_METRICS = 6  # lines of a panel of metrics
COLUMNS = 3
# Rows count these, or the machine's speed, and no course of learning.
NOT_CURVES = ("step", "compilations", "steps")
SPEED, RATE = "images/s", "learning rate"

Row = Mapping[str, Any]


def curves(rows: Sequence[Row]) -> Any:
    """A panel for each loss, the learning rate, norms, speed, and kinds of metrics.

    `rows` are those of metrics.jsonl, in any number. Validation losses ("val/loss")
    are drawn beside those of training.
    """
    panels = panels_of(rows)
    count = max(len(panels), 1)
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    last = max((row["step"] for row in rows), default=1)
    drawn = figure(4.3 * columns, 2.7 * lines + 0.2)
    axes = drawn.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        _panel(axis, title, names, rows)
        axis.set_xlim(0, max(last, 1) * 1.02)
    return drawn


def panels_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The names of numbers that each panel shows, by its title.

    Losses come first, the sum of all before its parts; then evaluations. Metrics by
    class have a table of their own.
    """
    training = dict.fromkeys(k for row in rows if "loss" in row for k in row)
    # Sums of counts stand behind the speed in a row.
    counts = {*NOT_CURVES, *[*training][[*training, SPEED].index(SPEED) + 1 :]}
    others = dict.fromkeys(k for row in rows if "loss" not in row for k in row)
    held = [k for k in others if k not in training and k not in NOT_CURVES]
    validation = [k for k in held if k.startswith("val/")]
    parts = [k for k in training if k not in counts]
    losses = [k for k in parts if k not in ("loss", "lr", SPEED) and "norm" not in k]
    losses.sort(key=lambda k: k == "positives")  # a mean number, and no loss
    panels: dict[str, list[str]] = {}
    for name in ("loss", *losses):
        if name in training:
            both = [name, *[v for v in validation if v == f"val/{name}"]]
            panels["loss (sum)" if name == "loss" and losses else name] = both
    known = {name for names in panels.values() for name in names}
    for name in validation:
        if name not in known:
            panels[name] = [name]
    groups: dict[str, list[str]] = {}
    for name in held:
        kind, _, rest = name.rpartition("/")
        if not name.startswith("val/") and rest and "/" not in kind:
            groups.setdefault(kind or "metrics", []).append(name)
    for kind, names in groups.items():
        if kind not in held:  # else these are the numbers of its classes
            panels[kind] = names[:MOST_METRICS]
    if "lr" in training:
        panels[RATE] = ["lr"]
    norms = [k for k in parts if "norm" in k]
    for name in norms:
        panels[name.replace("_", " ")] = [name]
    if SPEED in training:
        panels[SPEED] = [SPEED]
    return panels


def _panel(axis: Any, title: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    lowest, highest = np.inf, -np.inf
    for number, name in enumerate(names):
        steps, values = series(rows, name)
        if not len(steps):
            continue
        label = "validation" if name.startswith("val/") and len(names) > 1 else name
        if label == name:
            label = "training" if len(names) == 2 and names[1][:4] == "val/" else name
        few = {"marker": "o", "markersize": 3} if len(steps) < 40 else {}
        axis.plot(steps, values, **line(number), **few, label=short(_last(label)))
        lowest, highest = min(lowest, values.min()), max(highest, values.max())
    positive = lowest > 0 and np.isfinite(highest)
    metric = lowest >= 0 and highest <= 1 and len(names) > 1 and title != "loss"
    wide = positive and highest / lowest > 20
    if wide and not metric and title != RATE:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis)
    elif lowest >= 0:
        axis.set_ylim(bottom=0)
    axis.set(title=title, xlabel="step")
    axis.locator_params(axis="x", nbins=6)
    if len(names) > 1:
        axis.legend(ncols=2 if len(names) > 3 else 1)
    elif axis.lines:
        axis.lines[0].set_color(COLOURS[0])


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps [n] and values [n] of a number of the log, n at most `MOST_POINTS`.

    Of more the means of neighbours. COCO's -1 for an undefined metric is left out.
    """
    held = [(row["step"], row[name]) for row in rows if name in row]
    table = np.array(held, np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    if "/" in name:
        table = table[table[:, 1] != -1]
    if len(table) > MOST_POINTS:
        starts = np.linspace(0, len(table), MOST_POINTS, endpoint=False).astype(int)
        sizes = np.diff(starts, append=len(table))[:, None]
        table = np.add.reduceat(table, starts, axis=0) / sizes
    return table[:, 0], table[:, 1]
