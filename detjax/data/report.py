"""What a reader found, as text for people."""

import numpy as np

from detjax.data.records import Dataset

_CLASSES = 20


def table(dataset: Dataset) -> str:
    """Lines on a split: counts, sizes, classes and problems by kind."""
    lines = [f"{dataset.split}:"]
    lines += _rows(dataset.counts(), always=("images", "objects"))
    lines += _sizes(dataset)
    classes = sorted(dataset.class_counts().items(), key=lambda item: -item[1])
    lines += ["  objects of each class:"]
    lines += _rows(dict(classes[:_CLASSES]), always=dataset.classes, indent=4)
    if len(classes) > _CLASSES:
        rest = classes[_CLASSES:]
        total = sum(count for _, count in rest)
        lines += [f"    and {len(rest)} classes with {total} objects"]
    if dataset.problems:
        lines += ["  problems:"]
        lines += _rows(dataset.problem_counts(), indent=4)
    return "\n".join(lines)


def _rows(counts, always=(), indent: int = 2) -> list[str]:
    return [
        f"{'':{indent}}{name:{30 - indent}} {count:8d}"
        for name, count in counts.items()
        if count or name in always
    ]


def _sizes(dataset: Dataset) -> list[str]:
    """The range of image sides and of object sizes (square roots of box areas)."""
    lines = []
    sides = [(r.width, r.height) for r in dataset.records]
    if sides:
        (w1, h1), (w2, h2) = np.min(sides, axis=0), np.max(sides, axis=0)
        lines += [f"  {'image sizes':28} {w1} x {h1} to {w2} x {h2}"]
    boxes = [a.box for r in dataset.records for a in r.annotations]
    if boxes:
        corners = np.array(boxes)
        sizes = np.sqrt((corners[:, 2:] - corners[:, :2]).prod(axis=1))
        low, middle, high = np.percentile(sizes, [0, 50, 100])
        lines += [
            f"  {'object sizes in pixels':28} {low:.0f} to {high:.0f}, "
            f"median {middle:.0f}"
        ]
    return lines
