"""Plots of an evaluation: precision and recall, F1, confusion, calibration.

k classes, r recalls, g confidences
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detjax.plots.style import GREY, figure, line, short

MOST_LINES = 10  # classes with a line of their own; the mean of the rest is one more
MOST_CELLS = 40  # classes on a side of a matrix; of more the most confused
MOST_NUMBERS = 20  # classes up to which a matrix has its numbers written in


def precision_recall(
    recalls: np.ndarray,
    precision: np.ndarray,
    counts: np.ndarray,
    classes: Sequence[str],
    overlap: str = "IoU",
) -> Any:
    """Precision by recall, of precision [t r k] at ten overlaps from .5 on.

    A line for each class at .5, those of most objects (`counts` [k]) where there are
    many; and the means over classes at .5, .75 and over all overlaps.
    """
    known = np.flatnonzero(counts > 0)
    half = precision[0]
    drawn = figure(11, 4.6)
    left, right = drawn.subplots(1, 2)
    chosen, rest = _chosen(counts)
    for number, c in enumerate(chosen):
        label = f"{short(classes[c])}  {half[:, c].mean():.2f}"
        left.plot(recalls, half[:, c], **line(number), label=label)
    _rest(left, recalls, half[:, rest].T, f"mean of {len(rest)} others")
    if len(known) > 1:
        mean = half[:, known].mean(axis=1)
        label = f"mean of all  {mean.mean():.2f}"
        left.plot(recalls, mean, color="black", linewidth=2.6, label=label)
    left.set_title(f"By class at {overlap} .5 (AP50)")
    if len(known):
        for number, (name, values) in enumerate(
            (
                (f"{overlap} .5", precision[0]),
                (f"{overlap} .75", precision[5]),
                (f"{overlap} .5 to .95", precision.mean(axis=0)),
            )
        ):
            mean = values[:, known].mean(axis=1)
            label = f"{name}  {mean.mean():.2f}"
            right.plot(recalls, mean, **line(number), label=label)
    right.set_title(f"Mean over classes (area: AP at each {overlap})")
    for axis in (left, right):
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        _legend(axis)
    return drawn


def f1(
    confidences: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
    classes: Sequence[str],
    overlap: str = "IoU",
) -> Any:
    """F1 [k g] by confidence, with the best confidence of their mean."""
    drawn = figure(7.6, 4.6)
    axis = drawn.subplots()
    chosen, rest = _chosen(counts)
    for number, c in enumerate(chosen):
        label = f"{short(classes[c])}  {np.nan_to_num(values[c]).max():.2f}"
        axis.plot(confidences, values[c], **line(number), label=label)
    _rest(axis, confidences, values[rest], f"mean of {len(rest)} others")
    known = counts > 0
    if known.any():
        mean = values[known].mean(axis=0)
        best = int(mean.argmax())
        if known.sum() > 1:
            axis.plot(
                confidences, mean, color="black", linewidth=2.6, label="mean of all"
            )
        axis.axvline(confidences[best], color=GREY, linewidth=1, linestyle="--")
        axis.set_title(
            f"F1 at {overlap} .5: best mean {mean[best]:.2f} from a score of "
            f"{confidences[best]:.2f}"
        )
    span = (float(confidences[0]), float(confidences[-1]))
    axis.set(xlim=span, ylim=(0, 1.02), xlabel="least score", ylabel="F1")
    _legend(axis)
    return drawn


def confusion(
    matrix: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    per_cent: bool = False,
) -> Any:
    """A confusion matrix [c c], or [c+1 c+1] with what is no class at the end.

    `rows` and `columns` name both. Colours are shares of a row, which are written in
    `per_cent` where counts are too long. Of many classes those that are most often
    taken for others, or others for them, are shown.
    """
    from matplotlib.colors import PowerNorm

    extra = int(rows[-1] != columns[-1])
    shown = most_confused(matrix, MOST_CELLS - extra, extra)
    cut = len(shown) < len(matrix)
    part = matrix[np.ix_(shown, shown)].astype(np.float64)
    share = part / np.maximum(matrix[shown].sum(axis=1, keepdims=True), 1)
    if extra:
        # What is found in the background is no share of anything but what is found.
        share[-1] = part[-1] / np.maximum(matrix[:, shown].sum(axis=0), 1)
        part[-1, -1] = share[-1, -1] = np.nan  # background that was not found
    n = len(shown)
    # Two digits of a share need less room than a count.
    numbers = n <= MOST_NUMBERS + extra + 10 * per_cent
    side = float(np.clip(0.42 * n, 3.6, 11))
    drawn = figure(side + 2.4, side + 1.4)
    axis = drawn.subplots()
    # Confusions are small beside the diagonal: their colours are spread out.
    image = axis.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    axis.grid(False)
    size = 8 if n <= 24 else 7
    axis.set_xticks(range(n), [short(columns[i], 18) for i in shown], fontsize=size)
    axis.set_yticks(range(n), [short(rows[i], 18) for i in shown], fontsize=size)
    axis.tick_params(axis="x", rotation=90 if n > 6 else 0)
    axis.set(xlabel="found", ylabel="true")
    if numbers:
        for y, x in np.argwhere(np.nan_to_num(part) > 0).tolist():
            axis.text(
                *(x, y, _cell(share[y, x]) if per_cent else f"{part[y, x]:,.0f}"),
                ha="center",
                va="center",
                fontsize=8 if n <= 12 else 6.5,
                color="white" if share[y, x] > 0.35 else "black",
            )
    bar = drawn.colorbar(image, ax=axis, shrink=0.7)
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    what = (
        "share of the row (background: of the column)" if extra else "share of the row"
    )
    bar.set_label(what)
    bar.outline.set_visible(False)
    if cut:
        title += f"\nthe {n - extra} most confused of {len(matrix) - extra} classes"
    drawn.suptitle(title, x=0.02, ha="left", fontweight="bold", fontsize=10)
    return drawn


def _cell(share: float) -> str:
    """A share in per cent, in three letters."""
    return f"{100 * share:.0f}" if share >= 0.0095 else "<1"


def reliability(
    counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, error: float
) -> Any:
    """Accuracy by confidence of bins of equal width, [bins] each, and their images.

    `error` is the expected calibration error. What is said with a confidence of .8
    ought to be right four times of five: bars end on the diagonal then.
    """
    drawn = figure(6, 5.6)
    upper, lower = drawn.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
    )
    width = 1 / len(counts)
    left, some = width * np.arange(len(counts)), counts > 0
    bars: dict[str, Any] = {"width": width, "align": "edge", "edgecolor": "white"}
    upper.bar(left[some], accuracy[some], color="#4c78a8", **bars)
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    upper.plot(
        *(confidence[some], accuracy[some]), "o", color="black", label="mean of a bin"
    )
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    upper.legend(loc="upper left")
    upper.set_title(f"Expected calibration error {error:.3f}")
    lower.bar(left, counts, color=GREY, **bars)
    lower.set(xlabel="confidence of the most probable class", ylabel="images")
    return drawn


def most_confused(matrix: np.ndarray, most: int, extra: int = 0) -> np.ndarray:
    """The rows of a matrix to show, in order: `most` classes, and the `extra` last.

    Classes rank by how often they and others are taken for one another, then by how
    often they are missed or made up.
    """
    c = len(matrix) - extra
    if c <= most:
        return np.arange(len(matrix))
    inner = matrix[:c, :c]
    mixed = inner.sum(axis=0) + inner.sum(axis=1) - 2 * np.diag(inner)
    wrong = matrix[:c].sum(axis=1) + matrix[:, :c].sum(axis=0) - 2 * np.diag(inner)
    chosen = np.sort(np.lexsort((-wrong, -mixed))[:most])
    return np.append(chosen, np.arange(c, len(matrix)))


def _chosen(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes with a line of their own, by falling number of objects; the others."""
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    if len(order) <= MOST_LINES:
        return order, order[:0]
    return order[: MOST_LINES - 1], order[MOST_LINES - 1 :]


def _rest(axis, x: np.ndarray, rows: np.ndarray, label: str) -> None:
    if len(rows):
        mean = rows.mean(axis=0)
        axis.plot(x, mean, color=GREY, linewidth=2.2, label=label)


def _legend(axis) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
