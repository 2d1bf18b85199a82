"""Tables by class: sorted, cut, undefined numbers last."""

import csv
import io
import math

from detjax import tables
from detjax.types import Table

NAN = math.nan


def table(count):
    rows = [(f"c{i}", i, ((7 * i) % count) / count) for i in range(count)]
    return Table(("class", "objects", "AP"), rows, 2)


def test_rows_are_sorted_and_undefined_ones_last():
    found = Table(
        ("class", "AP"), [("b", 0.5), ("none", NAN), ("a", 0.25), ("long name", 1.0)], 1
    )
    assert tables.text(found).splitlines() == [
        "class         AP",
        "a          0.250",
        "b          0.500",
        "long name  1.000",
        "none           -",
    ]


def test_of_many_rows_the_worst_and_the_best_are_shown():
    lines = tables.text(table(80)).splitlines()
    assert len(lines) == 42 and lines[21] == "... 40 classes between"
    assert lines[1].startswith("c0 ") and lines[1].endswith("0.000")
    assert lines[-1].endswith("0.988")
    assert len(tables.text(table(80), None).splitlines()) == 81
    assert len(tables.text(table(40)).splitlines()) == 41
    assert len({len(line) for i, line in enumerate(lines) if i != 21}) == 1


def test_names_cannot_break_the_lines():
    found = Table(("class", "AP"), [("a\nb" * 30, 0.5)], 1)
    lines = tables.text(found).splitlines()
    assert len(lines) == 2 and "…" in lines[1]


def test_csv_has_all_rows_in_their_order():
    held = Table(("class", "n", "AP"), [("a,b", 3, 0.125), ("c", 0, NAN)], 2)
    rows = list(csv.reader(io.StringIO(tables.as_csv(held))))
    assert rows == [["class", "n", "AP"], ["a,b", "3", "0.125"], ["c", "0", ""]]
