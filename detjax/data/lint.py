"""What is wrong with images and annotations, each named in a sentence.

Readers bring what their files say; the functions here return what is sound of it and
append the rest to `problems`. Nothing is mended but boxes that stick out of their image
by a pixel or less, which are cut.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from detjax.data import pixels, rle
from detjax.data.records import Annotation, Box, Dataset, Problem, Record

Size = tuple[int, int]  # (h, w)

# As (reason, detail) of a `Problem`.
Fault = tuple[str, str]

_SHOWN = 20


def check_choice(on_error: str) -> None:
    """Raises ValueError where `on_error` is neither "fail" nor "skip"."""
    if on_error not in ("fail", "skip"):
        raise ValueError(f"on_error is {on_error!r}; take 'fail' or 'skip'")


def settle(datasets: Iterable[Dataset], on_error: str) -> None:
    """Raises ValueError that lists the problems, unless they are to be skipped."""
    check_choice(on_error)
    problems = [str(p) for d in datasets for p in d.problems]
    if not problems or on_error == "skip":
        return
    if len(problems) > _SHOWN:
        more = len(problems) - _SHOWN
        problems = [*problems[:_SHOWN], f"and {more} more, which skipping lists"]
    advice = "drop such with --on-error=skip (on_error='skip') or fix the files"
    if len(problems) == 1:
        raise ValueError(f"{problems[0]}; {advice}")
    raise ValueError("\n  ".join(["bad annotations:", *problems]) + f"\n{advice}")


def good_images(records: Iterable[Record], problems: list[Problem]) -> list[Record]:
    """The records whose image can be read, with the size that it really has.

    A record's height and width are what its annotation file declares, 0 for nothing.
    """
    records = list(unique(records, problems))
    kept = []
    for record, (size, fault) in zip(records, _look_at_all(records), strict=True):
        fault = fault or _compare_sizes((record.height, record.width), size)
        if fault:
            problems.append(Problem(f"image {record.id}", record.file_name, *fault))
        else:
            record.height, record.width = size
            kept.append(record)
    return kept


def check_folder(folder: Path) -> None:
    """Raises FileNotFoundError where there is no such folder of images."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the one of the images")


def unique(records: Iterable[Record], problems: list[Problem]) -> Iterator[Record]:
    """The records but those that repeat an id."""
    seen: dict[int, str] = {}
    for record in records:
        if record.id in seen:
            detail = f"has the id of {seen[record.id]}"
            problems.append(
                Problem(f"image {record.id}", record.file_name, "duplicate id", detail)
            )
        else:
            seen[record.id] = record.file_name
            yield record


def _look_at_all(records: list[Record]) -> Iterator[tuple[Size, Fault | None]]:
    # OpenCV decodes without the interpreter's lock, so that threads are enough.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks = pool.map(lambda record: look(record.path), records)
        # disable=None: a bar for people, none in a log file.
        yield from tqdm(looks, "images", len(records), disable=None, delay=2)


def look(path: Path) -> tuple[Size, Fault | None]:
    """The size of the image at `path` and, where it cannot be read, what is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else str(error)
        return (0, 0), ("missing image", f"has no image file: {path} {why}")
    if cut_off(data):
        return (0, 0), ("unreadable image", f"is cut off after {len(data)} bytes")
    # Grey is quickest, and all of a JPEG's data is read for it.
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return pixels.decode(data, flags).shape[:2], None
    except ValueError:
        return (0, 0), ("unreadable image", f"cannot be decoded: {path}")


def cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; decoders fill the rest with grey."""
    if data.startswith(b"\xff\xd8\xff"):
        # An end marker before the last scan is that of an embedded preview.
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if data.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" not in data
    return not data


def _compare_sizes(declared: Size, size: Size) -> Fault | None:
    if 0 in declared or declared == size:
        return None
    says = (
        f"is declared {declared[1]} x {declared[0]} but is {size[1]} x {size[0]} pixels"
    )
    if declared == size[::-1]:
        return "swapped height and width", f"{says}: height and width are swapped"
    return "wrong image size", says


def good_annotations(
    record: Record, found: Iterable[Annotation | Problem], problems: list[Problem]
) -> None:
    """Gives a record what is sound of its annotations `found`, boxes cut to it."""
    size = (record.height, record.width)
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
            continue
        fault = fault_of(item, size)
        if fault:
            problems.append(annotation_problem(item.id, record, *fault))
        else:
            item.box = cut_box(item.box, size)
            record.annotations.append(item)


def annotation_problem(
    number: int | str, record: Record, reason: str, detail: str
) -> Problem:
    """A problem of an annotation of `record`."""
    subject = f"annotation {number} of image {record.id}"
    return Problem(subject, record.file_name, reason, detail)


def fault_of(annotation: Annotation, size: Size) -> Fault | None:
    """What is wrong with an annotation of an image of `size`, if anything is."""
    return (
        _fault_of_numbers(annotation)
        or fault_of_box(annotation.box, size)
        or _fault_of_mask(annotation, size)
    )


def _fault_of_numbers(annotation: Annotation) -> Fault | None:
    numbers = [*annotation.box, annotation.area]
    if annotation.keypoints is not None:
        numbers += annotation.keypoints.ravel().tolist()
    if np.isfinite(numbers).all():
        return None
    what = "box" if not np.isfinite(annotation.box).all() else "area or keypoint"
    shown = f" {show(annotation.box)}" if what == "box" else ""
    return "number not finite", f"has {what}{shown}: a number is not finite"


def fault_of_box(box: Box, size: Size) -> Fault | None:
    """What is wrong with a box of finite numbers."""
    (x1, y1, x2, y2), (h, w) = box, size
    beyond = max(-x1, -y1, x2 - w, y2 - h)
    if min(x2 - x1, y2 - y1) <= 0:
        return flat(box)
    if beyond > 1:
        detail = f"has box {show(box)}: {beyond:g} pixels outside the {w} x {h} image"
        return "outside the image", detail
    x1, y1, x2, y2 = cut_box(box, size)
    return flat(box) if min(x2 - x1, y2 - y1) <= 0 else None


def flat(box: Box) -> Fault:
    """The fault of a box without area."""
    width, height = box[2] - box[0], box[3] - box[1]
    sides = [
        f"{'zero' if side == 0 else 'negative'} {name}"
        for name, side in (("width", width), ("height", height))
        if side <= 0
    ]
    what = " and ".join(sides) or "no area inside the image"
    return "zero area", f"has box {show(box)}: {what}"


def cut_box(box: Box, size: Size) -> Box:
    """The part of a box that is in the image."""
    (x1, y1, x2, y2), (h, w) = box, size
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h))


def _fault_of_mask(annotation: Annotation, size: Size) -> Fault | None:
    if annotation.rle is None:
        return None
    _, tight, area = rle.measure(annotation.rle, size)
    if not area:
        return "empty mask", "has a mask without a pixel"
    box = annotation.box
    # Of small objects a pixel more or less halves the overlap.
    if max(abs(a - b) for a, b in zip(box, tight, strict=True)) <= 1:
        return None
    overlap = _iou(box, tight)
    if overlap >= 0.5:
        return None
    detail = f"has box {show(box)} and a mask in {show(tight)}: IoU {overlap:.2f}"
    return "mask disagrees with box", detail


def _iou(a: Box, b: Box) -> float:
    def area(x1, y1, x2, y2):
        return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)

    both = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return both / (area(*a) + area(*b) - both)


def show(box: Box) -> str:
    """A box as people write it, without zeros behind the point."""
    return f"[{', '.join(f'{x:g}' for x in box)}]"
