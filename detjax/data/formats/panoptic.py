"""COCO's panoptic files as label maps: a JSON of segments, and PNGs of their ids.

A pixel's segment is R + 256 G + 65536 B; 0 is no segment, and ignored.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from detjax import files
from detjax.data import images as image_files
from detjax.data import label_maps, lint, pixels, records
from detjax.data.formats import coco, jsonwalk, places
from detjax.data.formats.coco_rows import brief, integer
from detjax.data.formats.semantic_maps import packed, relabelled
from detjax.data.records import Catalogue, Dataset, Problem, Reading, Record, shown
from detjax.errors import UserError
from detjax.settings import Location

TASK = "segmentation"
POOL = None
_ADVICE = "COCO's panoptic files have images, annotations and categories"


class Entry(NamedTuple):
    """An image of the file, and the labels of its segments."""

    id: int | str
    file_name: str
    size: tuple[int, int]  # (h, w) as declared
    labels_name: str
    segments: tuple[tuple[int, int], ...]  # (id, label); label -1 is ignored


def catalogues(
    *,
    splits: Mapping[str, Location] | None = None,
    root: Location | None = None,
    images: Location | Mapping[str, Location] | None = None,
    labels: Location | Mapping[str, Location] | None = None,
    classes: Sequence[str] | None = None,
    merge: Literal["supercategories"] | None = None,
) -> dict[str, Catalogue]:
    """The splits, each of its own JSON file.

    splits: the JSON file of each.
    root: the folder of everything; other paths are below it.
    images: the folder of the images, or one for each split; images/ beside the file or
        its folder without it.
    labels: the folder of the PNGs, or one for each split; without it a folder that is
        called like the JSON file, or panoptic/, beside the file or its folder.
    classes: names of categories, in this order; the others are ignored.
    merge: "supercategories" makes one class of all categories of each.

    Raises UserError for other files.
    """
    found = places.splits_of(splits, root, "panoptic")
    made = {}
    for split, path in found.items():
        file = places.file(path, "COCO's panoptic file", "panoptic")
        pictured = _folder(file, split, root, images, "images", ("images",))
        names = (file.stem, "panoptic")
        mapped = _folder(file, split, root, labels, "labels", names)
        made[split] = catalogue(file, pictured, mapped, split, classes, merge)
    return made


def _folder(file, split, root, given, flag, names) -> Path:
    """The folder of images or maps of a split."""
    if isinstance(given, Mapping):
        given = given.get(split)
    if given is not None:
        what = "the images" if flag == "images" else "the PNGs of segments"
        return places.folder(places.joined(root, given), what, "panoptic")
    tried = [
        base / name for base in (file.parent, file.parent.parent) for name in names
    ]
    here = next((path for path in tried if path.is_dir()), None)
    if here is None:
        raise UserError(
            f"no folder of {flag} of {file}, neither "
            f"{' nor '.join(map(str, tried))}; name it with --{flag}"
        )
    return here


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *, splits=None, root=None, images=None, labels=None, classes=None, merge=None
) -> dict[str, str]:
    """A digest of the JSON file of each split, and how categories are merged.

    Raises MissingFileError if they are gone.
    """
    of = f" by {merge}" if merge else ""
    return {
        split: f"annotations {coco.digest(lint.expanded(path))}{of}"
        for split, path in places.splits_of(splits, root, "panoptic").items()
    }


def catalogue(
    file: Path,
    images: Path,
    labels: Path,
    split: str,
    classes: Sequence[str] | None = None,
    merge: str | None = None,
) -> Catalogue:
    """One split, in the file's order of annotations.

    Classes are the categories by increasing id, or super-categories by name. Crowds
    are of their class. Raises UserError for other JSON.
    """
    pictured: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    kinds: list[dict[str, Any]] = []

    def take_image(row: dict[str, Any], start: int, end: int) -> None:
        pictured.setdefault(str(row.get("id")), row)

    takes: dict[str, jsonwalk.Take] = {
        "images": take_image,
        "annotations": lambda row, start, end: rows.append(_brief(row)),
        "categories": lambda row, start, end: kinds.append(row),
    }
    jsonwalk.walk(file, takes, _ADVICE)
    names, label_of = _classes(kinds, file.name, classes, merge)
    problems: list[Problem] = []
    entries: list[Entry] = []
    for number, row in enumerate(rows, 1):
        entry = _entry(row, pictured, label_of)
        if isinstance(entry, Entry):
            entries.append(entry)
        else:
            name = shown(str(row.get("file_name")))
            problems.append(Problem(f"annotation {number}", name, *entry))
    return Catalogue(
        split,
        names,
        list(records.unique(((e, e.id, e.file_name) for e in entries), problems)),
        functools.partial(
            read_entry, images=images, labels=labels, num_classes=len(names)
        ),
        problems,
        text_ids=any(isinstance(entry.id, str) for entry in entries),
        name_of=_name,
        labels_of=_labels,
    )


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """What is needed of a row: those of 120,000 images are held."""
    infos = row.get("segments_info")
    if isinstance(infos, list) and all(isinstance(info, dict) for info in infos):
        pairs = tuple((info.get("id"), info.get("category_id")) for info in infos)
        return {**row, "segments_info": pairs}
    return {**row, "segments_info": None}


def _classes(
    kinds: Sequence[dict[str, Any]],
    file: str,
    chosen: Sequence[str] | None,
    merge: str | None,
) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes of a file, and the label of each category id; -1 is ignored."""
    key = "supercategory" if merge else "name"
    named: dict[int, str] = {}
    for row in kinds:
        number, name = integer(row.get("id")), row.get(key)
        if number is None or not isinstance(name, str) or number in named:
            raise UserError(
                f"{file} has a category without an id of its own or a {key}: "
                f"{brief(row)}"
            )
        named[number] = name
    all_names = [named[number] for number in sorted(named)]
    known = tuple(sorted({*all_names}) if merge else dict.fromkeys(all_names))
    names = tuple(chosen or known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{file} has no category {', '.join(unknown)}")
    lint.check_classes(names, file)
    return names, {
        n: names.index(name) if name in names else -1 for n, name in named.items()
    }


def _entry(
    row: dict[str, Any],
    pictured: Mapping[str, dict[str, Any]],
    label_of: Mapping[int, int],
) -> Entry | tuple[str, str]:
    """The entry of a row, or what is wrong with it."""
    image, name = pictured.get(str(row.get("image_id"))), row.get("file_name")
    if image is None:
        return "unknown image", f"is of image {brief(row.get('image_id'))}, not listed"
    number, picture = image.get("id"), image.get("file_name")
    if not isinstance(name, str) or not isinstance(picture, str):
        return "malformed file name", "has no file_name, or its image has none"
    if not isinstance(number, int | str) or isinstance(number, bool):
        return "malformed id", f"has the image id {brief(number)}"
    fault = lint.fault_of_name(name) or lint.fault_of_name(picture)
    if fault:
        return fault
    if row["segments_info"] is None:
        return "malformed segments", "has no list segments_info"
    segments = []
    for own, category in row["segments_info"]:
        if integer(own) is None or integer(category) not in label_of:
            return "unknown category", f"has a segment of category {brief(category)}"
        segments.append((int(own), label_of[int(category)]))
    h, w = (integer(image.get(side)) or 0 for side in ("height", "width"))
    return Entry(number, picture, (h, w), name, tuple(segments))


def _name(entry: Entry) -> str:
    return entry.file_name


def _labels(entry: Entry) -> tuple[int, ...]:
    return tuple({label for _, label in entry.segments if label >= 0})


def read_entry(entry: Entry, images: Path, labels: Path, num_classes: int) -> Reading:
    """An image with its label map, or its problem."""
    record = Record(
        entry.id, shown(entry.file_name), *entry.size, images / entry.file_name
    )
    reading = lint.read_image(record)
    if reading.record is None:
        return reading
    path, reason = labels / entry.labels_name, "unreadable label map"
    try:
        found = _segments(path)
        if found.shape != (record.height, record.width):
            (h, w), reason = found.shape, "label map of another size"
            raise UserError(
                f"is {w} x {h}, its image {record.width} x {record.height} pixels"
            )
        reason = "segment that is not listed"
        made, unknown = relabelled(found, {0: -1, **dict(entry.segments)})
        if len(unknown):
            raise UserError(f"has segment {unknown[0]}, which segments_info lacks")
        reason = "nothing labelled"
        if not (made >= 0).any():
            raise UserError("has no pixel with a class: all of them are ignored")
    except UserError as error:
        subject = f"label map of image {record.id}"
        problem = Problem(subject, shown(entry.labels_name), reason, str(error))
        return Reading(None, [problem], reading.turned)
    record.truth = label_maps.encode(np.maximum(made, 0), made >= 0, num_classes)
    return reading


def _segments(path: Path) -> np.ndarray:
    """The segments' ids [h w] of a PNG. Raises UserError without its subject."""
    data = files.read_bytes(path)
    if data.startswith(image_files.JPEG):
        raise UserError("is a JPEG, which is lossy: ids of segments are not kept")
    if image_files.cut_off(data):
        raise UserError(f"is cut off after {len(data)} bytes")
    # Blue is the highest digit, and OpenCV has it first.
    return packed(pixels.decode(data, cv2.IMREAD_COLOR))
