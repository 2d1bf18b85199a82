"""Data sets as tfds ArrayRecord files: random access, without TensorFlow.

They can be read with plain tfds: `tfds.data_source(name, data_dir=...)`. Names that
tfds itself implements, such as coco, voc or bccd, also work here, but tfds reads them
only with `tfds.builder_from_directory(path)`.
"""

import contextlib
import operator
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from detjax import files
from detjax.data import features, lint, listings, trust, writer
from detjax.data.listings import Listing
from detjax.data.records import (
    Annotation,
    Catalogue,
    Dataset,
    Reading,
    Record,
    Unreadable,
)
from detjax.data.writer import VERSION, encoded
from detjax.errors import MissingFileError, UserError, reason
from detjax.types import Task

__all__ = [
    "VERSION",
    "Info",
    "Listing",
    "Source",
    "directory",
    "encoded",
    "image_classes",
    "image_sizes",
    "info",
    "listing",
    "load",
    "source",
    "write",
]


class Info(NamedTuple):
    """Metadata of a data set, available without reading its examples."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, int]  # images of each
    has_masks: bool  # whether any object has one
    keypoints: tuple[str, ...]  # names; empty where the set has none
    category_ids: tuple[int, ...]  # of the classes, for COCO's results files
    max_objects: int  # of any one image
    made_from: dict[str, Any]  # the fingerprint that `data.prepare` stores
    directory: Path
    max_proposals: int  # of any one image; 0 where the set has none
    text_ids: bool = False  # whether the ids of images are text
    task: str = "detection"  # the task that its truth is for
    # By split, where every pixel has a class: the pixels of each class, and all of the
    # images that have it, [2 c]
    pixels: Mapping[str, Sequence[Sequence[int]]] = {}
    has_amodal: bool = False  # whether objects have boxes of the whole of them


def directory(name: str, data_dir: str | Path) -> Path:
    """The directory of data set `name` in `data_dir`; exists only once complete."""
    return lint.expanded(data_dir) / name / VERSION


def write(
    datasets: Mapping[str, Dataset],
    name: str,
    out: str | Path,
    task: Task,
    description: str = "",
    made_from: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `datasets`, one split each, in order; returns the new directory.

    It gets its name once complete: an interrupted run leaves a folder `incomplete...`
    that is never read. Raises UserError if the data set exists, for names that tfds
    rejects and for splits with different classes.
    """
    writer.check_names(name, datasets)
    target = directory(name, out)
    if target.exists():
        raise UserError(
            f"{target} exists; delete {target.parent} or choose another name"
        )
    catalogues = {split: _held(dataset) for split, dataset in datasets.items()}
    return writer.write(
        catalogues,
        name,
        lint.expanded(out),
        task,
        description=description,
        made_from=lambda _: dict(made_from or {}),
    )[0]


def _held(dataset: Dataset) -> Catalogue:
    """A split in memory as a catalogue."""
    return Catalogue(
        dataset.split,
        dataset.classes,
        dataset.records,
        _as_it_is,
        dataset.problems,
        dataset.keypoints,
        dataset.category_ids,
        text_ids=any(isinstance(record.id, str) for record in dataset.records),
        proposed=any(record.proposals is not None for record in dataset.records),
        amodal=any(a.amodal is not None for a in _annotations(dataset)),
        oriented=any(a.corners is not None for a in _annotations(dataset)),
    )


def _annotations(dataset: Dataset) -> Iterator[Annotation]:
    """The annotated objects of a split; none of other tasks than detection."""
    for record in dataset.records:
        if isinstance(record.truth, list):
            yield from (a for a in record.truth if isinstance(a, Annotation))


def _as_it_is(record: Record) -> Reading:
    return Reading(record, [])


def load(name: str, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """The tfds builder of a data set on disk.

    No code named in its files is imported. Raises MissingFileError that lists the
    available data sets, UserError if its files are broken.
    """
    target = directory(name, data_dir)
    if not os.path.isdir(target):
        found = sorted(p.parent.name for p in target.parents[1].glob(f"*/{VERSION}"))
        raise MissingFileError(
            f"no data set {name!r} in {target.parents[1]} (there: "
            f"{', '.join(found) or 'none'}); make it with scripts/make_dataset.py"
        )
    trust.check(target)
    with files.reading(target / "dataset_info.json", "make the data set anew"):
        try:
            return tfds.builder_from_directory(str(target))
        except (tfds.core.DatasetNotFoundError, RuntimeError) as error:
            raise UserError(reason(error)) from None
        except Exception as error:
            # protobuf's error for JSON that is not such a message, and tfds's own.
            raise UserError(f"tfds cannot read it: {reason(error)}") from None


def info(name: str, data_dir: str | Path) -> Info:
    """The `Info` of data set `name`; does not read its examples."""
    found, target = load(name, data_dir).info, directory(name, data_dir)
    held = trust.metadata(target)
    with files.reading(target / "metadata.json", "make the data set anew"):
        return Info(
            name=name,
            classes=tuple(held["classes"]),
            splits={split: s.num_examples for split, s in found.splits.items()},
            has_masks=bool(held["has_masks"]),
            keypoints=tuple(held["keypoints"]),
            category_ids=tuple(int(number) for number in held["category_ids"]),
            max_objects=int(held["max_objects"]),
            made_from=dict(held.get("made_from", {})),
            directory=target,
            # Absent in data sets of earlier versions.
            max_proposals=int(held.get("max_proposals", 0)),
            text_ids=bool(held.get("text_ids", False)),
            task=str(held.get("task", "detection")),
            pixels=dict(held.get("pixels", {})),
            has_amodal=bool(held.get("has_amodal", False)),
        )


def source(
    name: str,
    data_dir: str | Path,
    split: str,
    task: Task,
    on_error: str = "fail",
    images: bool = True,
) -> "Source":
    """The records of a split, read lazily by index.

    `split` may be a tfds slice: "train[:10%]". With `on_error` "skip" iteration leaves
    out unreadable records. Without `images` the records have no image. Raises UserError
    for an unknown or empty split, and for incomplete files.
    """
    builder = load(name, data_dir)
    parts = _parts(builder, name, split)
    counts = {split: found.num_examples for split, found in builder.info.splits.items()}
    if not any(range(counts[p.splitname])[p.from_ : p.to] for p in parts):
        raise UserError(
            f"{split!r} of the data set {name!r} has no image; its splits have "
            f"{', '.join(f'{split} {count}' for split, count in counts.items())}"
        )
    for part in parts:
        shards = builder.info.splits[part.splitname]
        for path, length in zip(shards.filepaths, shards.shard_lengths, strict=True):
            trust.check_records(Path(path), length)
    method = tfds.decode.DeserializeMethod.RAW_BYTES
    rows = builder.as_data_source(split, deserialize_method=method)
    return Source(
        rows,
        task,
        directory(name, data_dir),
        len(trust.metadata(directory(name, data_dir))["classes"]),
        on_error == "skip",
        images,
    )


def _parts(builder: tfds.core.DatasetBuilder, name: str, split: str) -> list[Any]:
    """The parts of full splits that `split` selects. Raises UserError for none."""
    splits = builder.info.splits
    names = [word.strip().partition("[")[0] for word in split.split("+")]
    for one in names:
        if one not in splits:
            raise UserError(
                f"data set {name!r} has no split {one!r}; it has {', '.join(splits)}"
            )
    try:
        return tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
    except (ValueError, AssertionError, KeyError) as error:
        raise UserError(
            f"{split!r} is no part of a split ({reason(error)}); write one as "
            "'train[:10%]' or 'train[100:200]'"
        ) from None


def listing(name: str, data_dir: str | Path, split: str, task: Task) -> Listing:
    """The ids and (h, w) of the images of a split, or of a part of one.

    They are stored beside the records. If they are not (data sets of earlier versions),
    all records are read, and the listing is stored if possible.
    """
    builder = load(name, data_dir)
    parts = _parts(builder, name, split)
    found = [_listing(builder, name, data_dir, p.splitname, task) for p in parts]
    ids: list[Any] = []
    for whole, part in zip(found, parts, strict=True):
        ids += whole.ids[part.from_ : part.to]
    pieces = [w.sizes[p.from_ : p.to] for w, p in zip(found, parts, strict=True)]
    return Listing(ids, np.concatenate(pieces))


def image_sizes(name: str, data_dir: str | Path, split: str, task: Task) -> np.ndarray:
    """The (h, w) [n 2] int32 of the images of a split, or of a part of one."""
    return listing(name, data_dir, split, task).sizes


def image_classes(
    name: str, data_dir: str | Path, split: str, task: Task
) -> listings.Classes:
    """The classes in each image of a split, or of a part of one.

    They are stored beside the records, or read of them all, as in `listing`.
    """
    builder, target = load(name, data_dir), directory(name, data_dir)
    found = []
    for part in _parts(builder, name, split):
        whole, count = part.splitname, builder.info.splits[part.splitname].num_examples
        classes = listings.stored_classes(target, whole, count)
        if classes is None:
            print(
                f"{target} does not hold the images' classes; {count} records of split "
                f"{whole!r} are read for them, once",
                file=sys.stderr,
            )
            classes = _listed(name, data_dir, whole, task)[1]
        found.append(classes.part(part.from_, part.to))
    return listings.joined(found)


def _listing(
    builder: tfds.core.DatasetBuilder,
    name: str,
    data_dir: str | Path,
    split: str,
    task: Task,
) -> Listing:
    """The listing of a full split."""
    target, count = directory(name, data_dir), builder.info.splits[split].num_examples
    found = listings.stored(target, split, count)
    if found:
        return found
    print(
        f"{target} does not hold the images' ids and sizes; {count} records of split "
        f"{split!r} are read for them, once",
        file=sys.stderr,
    )
    return _listed(name, data_dir, split, task)[0]


def _listed(
    name: str, data_dir: str | Path, split: str, task: Task
) -> tuple[Listing, listings.Classes]:
    """The listing of a full split and its images' classes, from its records.

    They are stored if possible.
    """
    ids, shapes, labels = [], [], []
    for record in source(name, data_dir, split, task, images=False):
        ids.append(record.id)
        shapes.append((record.height, record.width))
        labels.append(task.facts(record.truth).labels)
    made = Listing(ids, np.array(shapes, np.int32).reshape(-1, 2))
    classes = listings.classes_of(labels)
    with contextlib.suppress(OSError):
        listings.store(directory(name, data_dir), split, *made, classes)
    return made, classes


class Source(Sequence[Record]):
    """Records by index; images stay encoded. Pickles as paths only.

    Raises Unreadable for a record that is damaged in its file in `directory`, or has a
    label outside `classes`; with `skip` iteration leaves those out.
    """

    def __init__(
        self,
        rows,
        task: Task,
        directory: Path,
        classes: int,
        skip: bool = False,
        images: bool = True,
    ):
        self._rows, self._task = rows, task
        self._directory, self._classes = directory, classes
        self._skip, self._images = skip, images

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            record = features.decode(
                self._rows[index % len(self)], self._task, self._images
            )
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            why = reason(error).split(";")[0]
            raise Unreadable(
                f"the data set's file in {self._directory} is damaged there ({why})"
            ) from None
        fault = self._task.fault(record.truth, self._classes)
        if fault:
            raise Unreadable(
                f"{fault}, and the data set in {self._directory} has {self._classes} "
                "classes"
            )
        return record

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self)):
            try:
                yield self[index]
            except Unreadable as error:
                if not self._skip:
                    raise Unreadable(f"record {index}: {error}") from None

    def __repr__(self) -> str:
        return f"Source({self._rows!r}, {len(self)} records)"
