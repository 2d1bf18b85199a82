"""Checks of images and annotations, with a message for each problem.

Readers pass what they parsed; the functions here return the valid part and append the
rest to `problems`. Nothing is repaired, except that boxes that exceed their image by a
pixel or less are clipped.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from detjax.data import images, rle
from detjax.data.images import Fault, Size
from detjax.data.records import Annotation, Box, Problem, Reading, Record, shown
from detjax.errors import UserError

_SHOWN, _LONGEST = 20, 600


def check_choice(on_error: str) -> None:
    """Raises UserError unless `on_error` is "fail" or "skip"."""
    if on_error not in ("fail", "skip"):
        raise UserError(f"on_error is {on_error!r}; take 'fail' or 'skip'")


def settle(problems: Sequence[Problem], on_error: str) -> None:
    """Raises UserError that lists the problems, unless they are skipped."""
    check_choice(on_error)
    if not problems or on_error == "skip":
        return
    told = [_short(str(problem)) for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        told += [f"and {len(problems) - _SHOWN} more, which skipping lists"]
    advice = "drop such with --on-error=skip (on_error='skip') or fix the files"
    if len(told) == 1:
        raise UserError(f"{told[0]}; {advice}")
    raise UserError("\n  ".join(["bad annotations:", *told]) + f"\n{advice}")


def _short(text: str) -> str:
    """`text` in one line, truncated to a readable length."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_classes(classes: Sequence[str], where: str = "") -> None:
    """Raises UserError for invalid class names.

    tfds stores them in a file, one per line.
    """
    of = f" of {where}" if where else ""
    if not classes:
        raise UserError(f"there is no class{of}, no category: name one at least")
    seen = set()
    for name in classes:
        bare = name.strip()
        if not bare or len(f"{name}.".splitlines()) > 1:
            what = "has line breaks" if bare else "is nothing but spaces"
            raise UserError(f"the class name {name!r}{of} {what}; give it another")
        if shown(name) != name:
            raise UserError(f"the class name {shown(name)!r}{of} is not Unicode")
        if bare in seen:
            raise UserError(f"the class {bare!r}{of} is there twice; rename one")
        seen.add(bare)


def expanded(path: str | Path) -> Path:
    """`path` with ~ or ~user expanded. Raises UserError for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path} is in the home of a user who is not known") from None


def fault_of_name(name: str, allow_outside: bool = False) -> Fault | None:
    """The problem of a file name in an annotation file, if any.

    Names that point outside the folder are refused unless allowed: the file's author
    could choose any file to be read.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return "file name not Unicode", "has a file name that is not Unicode: rename it"
    if "\0" in name:
        return "malformed file name", "has a file name with a zero byte"
    if not allow_outside and _leads_out(name):
        detail = f"has a file outside the folder, {name}; allow it with --allow-outside"
        return "file outside the folder", f"{detail} (allow_outside=True)"
    return None


def _leads_out(name: str) -> bool:
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """The detail of a problem: a class that is not among the data set's."""
    some = ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
    return f"has class {name!r}, which is not among {some}"


def read_image(record: Record, data: bytes | None = None) -> Reading:
    """`record` with its upright image and actual size.

    The image is the file at the record's path, or `data`. The record's height and width
    are those declared in its annotation file, or 0.
    """
    seen = images.inspect(record.path) if data is None else images.inspected(data)
    turned = seen.turned > 1
    fault = seen.fault or _compare_sizes((record.height, record.width), seen)
    if fault:
        problem = Problem(f"image {record.id}", record.file_name, *fault)
        return Reading(None, [problem], turned)
    record.height, record.width = seen.size
    record.image = seen.data
    return Reading(record, [], turned)


def _compare_sizes(declared: Size, seen: images.Inspection) -> Fault | None:
    size = seen.size
    if 0 in declared or declared == size:
        return None
    says = (
        f"is declared {declared[1]} x {declared[0]} but is {size[1]} x {size[0]} pixels"
    )
    if declared == size[::-1] and seen.turned >= 5:
        detail = f"is rotated by EXIF (orientation {seen.turned}): {says} upright"
        return "rotated by EXIF", f"{detail}, as annotations have to be"
    if declared == size[::-1]:
        return "swapped height and width", f"{says}: height and width are swapped"
    return "wrong image size", says


def good_annotations(
    record: Record,
    found: Iterable[Annotation | Problem],
    file: str = "",
    what: str = "object",
) -> list[Problem]:
    """The problems of the annotations `found`; the record gets the rest, clipped.

    With `file` annotations have no ids but those of `object_id`, and messages have
    their numbers in the file instead; `what` says what they are there.
    """
    size, problems = (record.height, record.width), []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
            continue
        fault = fault_of(item, size)
        if not fault:
            item.box = cut_box(item.box, size)
            record.truth.append(item)
        elif file:
            number = item.id % MOST_OBJECTS
            problems.append(object_problem(number, record, file, *fault, what=what))
        else:
            problems.append(annotation_problem(item.id, record, *fault))
    return problems


def annotation_problem(
    number: int | str, record: Record, reason: str, detail: str
) -> Problem:
    """A problem of an annotation of `record` that has an id."""
    subject = f"annotation {number} of image {record.id}"
    return Problem(subject, record.file_name, reason, detail)


def object_problem(
    number: int,
    record: Record,
    file: str,
    reason: str,
    detail: str,
    what: str = "object",
) -> Problem:
    """A problem of object `number` in the annotation `file` of `record`."""
    subject = f"{what} {number} of image {record.id}"
    return Problem(subject, f"{file} of {record.file_name}", reason, detail)


# Ids of objects in files that give them none: independent of other images.
MOST_OBJECTS = 1_000_000


def object_id(image: int, number: int) -> int:
    """The id of object `number`, from 1, of image number `image`."""
    return image * MOST_OBJECTS + number


def fault_of(annotation: Annotation, size: Size) -> Fault | None:
    """The problem of an annotation of an image of `size`, if any."""
    return (
        _fault_of_numbers(annotation)
        or fault_of_box(annotation.box, size)
        or _fault_of_keypoints(annotation, size)
        or _fault_of_whole(annotation, size)
        or _fault_of_corners(annotation, size)
        or _fault_of_mask(annotation, size)
    )


def _fault_of_numbers(annotation: Annotation) -> Fault | None:
    box, points = annotation.box, annotation.keypoints
    if not all(map(math.isfinite, box)):
        return "number not finite", f"has box {show(box)}: a number is not finite"
    finite = points is None or all(map(math.isfinite, points.ravel().tolist()))
    if not (finite and math.isfinite(annotation.area)):
        return "number not finite", "has area or keypoint: a number is not finite"
    if annotation.area < 0:
        return "negative area", f"has an area of {annotation.area:g}"
    return None


def _fault_of_keypoints(annotation: Annotation, size: Size) -> Fault | None:
    if annotation.keypoints is None:
        return None
    h, w = size
    for x, y, seen in annotation.keypoints.tolist():
        if seen not in (0, 1, 2):
            detail = f"has a keypoint of visibility {seen:g}: not 0, 1 or 2"
            return "malformed keypoints", detail
        if seen and not (-w <= x <= 2 * w and -h <= y <= 2 * h):
            detail = (
                f"has a keypoint at [{x:g}, {y:g}], far outside the {w} x {h} image"
            )
            return "keypoint far outside the image", detail
    return None


def _fault_of_whole(annotation: Annotation, size: Size) -> Fault | None:
    whole = annotation.amodal
    if whole is None:
        return None
    shown = f"has amodal box {show(whole)}"
    if not all(map(math.isfinite, whole)):
        return "number not finite", f"{shown}: a number is not finite"
    x1, y1, x2, y2 = whole
    if min(x2 - x1, y2 - y1) <= 0:
        return "malformed amodal box", f"{shown}: without an area"
    return _far("amodal box", shown, ((x1, y1), (x2, y2)), size)


def _fault_of_corners(annotation: Annotation, size: Size) -> Fault | None:
    if annotation.corners is None:
        return None
    places = annotation.corners.tolist()
    shown = "has corners " + ", ".join(f"[{x:g}, {y:g}]" for x, y in places)
    if not all(math.isfinite(x) for place in places for x in place):
        return "number not finite", f"{shown}: a number is not finite"
    return _far("corners", shown, places, size)


def _far(
    what: str, shown: str, places: Iterable[Sequence[float]], size: Size
) -> Fault | None:
    """The problem of places (x, y) more than the image's size outside of it, if any."""
    h, w = size
    if all(-w <= x <= 2 * w and -h <= y <= 2 * h for x, y in places):
        return None
    detail = f"{shown}, far outside the {w} x {h} image"
    return f"{what} far outside the image", detail


def fault_of_box(box: Box, size: Size) -> Fault | None:
    """The problem of a box of finite numbers, if any."""
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
    """The problem of a box without area."""
    width, height = box[2] - box[0], box[3] - box[1]
    sides = [
        f"{'zero' if side == 0 else 'negative'} {name}"
        for name, side in (("width", width), ("height", height))
        if side <= 0
    ]
    what = " and ".join(sides) or "no area inside the image"
    return "zero area", f"has box {show(box)}: {what}"


def cut_box(box: Box, size: Size) -> Box:
    """The box clipped to the image."""
    (x1, y1, x2, y2), (h, w) = box, size
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h))


def _fault_of_mask(annotation: Annotation, size: Size) -> Fault | None:
    if annotation.rle is None:
        return None
    _, tight, area = rle.measure(annotation.rle, size)
    if not area:
        return "empty mask", "has a mask without a pixel"
    box = annotation.box
    # For small objects one pixel can halve the IoU.
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
    """A box without trailing zeros."""
    return f"[{', '.join(f'{x:g}' for x in box)}]"
