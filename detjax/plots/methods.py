"""The plot of methods on one model: AP, and the AP at a looser and a stricter IoU."""

from collections.abc import Mapping
from typing import Any

from detjax.plots.style import COLOURS, GREY, figure

# Of each kind of AP: its name, and how it is drawn.
_MARKS = (("AP50", "<", COLOURS[1]), ("AP", "o", COLOURS[0]), ("AP75", ">", COLOURS[2]))


def methods(found: Mapping[str, Mapping[str, float]]) -> Any:
    """Points by method, best AP on top; a panel for boxes, masks and keypoints each."""
    known = next(iter(found.values()))
    kinds = [k for k in ("bbox", "segm", "keypoints") if known.get(f"{k}/AP", -1) >= 0]
    kinds = kinds or ["bbox"]
    drawn = figure(1.6 + 4.4 * len(kinds), 1.1 + 0.36 * len(found))
    panels = drawn.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    order = sorted(found, key=lambda name: found[name].get(f"{kinds[0]}/AP", -1))
    for panel, kind in zip(panels, kinds, strict=True):
        rows = range(len(order))
        values = {
            name: [found[method].get(f"{kind}/{name}", -1) for method in order]
            for name, _, _ in _MARKS
        }
        panel.hlines(
            rows, values["AP75"], values["AP50"], color=GREY, linewidth=1, zorder=1
        )
        for name, mark, colour in _MARKS:
            panel.scatter(values[name], rows, marker=mark, color=colour, label=name)
        for row, value in zip(rows, values["AP"], strict=True):
            panel.annotate(
                f"{value:.3f}",
                (value, row),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        panel.set_yticks(rows, order)
        panel.set(title=kind, xlabel="average precision", ylim=(-0.5, len(order) - 0.3))
        panel.margins(x=0.08)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn
