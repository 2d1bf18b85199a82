"""Which pixels stand for which class: tables of users, and those of known data sets."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from detjax import files
from detjax.data.formats.semantic_maps import Coding
from detjax.errors import UserError

# Names in a table of what is no class.
IGNORED = ("ignore", "ignored", "void", "unlabelled", "unlabeled")

VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car"),
    *("cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# Cityscapes: the ids of labelIds files that are evaluated; the others are ignored.
CITYSCAPES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
CITYSCAPES_IDS = 34  # 0 to 33, and -1, which 8 bits make 255
ADE20K = 150  # classes of SceneParse150


class Classes(NamedTuple):
    """The names of classes, and how maps have them."""

    names: tuple[str, ...]
    coding: Coding


def numbered(names: tuple[str, ...], first: int, ignored: tuple[int, ...]) -> Classes:
    """Classes whose numbers follow one another from `first`."""
    values = tuple((first + i,) for i in range(len(names)))
    return Classes(names, Coding(len(names), values, (), ignored))


def cityscapes(train_ids: bool) -> Classes:
    """The 19 classes of Cityscapes in files of train ids, or of ids."""
    names = tuple(CITYSCAPES)
    if train_ids:
        return numbered(names, 0, (255,))
    kept = {*CITYSCAPES.values()}
    ignored = tuple(i for i in range(CITYSCAPES_IDS) if i not in kept)
    values = tuple((i,) for i in CITYSCAPES.values())
    return Classes(names, Coding(len(names), values, (), (*ignored, 255)))


def table(path: Path, ignored: tuple[int, ...]) -> Classes:
    """The classes of a CSV file with a line of names: name, and value or r, g, b.

    Lines of one name are one class. What is named ignore, void or unlabelled, or like
    an earlier such line, is no class. Raises UserError that names the line.
    """
    rows = list(csv.reader(io.StringIO(files.read_text(path))))
    if not rows:
        raise UserError(f"{path} is empty; give it columns name,r,g,b or name,value")
    head = [name.strip().lower() for name in rows[0]]
    named = next((n for n in ("name", "class", "label") if n in head), None)
    colours = {"r", "g", "b"} <= {*head}
    number = next((n for n in ("value", "id", "index") if n in head), None)
    if named is None or not (colours or number):
        raise UserError(
            f"{path} has the columns {', '.join(head)}; it needs name, and r, g, b or "
            "value"
        )
    values: dict[str, list[int]] = {}
    tints: dict[str, list[tuple[int, int, int]]] = {}
    off: list[int] = [*ignored]
    off_tints: list[tuple[int, int, int]] = []
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        held = dict(zip(head, (cell.strip() for cell in row), strict=False))
        try:
            name = held[named]
            tint = tuple(int(held[c]) for c in "rgb") if colours else None
            value = int(held[number]) if number else None
        except (KeyError, ValueError):
            raise UserError(
                f"{path}, line {line}: {','.join(row)!r} is not a name and whole "
                f"numbers as {','.join(head)}"
            ) from None
        if tint is not None and not all(0 <= c <= 255 for c in tint):
            raise UserError(f"{path}, line {line}: colours go from 0 to 255")
        if name.lower() in IGNORED:
            off += [] if value is None else [value]
            off_tints += [] if tint is None else [tint]  # type: ignore[list-item]
            continue
        values.setdefault(name, []).extend([] if value is None else [value])
        tints.setdefault(name, []).extend([] if tint is None else [tint])  # type: ignore[list-item]
    names = tuple(values)
    _check_once(path, [v for own in values.values() for v in own], "value")
    _check_once(path, [t for own in tints.values() for t in own], "colour")
    listed = tuple(tuple(own) for own in values.values()) if number else ()
    coloured = (
        (*(tuple(own) for own in tints.values()), tuple(off_tints)) if colours else ()
    )
    return Classes(names, Coding(len(names), listed, coloured, tuple(off)))


def _check_once(path: Path, items: list[object], what: str) -> None:
    seen: set[object] = set()
    for item in items:
        if item in seen:
            raise UserError(f"{path} has the {what} {item} for two classes")
        seen.add(item)


def ade20k(path: Path) -> tuple[str, ...]:
    """The names in ADE20K's objectInfo150.txt, the first of each line's synonyms."""
    rows = files.read_text(path).splitlines()[1:]
    names = [row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip()]
    found: list[str] = []
    for name in names:  # "screen" is there twice, for instance
        same = sum(n == name or n.startswith(f"{name} (") for n in found)
        found.append(f"{name} ({same + 1})" if same else name)
    return tuple(found)
