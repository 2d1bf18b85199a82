"""COCO's instance files: one JSON with images, annotations and categories."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detjax.data import lint, rle
from detjax.data.records import Annotation, Dataset, Problem, Record


class Categories(NamedTuple):
    """The classes of a file and where its category ids point."""

    names: tuple[str, ...]
    labels: dict[int, int]  # category id -> label
    unwanted: dict[int, str]  # category id -> name, where classes were chosen
    keypoints: tuple[str, ...]

    def ids(self) -> tuple[int, ...]:
        """The category id of every label."""
        return tuple(sorted(self.labels, key=self.labels.__getitem__))


def read_splits(
    *,
    splits: Mapping[str, str | Path],
    images: str | Path | Mapping[str, str | Path],
    classes: Sequence[str] | None = None,
) -> dict[str, Dataset]:
    """The splits, each of its own JSON; `images` is one folder or one for each split.

    Raises ValueError where a split has no folder.
    """
    folders = images if isinstance(images, Mapping) else dict.fromkeys(splits, images)
    missing = [split for split in splits if split not in folders]
    if missing:
        raise ValueError(f"no image folder for {', '.join(missing)}; name one for each")
    return {
        split: read(file, folders[split], split, classes)
        for split, file in splits.items()
    }


def digests(*, splits, images, classes=None) -> dict[str, str]:
    """A digest of the annotations of each split.

    Raises FileNotFoundError where they are gone.
    """
    found = {}
    for split, file in splits.items():
        with open(Path(file).expanduser(), "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[split] = f"annotations {digest[:16]}"
    return found


def read(
    file: str | Path,
    images: str | Path,
    split: str = "train",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """One split, in the file's order of images and, in each, of annotations.

    Labels follow increasing category ids, or `classes`, of which the file must know
    each. Boxes become xyxy, polygons and run lengths compressed codes. A missing area
    is the mask's, else the box's; a missing box is the mask's. Raises ValueError where
    the file is not such a JSON.
    """
    file, folder = Path(file).expanduser(), Path(images).expanduser()
    lint.check_folder(folder)
    content = load(file)
    categories = categories_of(content["categories"], file.name, classes)
    problems: list[Problem] = []
    records = _records(content["images"], folder, file, problems)
    numbers = {record.id for record in records}
    records = lint.good_images(records, problems)
    rows = _rows_of_images(content["annotations"], numbers, file.name, problems)
    for record in records:
        found = [
            _annotation(row, record, categories) for row in rows.get(record.id, [])
        ]
        lint.good_annotations(record, found, problems)
    return Dataset(
        split,
        categories.names,
        records,
        problems,
        categories.keypoints,
        categories.ids(),
    )


def load(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of an instance file.

    Raises ValueError where it is no JSON, half a JSON, or another kind of JSON.
    """
    try:
        content = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg
        why = "it ends too early: get it again" if cut else "mend it or get it again"
        raise ValueError(
            f"{file} is not JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}); {why}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not JSON but binary at byte {error.start}"
        ) from error
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(
                f"{file} has no list of {key}; COCO's instance files have images, "
                "annotations and categories"
            )
    if any("segments_info" in row for row in content["annotations"][:1]):
        raise ValueError(f"{file} is a panoptic file; give the file of instances")
    return content


def categories_of(
    rows: Sequence[dict[str, Any]], file: str, classes: Sequence[str] | None = None
) -> Categories:
    """The classes, in increasing order of ids, which may have holes.

    Raises ValueError for ids or names that repeat, for chosen classes that the file
    does not have, and for categories whose keypoints differ.
    """
    names: dict[int, str] = {}
    for row in rows:
        number, name = whole(row.get("id")), row.get("name")
        if number is None or not isinstance(name, str) or not name:
            raise ValueError(f"{file} has a category without an id or a name: {row}")
        if number in names or name in names.values():
            raise ValueError(f"{file} has category {number} ({name}) twice")
        names[number] = name
    chosen = tuple(classes or (names[number] for number in sorted(names)))
    unknown = [name for name in chosen if name not in names.values()]
    if unknown:
        raise ValueError(
            f"{file} has no category {', '.join(unknown)}; it has "
            f"{', '.join(names.values())}"
        )
    points = {tuple(row["keypoints"]) for row in rows if row.get("keypoints")}
    if len(points) > 1:
        raise ValueError(f"{file} has categories with different keypoints; split it")
    labels = {n: chosen.index(name) for n, name in names.items() if name in chosen}
    unwanted = {n: name for n, name in names.items() if name not in chosen}
    return Categories(chosen, labels, unwanted, next(iter(points), ()))


def _records(
    rows: Sequence[dict[str, Any]], folder: Path, file: Path, problems: list[Problem]
) -> list[Record]:
    records = []
    for position, row in enumerate(rows):
        number, name = whole(row.get("id")), row.get("file_name")
        if number is None or not isinstance(name, str) or not name:
            detail = f"lacks a whole number as id or a file_name: {_brief(row)}"
            problems.append(
                Problem(
                    f"image at place {position}", file.name, "malformed image", detail
                )
            )
            continue
        height, width = whole(row.get("height")), whole(row.get("width"))
        records.append(Record(number, name, height or 0, width or 0, folder / name))
    return records


def _rows_of_images(
    rows: Sequence[dict[str, Any]],
    images: set[int],
    file: str,
    problems: list[Problem],
) -> dict[int, list[dict[str, Any]]]:
    """The annotations of each image, those left out that have no image or no own id."""
    found: dict[int, list[dict[str, Any]]] = {}
    seen = set()
    for position, row in enumerate(rows):
        number, image = whole(row.get("id")), whole(row.get("image_id"))
        subject, fault = f"annotation {row.get('id')}", None
        if number is None:
            subject = f"annotation at place {position}"
            fault = (
                "malformed annotation",
                f"has no whole number as id: {_brief(row)}",
            )
        elif number in seen:
            fault = ("duplicate id", "has the id of an earlier annotation")
        elif image is None or image not in images:
            detail = f"belongs to image {row.get('image_id')}, which is not in the file"
            fault = ("unknown image", detail)
        seen.add(number)
        if fault:
            problems.append(Problem(subject, file, *fault))
        elif image is not None:
            found.setdefault(image, []).append(row)
    return found


def _annotation(
    row: dict[str, Any], record: Record, categories: Categories
) -> Annotation | Problem:
    """The object behind a row, or what is malformed in it."""
    reason = "unknown category"
    try:
        label = _label(row, categories)
        reason = "malformed mask"
        mask = _mask(row.get("segmentation"), record)
        reason = "malformed box"
        box = _box(row.get("bbox"), mask)
        reason = "malformed area"
        area = _area(row.get("area"), mask, box)
        reason = "malformed keypoints"
        points = _keypoints(row.get("keypoints"), len(categories.keypoints))
    except ValueError as error:
        return lint.annotation_problem(row["id"], record, reason, str(error))
    return Annotation(
        id=int(row["id"]),
        box=box,
        label=label,
        area=area,
        crowd=bool(row.get("iscrowd")),
        rle=mask and mask.rle,
        keypoints=points,
    )


def _label(row: dict[str, Any], categories: Categories) -> int:
    number = whole(row.get("category_id"))
    if number in categories.labels:
        return categories.labels[number]
    if number in categories.unwanted:
        name = categories.unwanted[number]
        raise ValueError(f"has class {name!r}, which is not among the chosen ones")
    raise ValueError(
        f"has category {row.get('category_id')}, which the file does not list"
    )


def _mask(given: Any, record: Record) -> rle.Instance | None:
    """The mask behind a `segmentation`, None where there is none."""
    if not given:
        return None
    size = (record.height, record.width)
    if isinstance(given, list):
        try:
            polygons = [[float(x) for x in polygon] for polygon in given]
        except (TypeError, ValueError) as error:
            raise ValueError("has polygons that are not lists of numbers") from error
        return rle.measure(rle.from_polygons(polygons, size), size)
    if not isinstance(given, dict) or not {"counts", "size"} <= set(given):
        raise ValueError("has a mask that is neither polygons nor run lengths")
    if given["size"] != list(size):
        raise ValueError(
            f"has a mask of (height, width) {given['size']} in an image of {list(size)}"
        )
    counts = given["counts"]
    make = rle.from_runs if isinstance(counts, list) else rle.from_text
    return rle.measure(make(counts, size), size)


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
    points = _numbers(given, 3 * count, "keypoints")
    return np.array(points, np.float32).reshape(count, 3)


def _numbers(given: Any, count: int, what: str) -> list[float]:
    try:
        numbers = [float(x) for x in given]
    except (TypeError, ValueError) as error:
        raise ValueError(f"has {what} {given}: not {count} numbers") from error
    if len(numbers) != count:
        raise ValueError(f"has {what} of {len(numbers)} numbers, not {count}")
    return numbers


def whole(value: Any) -> int | None:
    """`value` as a whole number, None where it is none."""
    try:
        return int(value) if int(value) == float(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _brief(row: dict[str, Any]) -> str:
    return str(row)[:80]
