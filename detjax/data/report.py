"""A readable report of a split."""

import numpy as np

from detjax.data.records import shown
from detjax.data.summary import Summary

_CLASSES = 20


def table(summary: Summary) -> str:
    """Lines on a split: counts, sizes, classes and problems by kind."""
    lines = [f"{summary.split}:"]
    lines += _rows(summary.counts(), always=("images", "objects"))
    lines += _sizes(summary)
    classes = sorted(summary.class_counts().items(), key=lambda item: -item[1])
    lines += ["  of each class:"]
    lines += _rows(dict(classes[:_CLASSES]), always=summary.classes, indent=4)
    if len(classes) > _CLASSES:
        rest = classes[_CLASSES:]
        total = sum(count for _, count in rest)
        lines += [f"    and {len(rest)} classes with {total}"]
    if summary.problems:
        lines += ["  problems:"]
        lines += _rows(summary.problem_counts(), indent=4)
    return shown("\n".join(lines))


def _rows(counts, always=(), indent: int = 2) -> list[str]:
    return [
        f"{'':{indent}}{name:{30 - indent}} {count:8d}"
        for name, count in counts.items()
        if count or name in always
    ]


def _sizes(summary: Summary) -> list[str]:
    """The range of image sides and of object sizes (square roots of box areas)."""
    lines = []
    sizes, sides = summary.sizes(), summary.sides()
    if len(sizes):
        (h1, w1), (h2, w2) = sizes.min(axis=0), sizes.max(axis=0)
        lines += [f"  {'image sizes':28} {w1} x {h1} to {w2} x {h2}"]
    if len(sides):
        low, middle, high = np.percentile(sides, [0, 50, 100])
        lines += [
            f"  {'object sizes in pixels':28} {low:.0f} to {high:.0f}, "
            f"median {middle:.0f}"
        ]
    return lines
