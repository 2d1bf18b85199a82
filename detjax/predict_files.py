"""Predictions for files and folders of images: drawings and predictions.json."""

import contextlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import jax

from detjax import draw, files
from detjax import predict as prediction
from detjax.data.pictures import SUFFIXES
from detjax.errors import UserError, reason
from detjax.settings import nearest

# The prediction, its image, and the name of its drawing.
INDEX = "predictions.json"


def predict(
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    paths: Sequence[str | pathlib.Path],
    *,
    min_score: float = 0.3,
    best: bool = False,
    log: Callable[[str], Any] = lambda line: None,
) -> list[str]:
    """Writes drawings of the predictions for all images of `paths`; returns problems.

    Writes one PNG file per image to `out`, and predictions.json: COCO results with the
    names of the image and its drawing, in pixels of the upright original. Drawings in
    folders of `paths` are not treated as images. Images that are unreadable or too
    large for the memory are skipped, with one returned message each. `log` gets a line
    about the files of folders that were passed over, and one about what was written.

    Raises UserError, with nothing written, if there is no image, or if a file that was
    not written here would be replaced.
    """
    out = pathlib.Path(out)
    pictures, others = pictures_of(paths)
    if not pictures:
        held = f" ({passed_over(others)})" if others else ""
        raise UserError(
            f"there is no image in {', '.join(map(str, paths))}{held}; name files, or "
            f"folders with files that end in {', '.join(SUFFIXES)}"
        )
    if others:
        log(f"passed over: {passed_over(others)}")
    drawings = drawing_names(pictures)
    check_free(out, pictures, drawings)
    run = prediction.load(workdir, best=best)
    call = run.predictor()
    names = dict(zip(run.category_ids, run.classes, strict=True))
    gone = [path for path in pictures if not files_are_there(path)]
    if len(gone) == len(pictures):
        beside = [p.name for p in gone[0].absolute().parent.glob("*")]
        raise UserError(f"{gone[0]} does not exist{nearest(gone[0].name, beside)}")
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    complaints, empty = [], 0
    for i, (path, name) in enumerate(zip(pictures, drawings, strict=True), start=1):
        try:
            with within_memory(path):
                image = prediction.read_image(path)
                found = call(image, min_score=min_score)
                drawn = run.task.draw(image, found, run.classes)
        except UserError as error:
            complaints.append(str(error))
            continue
        draw.save(out / name, drawn)
        entries = run.task.entries(found, i, run.category_ids)
        empty += not entries
        rows += [
            {
                **row,
                "file_name": str(path),
                "category": names[row["category_id"]],
                "drawing": name,
            }
            for row in entries
        ]
    files.write_text(out / INDEX, json.dumps(rows))
    count = len(pictures) - len(complaints)
    log(f"{count} of {len(pictures)} pictures are drawn in {out}, beside {INDEX}")
    none = (
        f"; nothing in {empty} pictures: a lower --min_score shows more"
        if empty
        else ""
    )
    log(f"{len(rows)} found with a score of {min_score:g} or more{none}")
    return complaints


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


def drawing_names(pictures: Sequence[pathlib.Path]) -> list[str]:
    """A unique name for the drawing of each image.

    It is the image's own name except for the suffix. If several share it, the first
    keeps it and the others get an unused number.
    """
    # As case-insensitive file systems compare them.
    stems = {path.stem.casefold() for path in pictures}
    taken: set[str] = set()
    names = []
    for path in pictures:
        stem, number = path.stem, 1
        while stem.casefold() in taken or (number > 1 and stem.casefold() in stems):
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        names.append(f"{stem}.png")
    return names


def check_free(
    out: pathlib.Path, pictures: Sequence[pathlib.Path], names: Sequence[str]
) -> None:
    """Raises UserError if a file in `out` that was not made here would be replaced.

    Drawings are marked (see `draw.save`), predictions.json is known by its content.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    for path, name in zip(pictures, names, strict=True):
        target = out / name
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
    """Whether `index` is a predictions.json."""
    try:
        rows = files.read_json(index)
    except UserError:
        return False
    return isinstance(rows, list) and all(
        isinstance(row, dict) and {"image_id", "file_name", "drawing"} <= row.keys()
        for row in rows
    )


@contextlib.contextmanager
def within_memory(path: pathlib.Path) -> Iterator[None]:
    """Turns running out of memory for the image `path` into a UserError.

    Likewise for images that OpenCV refuses, whose sides are limited.
    """
    advice = "shrink it, or cut it into parts"
    try:
        yield
    except MemoryError as error:
        raise UserError(f"{path} is too large for the memory; {advice}") from error
    except cv2.error as error:
        why = "is too large for the memory"
        if error.code != cv2.Error.StsNoMem:
            why = f"cannot be processed ({reason(error)})"
        raise UserError(f"{path} {why}; {advice}") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"{path} is too large for the memory; {advice}") from error
