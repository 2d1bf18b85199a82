"""Data sets as ArrayRecord files of tfds: written once, read at random, no TensorFlow.

What is written can be read by anybody with `tfds.data_source(name, data_dir=...)`.
Boxes are stored as tfds wants them, relative yxyx; `source` gives them back in pixels.

Names that tfds has code for, such as coco, voc or bccd, work here like any other, but
tfds itself reads those only with `tfds.builder_from_directory(path)`.
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
from detjax.data.records import Catalogue, Dataset, Reading, Record, Unreadable
from detjax.data.writer import VERSION, encoded
from detjax.errors import MissingFileError, UserError, reason

__all__ = [
    "VERSION",
    "Info",
    "Listing",
    "Source",
    "directory",
    "encoded",
    "info",
    "listing",
    "load",
    "sizes",
    "source",
    "write",
]


class Info(NamedTuple):
    """What is known about a data set without reading its examples."""

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


def directory(name: str, data_dir: str | Path) -> Path:
    """Where the data set `name` lies below `data_dir`; it exists only when whole."""
    return lint.expanded(data_dir) / name / VERSION


def write(
    datasets: Mapping[str, Dataset],
    name: str,
    out: str | Path,
    description: str = "",
    made_from: Mapping[str, Any] | None = None,
) -> Path:
    """The new directory that holds `datasets`, one split for each, in their order.

    It appears under its name when it is complete: an interrupted run leaves a folder
    called `incomplete...` that nothing reads. Raises UserError where there is such a
    data set, for names that tfds cannot take and for splits that disagree about their
    classes.
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
    )


def _as_it_is(record: Record) -> Reading:
    return Reading(record, [])


def load(name: str, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """The tfds builder of a data set that was written.

    Nothing that the data set names is run. Raises MissingFileError that names the data
    sets there are, UserError where its files are broken.
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
            # protobuf's error of JSON that is no such message, and tfds's own.
            raise UserError(f"tfds cannot read it: {reason(error)}") from None


def info(name: str, data_dir: str | Path) -> Info:
    """What is known about the data set `name` without reading its examples."""
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
            # Sets that were written before there were such do not say.
            max_proposals=int(held.get("max_proposals", 0)),
            text_ids=bool(held.get("text_ids", False)),
        )


def source(
    name: str,
    data_dir: str | Path,
    split: str,
    on_error: str = "fail",
    images: bool = True,
) -> "Source":
    """The records of a split, read one by one when they are asked for.

    `split` may be a part, in tfds's words: "train[:10%]". With `on_error` "skip" a loop
    over them leaves out what cannot be read. Without `images` records come without
    theirs. Raises UserError where there is no such split, and where its files are not
    whole.
    """
    builder = load(name, data_dir)
    for part in _parts(builder, name, split):
        shards = builder.info.splits[part.splitname]
        for path, length in zip(shards.filepaths, shards.shard_lengths, strict=True):
            trust.check_records(Path(path), length)
    method = tfds.decode.DeserializeMethod.RAW_BYTES
    rows = builder.as_data_source(split, deserialize_method=method)
    return Source(
        rows,
        directory(name, data_dir),
        len(trust.metadata(directory(name, data_dir))["classes"]),
        on_error == "skip",
        images,
    )


def _parts(builder: tfds.core.DatasetBuilder, name: str, split: str) -> list[Any]:
    """The parts of whole splits that `split` names. Raises UserError for none."""
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


def listing(name: str, data_dir: str | Path, split: str) -> Listing:
    """The ids and (h, w) of the images of a split, or of a part of one.

    They are kept beside the records. Where they are not, as in data sets of earlier
    versions, all records are read for them, and they are stored if they can be.
    """
    builder = load(name, data_dir)
    parts = _parts(builder, name, split)
    found = [_listing(builder, name, data_dir, p.splitname) for p in parts]
    ids: list[Any] = []
    for whole, part in zip(found, parts, strict=True):
        ids += whole.ids[part.from_ : part.to]
    pieces = [w.sizes[p.from_ : p.to] for w, p in zip(found, parts, strict=True)]
    return Listing(ids, np.concatenate(pieces))


def sizes(name: str, data_dir: str | Path, split: str) -> np.ndarray:
    """The (h, w) [n 2] int32 of the images of a split, or of a part of one."""
    return listing(name, data_dir, split).sizes


def _listing(
    builder: tfds.core.DatasetBuilder, name: str, data_dir: str | Path, split: str
) -> Listing:
    """The listing of a whole split."""
    target, count = directory(name, data_dir), builder.info.splits[split].num_examples
    found = listings.stored(target, split, count)
    if found:
        return found
    print(
        f"{target} does not hold the images' ids and sizes; {count} records of split "
        f"{split!r} are read for them, once",
        file=sys.stderr,
    )
    ids, shapes = [], []
    for record in source(name, data_dir, split, images=False):
        ids.append(record.id)
        shapes.append((record.height, record.width))
    made = Listing(ids, np.array(shapes, np.int32).reshape(-1, 2))
    with contextlib.suppress(OSError):
        listings.store(target, split, *made)
    return made


class Source(Sequence[Record]):
    """Records by number; images stay encoded. Pickled, it takes only paths along.

    Raises Unreadable for a record at a damaged place of its file in `directory`, and
    for one with a label that is none of `classes`; with `skip` a loop over the records
    passes over those.
    """

    def __init__(
        self,
        rows,
        directory: Path,
        classes: int,
        skip: bool = False,
        images: bool = True,
    ):
        self._rows, self._directory, self._classes = rows, directory, classes
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
            record = features.decode(self._rows[index % len(self)], self._images)
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            why = reason(error).split(";")[0]
            raise Unreadable(
                f"the data set's file in {self._directory} is damaged there ({why})"
            ) from None
        for a in record.annotations:
            if not 0 <= a.label < self._classes:
                raise Unreadable(
                    f"annotation {a.id} has label {a.label}, and the data set in "
                    f"{self._directory} has {self._classes} classes"
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
