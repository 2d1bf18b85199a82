"""The rows of COCO's instance files: categories, and the annotations of one image."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.data import lint, rle
from detjax.data.records import Annotation, Problem, Record, shown
from detjax.errors import UserError


class Categories(NamedTuple):
    """The classes of a file and the labels of its category ids."""

    names: tuple[str, ...]
    labels: dict[int, int]  # category id -> label
    unwanted: dict[int, str]  # category id -> name, where classes were chosen
    keypoints: tuple[str, ...]

    def ids(self) -> tuple[int, ...]:
        """The category id of every label."""
        return tuple(sorted(self.labels, key=self.labels.__getitem__))


def categories_of(
    rows: Sequence[dict[str, Any]], file: str, classes: Sequence[str] | None = None
) -> Categories:
    """The classes, in increasing order of ids, which may have holes.

    Raises UserError for duplicate ids or names, for invalid names, for chosen classes
    that are not in the file, and for categories whose keypoints differ.
    """
    names: dict[int, str] = {}
    for row in rows:
        number, name = integer(row.get("id")), row.get("name")
        if number is None or not isinstance(name, str) or not name:
            raise UserError(
                f"{file} has a category without an id or a name: {brief(row)}"
            )
        if number in names or name in names.values():
            raise UserError(f"{file} has category {number} ({shown(name)}) twice")
        names[number] = name
    chosen = tuple(classes or (names[number] for number in sorted(names)))
    unknown = [name for name in chosen if name not in names.values()]
    if unknown:
        raise UserError(
            f"{file} has no category {', '.join(unknown)}; it has "
            f"{', '.join(names.values())}"
        )
    lint.check_classes(chosen, file)
    labels = {n: chosen.index(name) for n, name in names.items() if name in chosen}
    unwanted = {n: name for n, name in names.items() if name not in chosen}
    return Categories(chosen, labels, unwanted, _points_of(rows, file))


def _points_of(rows: Sequence[Mapping[str, Any]], file: str) -> tuple[str, ...]:
    """The names of the keypoints that all categories with any share."""
    found = set()
    for row in rows:
        points = row.get("keypoints") or ()
        if not isinstance(points, list | tuple) or not all(
            isinstance(name, str) and shown(name) == name for name in points
        ):
            raise UserError(
                f"{file} has a category {shown(row['name'])!r} whose keypoints are not "
                f"a list of names: {brief(points)}"
            )
        found |= {tuple(points)} - {()}
    if len(found) > 1:
        raise UserError(f"{file} has categories with different keypoints; split it")
    return next(iter(found), ())


def annotation(
    row: dict[str, Any], record: Record, categories: Categories
) -> Annotation | Problem:
    """The object of a row, or its problem."""
    reason = "unknown category"
    try:
        label = _label(row, categories)
        reason = "malformed crowd flag"
        crowd = _crowd(row.get("iscrowd"))
        reason = "malformed mask"
        mask = _mask(row.get("segmentation"), record)
        reason = "malformed corners"
        corners = _corners(row.get("corners"))
        if mask is None and corners is not None:
            mask = _mask([corners.ravel().tolist()], record)
        if mask is not None and not mask.area:
            reason = "empty mask"
            raise UserError("has a mask without a pixel")
        reason = "malformed box"
        box = _box(row.get("bbox"), mask)
        reason = "malformed area"
        area = _area(row.get("area"), mask, box)
        reason = "malformed keypoints"
        points = _keypoints(row.get("keypoints"), len(categories.keypoints))
        reason = "malformed amodal box"
        whole = _whole(row.get("amodal"))
    except UserError as error:
        return lint.annotation_problem(row["id"], record, reason, str(error))
    return Annotation(
        id=integer(row["id"]),
        box=box,
        label=label,
        area=area,
        crowd=crowd,
        rle=mask and mask.rle,
        keypoints=points,
        amodal=whole,
        corners=corners,
    )


def _label(row: dict[str, Any], categories: Categories) -> int:
    number = integer(row.get("category_id"))
    if number in categories.labels:
        return categories.labels[number]
    if number in categories.unwanted:
        name = categories.unwanted[number]
        raise UserError(f"has class {name!r}, which is not among the chosen ones")
    raise UserError(
        f"has category {brief(row.get('category_id'))}, which the file does not list"
    )


_CROWD: dict[Any, bool] = {None: False, 0: False, 1: True, "0": False, "1": True}


def _crowd(given: Any) -> bool:
    if isinstance(given, list | dict) or given not in _CROWD:
        raise UserError(f"has iscrowd {brief(given)}: not 0 or 1")
    return _CROWD[given]


def _mask(given: Any, record: Record) -> rle.Instance | None:
    """The mask of a `segmentation`, None if there is none."""
    if not given:
        return None
    size = (record.height, record.width)
    if isinstance(given, list):
        return rle.measure(rle.from_polygons(_polygons(given), size), size)
    if not isinstance(given, dict) or not {"counts", "size"} <= set(given):
        raise UserError("has a mask that is neither polygons nor run lengths")
    if given["size"] != list(size):
        raise UserError(
            f"has a mask of (height, width) {brief(given['size'])} in an image of "
            f"{list(size)}"
        )
    counts = given["counts"]
    if isinstance(counts, list):
        return rle.measure(rle.from_runs(counts, size), size)
    if isinstance(counts, str):
        return rle.measure(rle.from_text(counts, size), size)
    raise UserError(
        f"has a mask whose counts are {brief(counts)}: not a list of runs or their code"
    )


def _polygons(given: list[Any]) -> list[list[float]]:
    try:
        if not all(isinstance(polygon, list) for polygon in given):
            raise UserError("")
        return [_numbers(polygon, len(polygon), "polygon") for polygon in given]
    except UserError:
        raise UserError("has polygons that are not lists of numbers") from None


def _box(given: Any, mask: rle.Instance | None) -> lint.Box:
    if not given and mask is not None:
        return mask.box
    x, y, w, h = _numbers(given, 4, "box")
    return x, y, x + w, y + h


def _area(given: Any, mask: rle.Instance | None, box: lint.Box) -> float:
    if given is not None:
        return _numbers([given], 1, "area")[0]
    return mask.area if mask else (box[2] - box[0]) * (box[3] - box[1])


def _keypoints(given: Any, count: int) -> np.ndarray | None:
    if not given or not count:
        return None
    points = np.array(_numbers(given, 3 * count, "keypoints")).reshape(count, 3)
    # Unlabelled keypoints are 0, 0 in COCO; other coordinates are meaningless.
    points[points[:, 2] == 0] = 0
    with np.errstate(over="ignore"):
        return points.astype(np.float32)


def _whole(given: Any) -> lint.Box | None:
    """The box of a whole object, which the file has as xywh."""
    if not given:
        return None
    x, y, w, h = _numbers(given, 4, "amodal box")
    return x, y, x + w, y + h


def _corners(given: Any) -> np.ndarray | None:
    """The corners [4 2] of a box at an angle: eight numbers, around it."""
    if not given:
        return None
    numbers = _numbers(given, 8, "corners")
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float32).reshape(4, 2)


def _numbers(given: Any, count: int, what: str) -> list[float]:
    try:
        if any(isinstance(x, bool) for x in given):
            raise TypeError
        numbers = [float(x) for x in given]
    except (TypeError, ValueError, OverflowError):
        number = "1 number" if count == 1 else f"{count} numbers"
        raise UserError(f"has {what} {brief(given)}: not {number}") from None
    if len(numbers) != count:
        raise UserError(f"has {what} of {len(numbers)} numbers, not {count}")
    return numbers


def integer(value: Any) -> int | None:
    """`value` as an integer, None if it is not one; text is parsed."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return int(value) if isinstance(value, str) else None
    except ValueError:
        return None


def image_id(value: Any) -> int | str | None:
    """`value` as an image's id: text as it is, else an integer; None for others."""
    if isinstance(value, str):
        return value if value and shown(value) == value else None
    return integer(value)


def brief(value: Any) -> str:
    """`value` as shown in messages."""
    if isinstance(value, int) and abs(value) >= 10**100:
        return "of more than 100 digits"
    try:
        text = str(value)
    except ValueError:  # it holds a number of thousands of digits
        return "of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}..."
