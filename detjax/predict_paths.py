"""Which pictures are predicted, and where their drawings go."""

import contextlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from detjax import draw, files
from detjax.data.pictures import SUFFIXES
from detjax.errors import UserError

INDEX = "predictions.json"
HEAD = 1 << 24  # bytes of an earlier one that are read to know it


def pictures_of(
    paths: Sequence[str | pathlib.Path],
) -> tuple[list[pathlib.Path], Counter[str]]:
    """The images of `paths`, drawings only if they are named explicitly.

    Also counts what else folders hold, by suffix; earlier drawings as "drawing".
    """
    named = {pathlib.Path(path) for path in paths}
    found, others = image_files(paths)
    pictures = [path for path in found if path in named or not draw.is_drawing(path)]
    if len(pictures) < len(found):
        others["drawing"] = len(found) - len(pictures)
    return pictures, others


def passed_over(others: Mapping[str, int]) -> str:
    """What was passed over: "2 .txt, 1 without a suffix"."""
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    said = {"": "without a suffix", "drawing": "drawn by an earlier prediction"}
    return ", ".join(f"{count} {said.get(kind, kind)}" for kind, count in kinds)


def image_files(
    paths: Iterable[str | pathlib.Path],
) -> tuple[list[pathlib.Path], Counter[str]]:
    """Files as given, folders as the images in them, sorted; each once.

    Includes files that merely have an image's suffix, and unreadable folders: reading
    them reports the problem. Also counts the other files of folders by suffix.
    """
    found: list[pathlib.Path] = []
    others: Counter[str] = Counter()
    for path in map(pathlib.Path, paths):
        found += sorted(_below(path, others)) if path.is_dir() else [path]
    once = {os.path.abspath(path): path for path in reversed(found)}
    return [path for path in found if once[os.path.abspath(path)] is path], others


def _below(folder: pathlib.Path, others: Counter[str]) -> list[pathlib.Path]:
    """The images in `folder` and its subfolders, without following links.

    Adds the suffixes of its other files to `others`.
    """
    found: list[pathlib.Path] = []

    def closed(error: OSError) -> None:
        found.append(pathlib.Path(error.filename))

    for at, folders, names in os.walk(folder, onerror=closed):
        paths = [pathlib.Path(at, name) for name in (*names, *folders)]
        found += (p for p in paths if p.suffix.lower() in SUFFIXES)
        suffixes = (pathlib.Path(name).suffix.lower() for name in names)
        others.update(s for s in suffixes if s not in SUFFIXES)
    return found


def drawing_names(
    pictures: Sequence[pathlib.Path], endings: Sequence[str] = ()
) -> list[str]:
    """A unique name for the drawing of each image.

    It is the image's own name except for the suffix. If several share it, the first
    keeps it and the others get an unused number. Beside a drawing there are files with
    these `endings`, see `beside`, whose names are unique too.
    """
    # As case-insensitive file systems compare them.
    stems = {path.stem.casefold() for path in pictures}
    taken: set[str] = set()
    names = []
    for path in pictures:
        stem, number = path.stem, 1
        while not taken.isdisjoint(_names(stem, endings)) or (
            number > 1 and stem.casefold() in stems
        ):
            number += 1
            stem = f"{path.stem}-{number}"
        taken.update(_names(stem, endings))
        names.append(f"{stem}.png")
    return names


def _names(stem: str, endings: Sequence[str]) -> list[str]:
    """The drawing of that name and what is beside it, to be compared."""
    drawing = f"{stem}.png"
    return [name.casefold() for name in (drawing, *beside(drawing, endings))]


def beside(drawing: str, endings: Sequence[str]) -> list[str]:
    """The names of the files beside a drawing, of these endings."""
    return [drawing.removesuffix(".png") + ending for ending in endings]


def check_free(
    out: pathlib.Path,
    pictures: Sequence[pathlib.Path],
    names: Sequence[str],
    endings: Sequence[str] = (),
) -> None:
    """Raises UserError if a file in `out` that was not made here would be replaced.

    Drawings and what is beside them, of these `endings`, are marked (see
    `draw.marked`), predictions.json is known by its content.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    targets = (
        (path, out / one)
        for path, name in zip(pictures, names, strict=True)
        for one in (name, *beside(name, endings))
    )
    for path, target in targets:
        if not files_are_there(target) or draw.is_drawing(target):
            continue
        whose = "is not a drawing of an earlier prediction"
        with contextlib.suppress(OSError):
            if target.samefile(path):
                whose = "is that picture itself"
        raise UserError(
            f"the drawing of {path} would replace {target}, which {whose}; choose "
            "another --out"
        )
    index = out / INDEX
    if files_are_there(index) and not written_here(index):
        raise UserError(
            f"{index} is there and no earlier prediction wrote it; choose another "
            "--out, or move it away"
        )


def files_are_there(path: pathlib.Path) -> bool:
    """Whether `path` exists, even as a broken link."""
    with files.reading(path):
        return path.is_symlink() or path.exists()


def written_here(index: pathlib.Path) -> bool:
    """Whether `index` is a predictions.json, by its first row."""
    try:
        head = files.read_bytes(index, HEAD).decode("utf-8", "replace").strip()
        if head == "[]":
            return True
        row, _ = json.JSONDecoder().raw_decode(head.removeprefix("["))
    except ValueError:  # UserError is one
        return False
    known = {"image_id", "file_name", "drawing"}
    return head.startswith("[") and isinstance(row, dict) and known <= row.keys()
