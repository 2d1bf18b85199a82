"""What a run has taken of the weights that it starts from, as a table."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from detjax.weights.convert import Report

OTHERS = "other"
MOST = 12  # names of a list in the log; the file has all


def text(
    report: Report,
    leaves: Mapping[tuple[str, ...], Any],
    groups: Mapping[str, str],
    most: int | None = MOST,
) -> str:
    """The parameters taken and left by group, and what of the source is unused.

    `leaves` are the model's, by path behind their collection. Batch statistics count as
    parameters of their layer. Lists have `most` names at most, None is all.
    """
    sizes = {".".join(path[1:]): math.prod(x.shape) for path, x in leaves.items()}
    took = {*report.loaded}
    rows = [("group", "parameters", "taken", "left")]
    for group, names in grouped([*sizes], groups).items():
        whole = sum(sizes[name] for name in names)
        taken = sum(sizes[name] for name in names if name in took)
        rows.append((group, f"{whole:,}", f"{taken:,}", f"{whole - taken:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines += listed("left at initialisation", report.left, most)
    lines += listed("unused in the source", report.unused, most)
    return "\n".join(lines)


def grouped(names: Sequence[str], groups: Mapping[str, str]) -> dict[str, list[str]]:
    """`names` by the first of the `groups` that matches, in the order of these."""
    found: dict[str, list[str]] = {group: [] for group in (*groups, OTHERS)}
    for name in names:
        hits = (g for g, pattern in groups.items() if re.search(pattern, name))
        found[next(hits, OTHERS)].append(name)
    return {group: held for group, held in found.items() if held}


def listed(title: str, names: Sequence[str], most: int | None) -> list[str]:
    """Lines of the layers of `names`, with the number of their arrays."""
    layers: dict[str, int] = {}
    for name in names:
        layer = name.rpartition(".")[0] or name
        layers[layer] = layers.get(layer, 0) + 1
    shown = [f"  {layer} ({n} arrays)" for layer, n in layers.items()]
    if most is not None and len(shown) > most:
        shown = [*shown[:most], f"  and {len(shown) - most} more layers"]
    return [f"{title}:", *shown] if shown else []
