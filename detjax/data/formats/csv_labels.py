"""CSV files of pictures' names and labels.

file,label          file,label,split
cats/1.jpg,cat      1.jpg,cat,train
2.jpg,cat|asleep    2.jpg,dog,val
"""

import csv
import functools
import hashlib
import io
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detjax import files
from detjax.data import lint, pictures, records
from detjax.data.formats import places
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record, shown
from detjax.errors import UserError
from detjax.settings import Location

TASK = "classification"
POOL: Mapping[str, str] = {places.ALL: ""}
# Names of columns, as the usual files have them; the first that is there.
FILE = ("file", "filename", "file_name", "filepath", "path", "image", "image_id", "id")
LABEL = ("label", "labels", "class", "class_name", "category", "target", "tags")
SPLIT = ("split", "subset", "set", "fold")
# What separates the labels of one picture.
SEPARATORS = ("|", ";")
_HELD = "a CSV file of pictures and labels"


class Row(NamedTuple):
    """A picture's line in the file, name and labels; `split` is "" without a column."""

    line: int
    name: str
    labels: tuple[str, ...]
    split: str


class Entry(NamedTuple):
    """A picture, its number in the split and its labels."""

    number: int
    name: str
    labels: tuple[int, ...]


def catalogues(
    *,
    splits: Mapping[str, Location] | None = None,
    root: Location | None = None,
    images: Location | None = None,
    columns: tuple[str, str] | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> dict[str, Catalogue]:
    """The splits, each of a CSV file, or of a value of the column "split" of `root`.

    splits: a file each, below `root` if that is a folder; or names alone, where `root`
        is the file and its column "split" has them.
    root: the CSV file, or the folder of the files.
    images: the folder that the pictures' names are below; the file's own if not given.
    columns: the names of the columns of the file and of the label; if not given the
        first of `FILE` and of `LABEL`, or of a file without a header the first two.
    classes: in their order; if not given the sorted labels of all splits.
    allow_outside: pictures outside the folder are read too.

    A picture has several labels where "|" or ";" separates them, or where several lines
    name it. Names may lack the ending of the picture's file.
    """
    found = _splits(splits, root, columns)
    labels = {name for _, rows in found.values() for row in rows for name in row.labels}
    chosen = tuple(sorted(labels) if classes is None else classes)
    lint.check_classes(chosen)
    made = {}
    for split, (path, rows) in found.items():
        folder = path.parent
        if images is not None:
            folder = places.folder(_below(root, images), "the images", "csv")
        entries, problems = _entries(rows, split, chosen)
        made[split] = Catalogue(
            split,
            chosen,
            entries,
            functools.partial(read_entry, folder=folder, allow_outside=allow_outside),
            problems,
            name_of=_name,
            labels_of=_labels,
        )
    return made


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(*, splits=None, root=None, columns=None, **others: Any) -> dict[str, str]:
    """A digest of the rows of each split. Raises MissingFileError if they are gone."""
    made = {}
    for split, (_, rows) in _splits(splits, root, columns).items():
        text = repr([row[1:3] for row in rows]).encode("utf-8", "surrogateescape")
        made[split] = f"annotations {hashlib.sha256(text).hexdigest()[:16]}"
    return made


def _below(root: Any, path: Any) -> Path:
    """`path`, below `root` where that is a folder."""
    folder = root is not None and os.path.isdir(lint.expanded(root))
    return places.joined(root if folder else None, path)


def _splits(
    splits: Mapping[str, Any] | None, root: Any, columns: Any
) -> dict[str, tuple[Path, list[Row]]]:
    """The file and the rows of each split."""
    one = root is not None and not os.path.isdir(lint.expanded(root))
    if not one:
        named = places.splits_of(splits, root, "csv")
        paths = {s: places.file(p, _HELD, "csv") for s, p in named.items()}
        return {s: (at, _rows(at, columns)) for s, at in paths.items()}
    path = places.file(root, _HELD, "csv")
    rows = _rows(path, columns)
    if splits == POOL:
        return {places.ALL: (path, rows)}
    held = list(dict.fromkeys(row.split for row in rows))
    if not splits:
        if held == [""]:
            raise places.unnamed(root, "csv")
        splits = dict(zip(held, held, strict=True))
    for value in splits.values():
        if value not in held:
            there = "no column of splits" if held == [""] else f"the splits {held}"
            raise UserError(
                f"{path} has {there}, and --split names {value!r}; divide all pictures "
                "with --split-by=train:0.8,val:0.2, or name what is there"
            )
    return {
        split: (path, [row for row in rows if row.split == value])
        for split, value in splits.items()
    }


def _rows(path: Path, columns: tuple[str, str] | None) -> list[Row]:
    """The rows of a file. Raises UserError where it is no such table."""
    text = files.read_text(path).lstrip("\ufeff")
    first = text.partition("\n")[0]
    delimiter = max(",\t;", key=first.count)
    try:
        table = [*csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file ({error}); mend it") from None
    lines = [(i, [cell.strip() for cell in row]) for i, row in enumerate(table, 1)]
    lines = [(i, row) for i, row in lines if any(row)]
    if not lines:
        raise UserError(f"{path} is empty; it needs a line for each picture")
    file, label, split, header = _columns(path, lines[0][1], columns)
    rows = []
    for i, row in lines[header:]:
        if len(row) <= max(file, label, split):
            raise UserError(
                f"line {i} of {path} has {len(row)} columns, and the first has "
                f"{len(lines[0][1])}; mend it, or quote what holds {delimiter!r}"
            )
        part = row[split] if split >= 0 else ""
        if split >= 0 and not part:
            raise UserError(
                f"line {i} of {path} says nothing in column {lines[0][1][split]!r}, "
                "which tells the split; fill it in, or rename the column and divide "
                "with --split-by"
            )
        rows.append(Row(i, row[file], _several(row[label], delimiter), part))
    return rows


def _columns(
    path: Path, header: list[str], columns: tuple[str, str] | None
) -> tuple[int, int, int, int]:
    """The numbers of the columns, -1 for no split, and the lines of the header."""
    lower = [name.lower() for name in header]

    def place(names: Sequence[str]) -> int:
        return next((lower.index(name) for name in names if name in lower), -1)

    if columns is not None:
        if len(columns) != 2:
            raise UserError(
                f"--columns={','.join(columns)} names {len(columns)} columns; give "
                "two, of the files and of the labels: --columns=FILE,LABEL"
            )
        missing = [name for name in columns if name.lower() not in lower]
        if missing:
            raise UserError(
                f"{path} has no column {missing[0]!r}; its first line has "
                f"{', '.join(map(repr, header))}"
            )
        file, label = (lower.index(name.lower()) for name in columns)
        return file, label, place(SPLIT), 1
    file, label = place(FILE), place(LABEL)
    if file >= 0 and label >= 0:
        return file, label, place(SPLIT), 1
    if len(header) == 2 and pictures.is_picture(header[0] or " "):
        return 0, 1, -1, 0
    raise UserError(
        f"the first line of {path} names no column of files ({', '.join(FILE)}) beside "
        f"one of labels ({', '.join(LABEL)}), but {', '.join(map(repr, header))}; name "
        "them with --columns=FILE,LABEL"
    )


def _several(text: str, delimiter: str) -> tuple[str, ...]:
    """The labels of a cell."""
    parts = [text]
    for mark in SEPARATORS:
        if mark != delimiter:
            parts = [*itertools.chain.from_iterable(p.split(mark) for p in parts)]
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _entries(
    rows: Sequence[Row], split: str, classes: Sequence[str]
) -> tuple[list[Entry], list[Problem]]:
    """An entry for each picture of the rows, in their order, and what is wrong."""
    number = {name: i for i, name in enumerate(classes)}
    problems: list[Problem] = []
    held: dict[str, list[int]] = {}
    for row in rows:
        labels = held.setdefault(row.name, [])
        subject = f"line {row.line} of split {split}"
        if not row.labels:
            detail = "has no label"
            problems.append(Problem(subject, row.name, "no label", detail))
        for name in row.labels:
            if name not in number:
                detail = lint.unknown_class(name, classes)
                problems.append(Problem(subject, row.name, "unknown class", detail))
            elif number[name] not in labels:
                labels.append(number[name])
    some = [(name, labels) for name, labels in held.items() if labels]
    numbered = enumerate(some, 1)
    entries = [Entry(i, name, tuple(sorted(own))) for i, (name, own) in numbered]
    return entries, problems


def _name(entry: Entry) -> str:
    return entry.name


def _labels(entry: Entry) -> tuple[int, ...]:
    return entry.labels


def read_entry(entry: Entry, *, folder: Path, allow_outside: bool) -> Reading:
    """A picture with its labels, or its problem."""
    fault = lint.fault_of_name(entry.name, allow_outside)
    if fault is not None:
        subject = f"image {entry.number}"
        return Reading(None, [Problem(subject, shown(entry.name), *fault)])
    path = folder / entry.name
    if not pictures.is_picture(entry.name) and not path.is_file():
        path = next(
            (
                path.with_name(path.name + ending)
                for ending in pictures.SUFFIXES
                if path.with_name(path.name + ending).is_file()
            ),
            path,
        )
    record = Record(entry.number, shown(entry.name), 0, 0, path)
    record.truth = entry.labels
    return lint.read_image(record)
