"""Where data sets of label maps keep images and maps."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from detjax import files
from detjax.data import lint, pictures
from detjax.data.formats import places
from detjax.data.formats.semantic_maps import SUFFIXES, Entry
from detjax.data.images import Fault
from detjax.data.records import Problem, shown
from detjax.errors import MissingFileError, UserError

Layout = Literal["folders", "voc", "cityscapes", "ade20k"]
IMAGES = ("images", "JPEGImages", "imgs", "img", "leftImg8bit")
LABELS = (
    *("labels", "masks", "annotations", "SegmentationClass", "segmentation", "gtFine"),
    *("mask", "label", "annots"),
)
# What names of label maps may have after their image's.
ENDS = (
    *("", "_mask", "_label", "_labels", "_seg", "_segmentation", "_gt", "_L"),
    *("_gtFine_labelTrainIds", "_gtFine_labelIds"),
)
_ENDED = tuple(end for end in ENDS if end)
_LISTS = Path("ImageSets", "Segmentation")
# JPEGs are no label maps, which is to be told.
MAPS = (*SUFFIXES, ".jpg", ".jpeg")


class Listed(NamedTuple):
    """The images of a split that have a map, and what is wrong with the others."""

    entries: list[Entry]
    problems: list[Problem]


def layout_of(root: Path) -> Layout:
    """The layout of the folder `root`, by what it holds."""
    if (root / "SegmentationClass").is_dir() and (root / _LISTS).is_dir():
        return "voc"
    if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
        return "cityscapes"
    if (root / "objectInfo150.txt").is_file():
        return "ade20k"
    return "folders"


def default_splits(root: Path, layout: Layout) -> dict[str, str]:
    """The splits of a known data set by what it calls them; {} where that is open."""
    if layout == "voc":
        names = {path.stem for path in (root / _LISTS).glob("*.txt")}
        return {name: name for name in ("train", "val") if name in names}
    if layout == "cityscapes":
        return {"train": "train", "val": "val"}
    return {"train": "training", "val": "validation"} if layout == "ade20k" else {}


def listed(
    root: Path,
    part: str,
    layout: Layout,
    images: str | Path | None,
    labels: str | Path | None,
    names: tuple[str, ...] = LABELS,
) -> Listed:
    """The images and maps of the split that the data set calls `part`.

    `names` are what the folder of maps may be called.
    """
    if layout == "voc":
        return _of_list(root, part, images, labels)
    pairs = _pairs(*_folders(root, part, images, labels, names))
    return _numbered(pairs)


def _of_list(root: Path, part: str, images: Any, labels: Any) -> Listed:
    """VOC: the names in ImageSets/Segmentation/`part`.txt."""
    path = places.file(
        root / _LISTS / f"{part}.txt", "a list of ImageSets/Segmentation", "semantic"
    )
    pictured = places.joined(root, images or "JPEGImages")
    mapped = places.joined(root, labels or "SegmentationClass")
    found: dict[str, tuple[Path | None, Path | None]] = {}
    problems = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        stem = line.strip()
        if not stem:
            continue
        fault = lint.fault_of_name(stem)
        if stem in found:
            fault = ("listed twice", f"is {stem}, which is listed twice")
        if fault:
            problems.append(Problem(f"image {number}", path.name, *fault))
            continue
        found[stem] = (
            _named(pictured, stem, pictures.SUFFIXES),
            _named(mapped, stem, SUFFIXES),
        )

    def pairs() -> Iterator[Pair]:
        for stem, (image, label) in found.items():
            fault = None
            if image is None:
                fault = "missing image", f"has no image in {pictured}"
            elif label is None:
                fault = "missing label map", f"has no label map in {mapped}"
            yield Pair(stem, image, label, fault)

    entries, more = _numbered(pairs())
    return Listed(entries, problems + more)


def _named(folder: Path, stem: str, endings: tuple[str, ...]) -> Path | None:
    """The file of that name in `folder`, whatever its ending."""
    tried = (folder / f"{stem}{end}" for e in endings for end in (e, e.upper()))
    return next((path for path in tried if path.exists()), None)


class Pair(NamedTuple):
    """An image and its map, one of which may be missing, or what is wrong with it."""

    name: str
    image: Path | None
    labels: Path | None
    fault: Fault | None = None


def _pairs(pictured: Path, mapped: Path) -> Iterator[Pair]:
    """Images and maps of the same names below two folders, and those alone."""
    inside = pictured == mapped
    maps: dict[str, list[Path]] = {}
    for name in pictures.below(mapped, MAPS):
        stem = str(Path(name).with_suffix(""))
        if not inside or stem.endswith(_ENDED):
            maps.setdefault(stem, []).append(mapped / name)
    ends = _ENDED if inside else ENDS
    missing = (
        f"has no label map in {mapped}: none is called like it, or like it and "
        f"{', '.join(_ENDED[:4])}, ..."
    )
    seen: set[str] = set()
    for name in pictures.below(pictured):
        stem = str(Path(name).with_suffix(""))
        if inside and stem.endswith(_ENDED):
            continue
        if stem in seen:
            detail = "has the name of another image but for its ending"
            yield Pair(name, pictured / name, None, ("duplicate name", detail))
            continue
        seen.add(stem)
        # Cityscapes ends the names of images too; some keep the image's ending.
        base = stem.removesuffix("_leftImg8bit")
        called = [base + end for end in ends] + [name] * (not inside)
        found = next((maps.pop(c) for c in called if c in maps), [])
        # A lossy map is read, and refused, where there is no other.
        found = [p for p in found if p.suffix.lower() in SUFFIXES] or found
        fault = None
        if not found:
            fault = ("missing label map", missing)
        elif len(found) > 1:
            told = " and ".join(path.name for path in found)
            fault = ("two label maps", f"has two label maps, {told}: take one away")
        yield Pair(name, pictured / name, found[0] if found else None, fault)
    for paths in maps.values():
        for path in paths:
            # Cityscapes has several maps beside the one that is read.
            if not path.stem.endswith(("_color", "_instanceIds", "_labelIds")):
                detail = f"has no image in {pictured}"
                yield Pair(path.name, None, path, ("missing image", detail))


def _numbered(pairs: Iterable[Pair]) -> Listed:
    """Entries of pairs, numbered from 1, and problems of files without a partner."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, (name, image, label, fault) in enumerate(pairs, 1):
        fault = lint.fault_of_name(name) or fault
        if fault is not None:
            what = f"image {number}" if image else "label map"
            problems.append(Problem(what, shown(name), *fault))
        elif image is not None and label is not None:
            entries.append(Entry(number, name, image, label))
    return Listed(entries, problems)


def _folders(
    root: Path, part: str, images: Any, labels: Any, names: tuple[str, ...]
) -> tuple[Path, Path]:
    """The folders of the images and of the maps of a split.

    The split's folder holds both, or theirs hold one of its name; with `part` "."
    there is one split. Raises MissingFileError that says what was tried.
    """
    split = places.joined(root, part)
    tried, found = [], []
    for given, known in ((images, IMAGES), (labels, names)):
        called = [given] if given is not None else known
        candidates = [
            folder
            for name in called
            for folder in (_inside(split, name), _inside(root, name) / part)
        ]
        found.append(next((f for f in candidates if f.is_dir()), None))
        tried.append(dict.fromkeys(candidates))
    first, second = found
    if first is not None and second is not None:
        return first, second
    if split.is_dir() and images is labels is first is second is None:
        return split, split  # images beside maps, told apart by their names
    which = int(first is not None)
    raise MissingFileError(
        f"no folder of the {('images', 'label maps')[which]} of {part!r} in {root}: "
        f"there is no {', no '.join(map(str, [*tried[which]][:2]))}; name it with "
        f"--{('images', 'labels')[which]}"
    )


def _inside(folder: Path, name: str | Path) -> Path:
    """The folder called `name` in `folder`, whatever its capitals."""
    path = places.joined(folder, name)
    if path.is_dir() or not folder.is_dir() or path.parent != folder:
        return path
    same = [each for each in os.listdir(folder) if each.lower() == path.name.lower()]
    return folder / sorted(same)[0] if same else path


def splits_of(
    root: Path, layout: Layout, splits: Mapping[str, Any] | None
) -> dict[str, str]:
    """What each split is called in the data set. Raises UserError for none."""
    found = dict(splits) if splits else default_splits(root, layout)
    if not found:
        raise UserError(
            "no split is named; divide the images with --split-by=train:0.8,val:0.2, "
            "or name the folder of each split with --split train=... val=..."
        )
    return {split: str(part) for split, part in found.items()}


def digest(entries: Sequence[Entry], coding: Any) -> str:
    """What identifies the maps of a split, by their names and sizes, and how they are
    read.

    Not by their contents, which would take minutes at each start of a run. Raises
    MissingFileError for one that is gone.
    """
    made = hashlib.sha256(repr(coding).encode())
    for entry in entries:
        with files.reading(entry.labels):
            line = f"{entry.name}\n{os.stat(entry.labels).st_size}\n"
        made.update(line.encode("utf-8", "surrogateescape"))
    return f"annotations {made.hexdigest()[:16]}"
