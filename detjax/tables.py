"""Tables of numbers by class as text and as CSV."""

import csv
import io
import math
from typing import Any

from detjax.types import Table

MOST_ROWS = 40  # printed; half of them the worst, half the best
NAME_WIDTH = 28


def text(table: Table, most: int | None = MOST_ROWS) -> str:
    """`table` for reading, the worst row first; None prints all rows.

    Of more than `most` rows it is the worst and the best half of as many, and how many
    are left out between. Rows without a number to sort by come last.
    """
    rows = ordered(table)
    cut = most is not None and len(rows) > most
    shown = rows[: most // 2] + rows[len(rows) - most // 2 :] if cut else rows
    cells = [[_cell(value) for value in row] for row in shown]
    widths = [
        max(len(line[i]) for line in [list(table.columns), *cells])
        for i in range(len(table.columns))
    ]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [list(table.columns), *cells]
    ]
    if cut:
        hidden = len(rows) - 2 * (most // 2)
        lines.insert(1 + most // 2, f"... {hidden} classes between")
    return "\n".join(lines)


def ordered(table: Table) -> list[tuple[Any, ...]]:
    """The rows by their column `by`, the lowest first, undefined ones last."""

    def place(row):
        value = row[table.by]
        return (math.isnan(value), 0.0 if math.isnan(value) else value)

    return sorted(table.rows, key=place)


def as_csv(table: Table) -> str:
    """All rows of `table`, in its own order; empty where a number is undefined."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow(
            ["" if isinstance(x, float) and math.isnan(x) else x for x in row]
        )
    return held.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, str):
        name = "".join(c if c.isprintable() else "?" for c in value)
        return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.3f}"
