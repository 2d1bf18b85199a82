"""The folders of Pascal VOC: Annotations, JPEGImages, ImageSets/Main."""

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from detjax.data import lint
from detjax.data.records import Annotation, Dataset, Problem, Record

# In place of a list of ImageSets/Main: every annotation file.
EVERY = "*"

_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff")


def read_splits(
    *,
    root: str | Path,
    splits: Sequence[str] | Mapping[str, str] = ("train", "val"),
    classes: Sequence[str] | None = None,
) -> dict[str, Dataset]:
    """The splits; a mapping says which list of ImageSets/Main each is ("*": all files).

    Without `classes` they are the sorted names in all of Annotations.
    """
    classes = tuple(classes or class_names(root))
    return {
        split: read(root, split, listing, classes)
        for split, listing in _listings(splits).items()
    }


def digests(*, root, splits=("train", "val"), classes=None) -> dict[str, str]:
    """A digest of the annotations of each split.

    Raises FileNotFoundError where they are gone.
    """
    return {
        split: _digest(Path(root).expanduser(), listing)
        for split, listing in _listings(splits).items()
    }


def read(
    root: str | Path,
    split: str,
    listing: str | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """One split, of the images in ImageSets/Main/`listing`.txt (by default `split`).

    Images and objects are numbered from 1 in the list's order. VOC counts pixels from 1
    and includes the last one, so that a box is x1 - 1, y1 - 1, x2, y2; corners that
    coincide are no box of one pixel but a slip, and have zero area.
    """
    root = Path(root).expanduser()
    classes = tuple(classes or class_names(root))
    problems: list[Problem] = []
    listed = stems(root, listing or split)
    lint.check_folder(root / "JPEGImages")
    records: list[Record] = []
    things: dict[int, list[ElementTree.Element]] = {}
    for number, stem in enumerate(listed, 1):
        tree = _parse(root / "Annotations" / f"{stem}.xml", number, problems)
        if tree is not None:
            records.append(_record(root, stem, number, tree))
            things[number] = tree.findall("object")
    records = lint.good_images(records, problems)
    first = 1
    for record in records:
        found = [
            _annotation(thing, number, record, classes)
            for number, thing in enumerate(things[record.id], first)
        ]
        first += len(found)
        lint.good_annotations(record, found, problems)
    return Dataset(split, classes, records, problems)


def stems(root: Path, listing: str) -> list[str]:
    """The names, without ending, of the annotation files in a list, in its order.

    Raises FileNotFoundError that names the lists there are.
    """
    annotations = root / "Annotations"
    if not annotations.is_dir():
        raise FileNotFoundError(
            f"{root} has no folder Annotations; give the root of VOC"
        )
    if listing == EVERY:
        return sorted(path.stem for path in annotations.glob("*.xml"))
    path = root / "ImageSets" / "Main" / f"{listing}.txt"
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise FileNotFoundError(
            f"no list {path} (there: {', '.join(there) or 'none'}); name one of "
            f"them, or {EVERY!r} for all of {annotations}"
        )
    # Lists of one class have a second column.
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


def class_names(root: str | Path) -> tuple[str, ...]:
    """The sorted names of all annotated objects, whatever split they are in.

    Raises ValueError where there are none.
    """
    names = set()
    for path in sorted((Path(root).expanduser() / "Annotations").glob("*.xml")):
        tree = _parse(path, 0, [])
        if tree is not None:
            names |= {_text(thing, "name") for thing in tree.findall("object")}
    if not names - {""}:
        raise ValueError(
            f"no object in {root}/Annotations has a name; give the classes"
        )
    return tuple(sorted(names - {""}))


def _listings(splits: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    return dict(splits) if isinstance(splits, Mapping) else {s: s for s in splits}


def _digest(root: Path, listing: str) -> str:
    digest = hashlib.sha256()
    for stem in stems(root, listing):
        path = root / "Annotations" / f"{stem}.xml"
        digest.update(f"\n{stem}\n".encode())
        digest.update(path.read_bytes() if path.is_file() else b"missing")
    return f"annotations {digest.hexdigest()[:16]}"


def _parse(
    path: Path, number: int, problems: list[Problem]
) -> ElementTree.Element | None:
    try:
        return ElementTree.parse(path).getroot()
    except OSError:
        fault = ("missing annotation file", "is listed but does not exist")
    except ElementTree.ParseError as error:
        fault = ("not XML", f"cannot be read as XML: {error}")
    problems.append(Problem(f"annotation file of image {number}", path.name, *fault))
    return None


def _record(root: Path, stem: str, number: int, tree: ElementTree.Element) -> Record:
    folder, named = root / "JPEGImages", _text(tree, "filename")
    # The file's own name counts; the one inside often outlives a renaming.
    candidates = [folder / f"{stem}{ending}" for ending in _ENDINGS]
    candidates += [folder / named] if named else []
    path = next((p for p in candidates if p.is_file()), candidates[0])
    height, width = (_whole(_text(tree, f"size/{s}")) for s in ("height", "width"))
    return Record(number, path.name, height, width, path)


def _annotation(
    thing: ElementTree.Element, number: int, record: Record, classes: tuple[str, ...]
) -> Annotation | Problem:
    name = _text(thing, "name")
    if name not in classes:
        detail = f"has class {name!r}, which is not among {', '.join(classes)}"
        return lint.annotation_problem(number, record, "unknown category", detail)
    corners = [_text(thing, f"bndbox/{c}") for c in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = map(float, corners)
    except ValueError:
        detail = f"has box {corners}: not four numbers"
        return lint.annotation_problem(number, record, "malformed box", detail)
    if x2 <= x1 or y2 <= y1:
        fault = lint.flat((x1, y1, x2, y2))
        return lint.annotation_problem(number, record, *fault)
    box = (x1 - 1, y1 - 1, x2, y2)
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    difficult = _text(thing, "difficult") == "1"
    return Annotation(number, box, classes.index(name), area, difficult=difficult)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _whole(text: str) -> int:
    """The number in `text`, 0 where there is none."""
    return int(text) if text.isdecimal() else 0
