"""Predictions for files and folders of images: drawings and predictions.json.

Pictures are read ahead and drawings written behind by threads, while the devices answer
those between; some are held at a time, however many there are.
"""

import contextlib
import pathlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import jax

from detjax import draw, files
from detjax import predict as prediction
from detjax.answers import host_threads
from detjax.data import crew
from detjax.data.pictures import SUFFIXES
from detjax.errors import UserError, reason
from detjax.predict_paths import (
    INDEX,
    beside,
    check_free,
    drawing_names,
    files_are_there,
    passed_over,
    pictures_of,
)
from detjax.predictor import Given, Predictor, in_order, known


def predict(
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    paths: Sequence[str | pathlib.Path],
    *,
    min_score: float | None = None,
    best: bool = False,
    batch_size: int | None = None,
    log: Callable[[str], Any] = lambda line: None,
    **seen: Any,
) -> list[str]:
    """Writes drawings of the predictions for all images of `paths`; returns problems.

    Writes one PNG file per image to `out`, and predictions.json: COCO results with the
    names of the image and its drawing, in pixels of the upright original, in the order
    of the images. Drawings in folders of `paths` are not treated as images. Images that
    are unreadable or too large for the memory are skipped, with one returned message
    each. `min_score` is the task's own if None, `batch_size` that of
    `predictor.Predictor`, `seen` are keywords of `TrainedModel.predictor`. Beside a
    drawing are the files that the task has for what is found. `log` gets a line about
    the files of folders that were passed over, one about tiles of another side than
    asked for, and one about what was written.

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
    # Before anything is loaded, as far as names do not depend on the task.
    check_free(out, pictures, drawing_names(pictures))
    run = prediction.load(workdir, best=best)
    drawings = drawing_names(pictures, run.task.endings)
    check_free(out, pictures, drawings, run.task.endings)
    if min_score is None:
        min_score = run.task.least_score
    if not any(map(files_are_there, pictures)):
        gone = pictures[0]
        raise UserError(f"{gone} does not exist{files.near(gone.absolute())}")
    predictor = run.predictor(batch_size=batch_size, log=log, **seen)
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    complaints: list[str] = []
    found = empty = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal found, empty
        made = drawn(run, predictor, pictures, drawings, out, min_score)
        with contextlib.closing(made):
            for entries, complaint in in_order(made):
                if complaint:
                    complaints.append(complaint)
                    continue
                found += len(entries)
                empty += not entries
                yield from entries

    files.write_rows(out / INDEX, rows())
    count = len(pictures) - len(complaints)
    log(f"{count} of {len(pictures)} pictures are drawn in {out}, beside {INDEX}")
    none = (
        f"; nothing in {empty} pictures: a lower --min_score shows more"
        if empty
        else ""
    )
    least = f" with a score of {min_score:g} or more" if min_score > 0 else ""
    log(f"{found} found{least}{none}")
    return complaints


class Place(NamedTuple):
    """A picture: its number from 0, its file and the name of its drawing."""

    number: int
    path: pathlib.Path
    drawing: str


def drawn(
    run: prediction.TrainedModel,
    predictor: Predictor,
    pictures: Sequence[pathlib.Path],
    drawings: Sequence[str],
    out: pathlib.Path,
    min_score: float,
) -> Generator[tuple[int, tuple[list[dict[str, Any]], str | None]], None, None]:
    """Draws pictures; their numbers with rows of the index, or what is wrong with them.

    In any order. All threads have ended when it is closed.
    """
    names = dict(zip(run.category_ids, run.classes, strict=True))

    def read(place: Place) -> tuple[Place, Given | Exception]:
        try:
            with within_memory(place.path):
                image = prediction.read_image(place.path)
                return place, predictor.prepare(image)
        except UserError as error:
            return place, error

    def finish(held) -> tuple[int, tuple[list[dict[str, Any]], str | None]]:
        place, given, answer = held
        try:
            with within_memory(place.path):
                found = run.task.restore(*known(answer), min_score)
                picture = run.task.draw(given.image, found, run.classes)
                made = run.task.files(found, run.classes) if run.task.files else {}
        except UserError as error:
            return place.number, ([], str(error))
        draw.save(out / place.drawing, picture)
        named = beside(place.drawing, [*made])
        for name, data in zip(named, made.values(), strict=True):
            files.write_bytes(out / name, draw.marked(data))
        rows = [
            {
                **row,
                "file_name": str(place.path),
                **(
                    {"category": names[row["category_id"]]}
                    if "category_id" in row
                    else {}
                ),
                "drawing": place.drawing,
                **({"files": named} if named else {}),
            }
            for row in run.task.entries(found, place.number + 1, run.category_ids)
        ]
        return place.number, (rows, None)

    threads = host_threads()
    places = (
        Place(i, path, name)
        for i, (path, name) in enumerate(zip(pictures, drawings, strict=True))
    )
    with contextlib.closing(crew.serial(read, places, threads)) as given:
        answered = predictor.answers(given)
        with contextlib.closing(crew.serial(finish, answered, threads)) as made:
            yield from made


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
