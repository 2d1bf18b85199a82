"""Detections of files and folders of pictures: drawings and predictions.json."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import jax

from detjax import draw, files
from detjax import predict as prediction
from detjax.errors import UserError, reason

# What was found, in which picture, and the name of its drawing.
INDEX = "predictions.json"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def predict(
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    paths: Sequence[str | pathlib.Path],
    *,
    min_score: float = 0.3,
    best: bool = False,
) -> list[str]:
    """Draws the detections on every picture of `paths` into `out`; returns complaints.

    Writes a PNG file a picture and predictions.json: COCO results with the names of the
    picture and its drawing, in the pixels of the upright original. Drawings that lie in
    folders of `paths` are no pictures. Pictures that cannot be read, or are too large
    for the memory, are passed over, and each is a sentence of what is returned.

    Raises UserError, with nothing written, where there is no picture, and where a file
    that was not written here would be replaced.
    """
    out = pathlib.Path(out)
    pictures = pictures_of(paths)
    if not pictures:
        raise UserError(
            f"there is no image in {', '.join(map(str, paths))}; name files, or "
            f"folders with files that end in {', '.join(SUFFIXES)}"
        )
    names = drawing_names(pictures)
    check_free(out, pictures, names)
    run = prediction.load(workdir, best=best)
    call = run.predictor()
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    complaints = []
    for i, (path, name) in enumerate(zip(pictures, names, strict=True), start=1):
        try:
            with within_memory(path):
                image = prediction.read_image(path)
                found = call(image, min_score=min_score)
                drawn = draw.detections(image, found, run.classes)
        except UserError as error:
            complaints.append(str(error))
            continue
        draw.save(out / name, drawn)
        entries = prediction.to_results(found, i, run.category_ids)
        rows += [
            {
                **row,
                "file_name": str(path),
                "category": run.classes[label],
                "drawing": name,
            }
            for row, label in zip(entries, found.labels, strict=True)
        ]
    files.write_text(out / INDEX, json.dumps(rows))
    return complaints


def pictures_of(paths: Sequence[str | pathlib.Path]) -> list[pathlib.Path]:
    """The pictures of `paths`; drawings count only where they are named themselves."""
    named = {pathlib.Path(path) for path in paths}
    return [
        path
        for path in image_files(paths)
        if path in named or not draw.is_drawing(path)
    ]


def image_files(paths: Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
    """Files as given, folders as the images below them, sorted; each once.

    What only has the name of an image, and folders that cannot be looked into, are
    among them: reading them says what is wrong.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        found += sorted(_below(path)) if path.is_dir() else [path]
    once = {os.path.abspath(path): path for path in reversed(found)}
    return [path for path in found if once[os.path.abspath(path)] is path]


def _below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images in `folder` and its folders, but for those behind links."""
    found: list[pathlib.Path] = []

    def closed(error: OSError) -> None:
        found.append(pathlib.Path(error.filename))

    for at, folders, names in os.walk(folder, onerror=closed):
        paths = (pathlib.Path(at, name) for name in (*names, *folders))
        found += (p for p in paths if p.suffix.lower() in SUFFIXES)
    return found


def drawing_names(pictures: Sequence[pathlib.Path]) -> list[str]:
    """A name for the drawing of each picture; no two are the same.

    It is the picture's own, but for its suffix. Where several have that one, the first
    gets it, and the others get a number that makes a name which none has.
    """
    # As file systems compare them that know no capital letters.
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
    """Raises UserError where a file in `out` would be replaced and was not made here.

    Drawings say so themselves (see `draw.save`), predictions.json by what it holds.
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
    """Whether `path` names anything, a link to nothing too."""
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
    """Turns running out of memory over the picture `path` into a UserError.

    So too what OpenCV refuses, which has limits to a picture's sides.
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
