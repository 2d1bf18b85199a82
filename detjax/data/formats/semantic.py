"""Images beside label maps, whose pixels name classes.

Folders of any names, and those of Pascal VOC, Cityscapes and ADE20K (SceneParse150).
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detjax.data import lint, records
from detjax.data.formats import places, semantic_tables
from detjax.data.formats.semantic_layouts import (
    Layout,
    digest,
    layout_of,
    listed,
    splits_of,
)
from detjax.data.formats.semantic_maps import Coding, Entry, load, read_entry
from detjax.data.formats.semantic_tables import Classes
from detjax.data.records import Catalogue, Dataset
from detjax.errors import UserError
from detjax.settings import Location, Whole

TASK = "segmentation"
POOL = {places.ALL: "."}


def catalogues(
    *,
    root: Location,
    splits: Mapping[str, Location] | None = None,
    layout: Layout | None = None,
    images: Location | None = None,
    labels: Location | None = None,
    classes: Sequence[str] | None = None,
    values: Sequence[Whole] | None = None,
    table: Location | None = None,
    ignore: Whole | tuple[Whole, ...] | None = None,
) -> dict[str, Catalogue]:
    """The splits of a folder of images and label maps of the same names.

    root: the folder of everything.
    splits: what each split is called: a folder that holds images and label maps, or one
        in both of their folders; for VOC a list of ImageSets/Segmentation.
    layout: "voc", "cityscapes", "ade20k" or "folders"; without it what `root` looks
        like.
    images, labels: the folders of images and of label maps; without them images,
        JPEGImages and the like, and labels, masks, annotations and the like.
    classes: their names, in this order; VOC, Cityscapes and ADE20K have their own.
    values: the number of each class in the maps; 0, 1, 2, ... without it (from 1 in
        ADE20K, where 0 is ignored).
    table: a CSV file with columns name and r, g, b, or name and value, in place of
        both; what it names void or ignore is ignored.
    ignore: numbers of pixels that have no class; 255 without it, if no class has it.

    Raises UserError for classes that are not known, and if nothing is there.
    """
    folder = places.folder(root, "images and label maps", "semantic")
    kind = layout or layout_of(folder)
    named = _classes(folder, kind, classes, values, table, ignore)
    found = {}
    for split, part in splits_of(folder, kind, splits).items():
        entries, problems = listed(folder, part, kind, images, labels)
        own = named
        if kind == "cityscapes" and not (classes or table or values):
            own = semantic_tables.cityscapes(_of_train_ids(entries))
        if kind == "folders" and ignore is None and 255 in own.coding.ignored:
            _check_masks(entries, own.coding, folder)
        found[split] = Catalogue(
            split,
            own.names,
            entries,
            functools.partial(read_entry, coding=own.coding),
            problems,
            name_of=_name,
        )
    return found


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: records.collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *,
    root,
    splits=None,
    layout=None,
    images=None,
    labels=None,
    classes=None,
    values=None,
    table=None,
    ignore=None,
) -> dict[str, str]:
    """A digest of the names and sizes of the label maps of each split, and the coding.

    Raises MissingFileError if they are gone.
    """
    folder = places.folder(root, "images and label maps", "semantic")
    kind = layout or layout_of(folder)
    coding = _classes(folder, kind, classes, values, table, ignore).coding
    return {
        split: digest(listed(folder, part, kind, images, labels).entries, tuple(coding))
        for split, part in splits_of(folder, kind, splits).items()
    }


def _name(entry: Entry) -> str:
    return entry.name


def _of_train_ids(entries: Sequence[Entry]) -> bool:
    return all(e.labels.stem.endswith("labelTrainIds") for e in entries)


def _classes(
    root: Path,
    layout: Layout,
    classes: Sequence[str] | None,
    values: Sequence[int] | None,
    table: Location | None,
    ignore: int | tuple[int, ...] | None,
) -> Classes:
    """The classes of a data set and how its maps have them."""
    off = (ignore,) if isinstance(ignore, int) else tuple(ignore or ())
    if table is not None:
        if classes or values:
            raise UserError("give --table, or --classes and --values, not both")
        path = places.file(places.joined(root, table), "the table of classes", "")
        found = semantic_tables.table(path, off or (255,))
    elif classes or values:
        found = _numbered(classes, values, off, layout)
    elif layout == "voc":
        found = semantic_tables.numbered(semantic_tables.VOC, 0, off or (255,))
    elif layout == "cityscapes":
        found = semantic_tables.cityscapes(train_ids=False)
    elif layout == "ade20k":
        names = semantic_tables.ade20k(root / "objectInfo150.txt")
        found = semantic_tables.numbered(names, 1, off or (0,))
    else:
        raise UserError(
            f"the classes of the label maps in {root} are not known; name them in the "
            "order of their numbers from 0 with --classes=background,cat,... (with "
            "--values where the numbers are others), or with --table=FILE.csv of the "
            "columns name,r,g,b or name,value"
        )
    lint.check_classes(found.names)
    for value in off:
        for name, own in zip(found.names, found.coding.values, strict=False):
            if value in own:
                raise UserError(
                    f"--ignore={value} is the number of the class {name!r}; leave it "
                    "out of the classes, with --values for the numbers of the others"
                )
    return found


def _check_masks(entries: Sequence[Entry], coding: Coding, root: Path) -> None:
    """Raises UserError where maps have the first class and 255 only, which is ignored.

    Up to 20 maps are read, until one has another class.
    """
    if len(coding.values) < 2:
        return
    first, seen = coding.values[0][0], False
    for entry in entries[:: max(len(entries) // 20, 1)]:
        try:
            found = load(entry.labels, coding)
        except UserError:  # reported when the image is read
            return
        if found.ndim == 3 or not np.isin(found, (first, 255)).all():
            return
        seen |= bool((found == 255).any())
    if seen:
        raise UserError(
            f"the label maps in {root} have the numbers {first} and 255 only, and 255 "
            f"is ignored; if it is a class give --values={first},255, if not "
            "--ignore=255"
        )


def _numbered(
    classes: Sequence[str] | None,
    values: Sequence[int] | None,
    off: tuple[int, ...],
    layout: Layout,
) -> Classes:
    """Named classes, of the numbers `values` or of those that the layout has."""
    if not classes or (values and len(values) != len(classes)):
        raise UserError(
            f"there are {len(classes or ())} classes and {len(values or ())} values; "
            "give --values one number for each of --classes"
        )
    names = tuple(classes)
    if not values:
        first = int(layout == "ade20k")
        return semantic_tables.numbered(
            names, first, off or ((0,) if first else (255,))
        )
    if len({*values}) < len(values):
        raise UserError(f"--values={','.join(map(str, values))} has a number twice")
    off = off or tuple(v for v in (255,) if v not in values)
    return Classes(names, Coding(len(names), tuple((v,) for v in values), (), off))
