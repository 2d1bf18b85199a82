"""The label files of YOLO's pictures: where they are, and those that are not."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detjax import files
from detjax.data.formats import sniff
from detjax.data.records import Problem, shown
from detjax.errors import MissingFileError, UserError


class Entry(NamedTuple):
    """An image's number, and its path below the base folder."""

    number: int
    name: str


def check(
    entries: Sequence[Entry],
    base: Path,
    whole: bool,
    here: str,
    problems: list[Problem],
) -> list[str]:
    """Notes on images without labels; labels without images join the problems.

    Raises UserError if no image has labels.
    """
    folders: dict[str, set[str]] = {}
    used: dict[str, set[str]] = {}
    without = []
    for entry in entries:
        for path in label_files(os.path.join(base, entry.name)):
            folder, name = os.path.split(path)
            if folder not in folders:
                there = os.path.isdir(folder)
                folders[folder] = set(os.listdir(folder)) if there else set()
            used.setdefault(folder, set()).add(name)
            if name in folders[folder]:
                break
        else:
            without.append(entry)
    if entries and len(without) == len(entries):
        first = label_files(os.path.join(base, entries[0].name))
        raise UserError(
            f"none of the {len(entries)} pictures in {here} has a label file: that of "
            f"{entries[0].name} would be {' or '.join(first)}"
            + sniff.advice(base, "yolo")
        )
    if whole:
        for folder in sorted(used):
            if os.path.basename(folder) in ("images", "") or "labels" not in folder:
                continue  # texts beside pictures may be anything
            texts = {name for name in folders[folder] if name.endswith(".txt")}
            for name in sorted(texts - used[folder] - {"classes.txt"}):
                detail = "has no image of its name"
                problems.append(
                    Problem(
                        f"label file {shown(name)}", folder, "missing image", detail
                    )
                )
    if not without:
        return []
    some = ", ".join(entry.name for entry in without[:3])
    more = ", ..." if len(without) > 3 else ""
    return [
        f"{len(without)} of {len(entries)} images have no label file and are taken to "
        f"show no object ({some}{more})"
    ]


def label_files(picture: str) -> list[str]:
    """Where the labels of a picture may be: in labels/ for images/, or beside it."""
    stem = os.path.splitext(picture)[0]
    above, found, below = stem.rpartition("/images/")
    beside = f"{stem}.txt"
    return [f"{above}/labels/{below}.txt", beside] if found else [beside]


def read(picture: Path) -> tuple[str, bytes] | None:
    """The label file of a picture and its content, None if it has none."""
    for path in label_files(str(picture)):
        try:
            return path, files.read_bytes(path)
        except MissingFileError:
            continue
    return None


def text_of(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"is not text: byte {error.start} is no UTF-8") from None
