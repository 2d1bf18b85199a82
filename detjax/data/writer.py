"""Writes data sets as tfds ArrayRecord files: record by record, atomically.

Images are read, checked and encoded in one pass, on all cores if there are many images;
only a few are in memory at any time.
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info, file_adapters
from tensorflow_datasets.core import splits as tfds_splits
from tqdm import tqdm

from detjax import files
from detjax.data import crew, features, images, lint, listings, pixels, summary
from detjax.data import proposals as proposing
from detjax.data.features import Schema
from detjax.data.records import Catalogue, Problem, Record
from detjax.data.shards import Shards, incomplete
from detjax.data.summary import Row, Summary
from detjax.errors import UserError
from detjax.types import Task

VERSION = "1.0.0"
# For fewer images starting processes takes longer than it saves.
MANY = 1000


def check_names(name: str, splits: Mapping[str, Any]) -> None:
    """Raises UserError for names that tfds rejects."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > 100:
        raise UserError(
            f"{name!r} cannot name a data set; take small letters, digits and _, a "
            "letter first"
        )
    if not splits:
        raise UserError(f"data set {name!r} has no split; name one, such as train")
    for split in splits:
        if not re.fullmatch(r"\w+", split) or split == "all" or len(split) > 100:
            raise UserError(
                f"{split!r} cannot name a split; take letters, digits and _, and not "
                "'all', which means every split"
            )


def schema_of(catalogues: Mapping[str, Catalogue]) -> Schema:
    """The features common to all splits. Raises UserError if they differ."""
    first = next(iter(catalogues.values()))
    for other in catalogues.values():
        for what in ("classes", "keypoints", "category_ids"):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs:
                raise UserError(
                    f"splits disagree about {what}: {first.split!r} has {list(ours)}, "
                    f"{other.split!r} has {list(theirs)}; write them as two data sets"
                )
    lint.check_classes(first.classes)
    return Schema(
        first.classes,
        first.keypoints,
        any(c.proposed for c in catalogues.values()),
        any(c.text_ids for c in catalogues.values()),
        any(c.amodal for c in catalogues.values()),
        any(c.oriented for c in catalogues.values()),
    )


def write(
    catalogues: Mapping[str, Catalogue],
    name: str,
    out: Path,
    task: Task,
    *,
    on_error: str = "skip",
    proposals: Mapping[str, Any] | None = None,
    description: str = "",
    made_from: Callable[[Mapping[str, Summary]], dict[str, Any]] = lambda _: {},
) -> tuple[Path, dict[str, Summary]]:
    """Writes `catalogues`; returns the new directory and each split's summary.

    Their truth is for `task`.

    File contents do not depend on the number of cores. `made_from` computes the
    metadata of that name from the splits' summaries before the directory gets its name;
    if it raises, no directory is left. With `on_error` "fail" encoding stops at the
    first problem, but all images are still checked. Raises OSError if the disk is full.
    """
    check_names(name, catalogues)
    schema = schema_of(catalogues)
    if proposals is not None:
        schema = schema._replace(proposed=True)
    target = out / name / VERSION
    with incomplete(target) as folder:
        summaries, infos = {}, []
        for split, catalogue in catalogues.items():
            shards = Shards(folder, name, split)
            work = functools.partial(
                example,
                read=catalogue.read,
                schema=schema,
                proposals=proposals,
                task=task,
            )
            with contextlib.closing(shards):
                found = _write_split(catalogue, work, shards, on_error)
            summaries[split] = found
            infos.append(shards.split_info())
            with files.writing(folder):
                listings.store(
                    folder, split, found.ids, found.sizes(), found.classes_by_image()
                )
        origin = made_from(summaries)
        _check_not_empty(name, summaries)
        held = _metadata(catalogues, summaries, schema, task)
        held["made_from"] = origin
        with files.writing(folder):
            _write_info(folder, name, infos, schema, task, held, description or name)
    return target, summaries


class Work(NamedTuple):
    """The result for an entry: the example's bytes, None if it was dropped."""

    example: bytes | None
    row: Row | None  # its statistics
    problems: list[Problem]


def example(
    item: tuple[Any, bool],
    read: Callable[[Any], Any],
    schema: Schema,
    proposals: Mapping[str, Any] | None,
    task: Task,
) -> Work:
    """The encoded example of an entry, and its statistics.

    `item` is the entry and whether to encode it.
    """
    entry, encoding = item
    pixels.quiet()
    record, problems, turned = read(entry)
    if record is None:
        return Work(None, None, problems)
    if not encoding:
        return Work(None, summary.row(record, task, turned, record.image), problems)
    data = encoded(record)
    if proposals is not None:
        record.image = data
        record.proposals = proposing.of(record, proposals)
    return Work(
        features.encode(record, data, schema, task),
        summary.row(record, task, turned, data),
        problems,
    )


def encoded(record: Record) -> bytes:
    """A record's image as an upright PNG or JPEG file.

    Raises UserError if it is missing or cannot be decoded.
    """
    data = record.image
    if data is None and record.path is not None:
        data = files.read_bytes(record.path)
    if data is None:
        raise UserError(f"record {record.id} ({record.file_name}) has no image")
    if record.image is not None and data.startswith((images.PNG, images.JPEG)):
        return data
    try:
        return images.stored(data, record.file_name).data
    except UserError as error:
        raise UserError(f"{record.file_name} {error}") from None


def _write_split(
    catalogue: Catalogue, work: Callable[[Any], Work], shards: Shards, on_error: str
) -> Summary:
    """Adds the examples of a split to `shards`; returns its summary."""
    found = Summary(catalogue.split, catalogue.classes)
    found.problems += catalogue.problems

    def items():
        for entry in catalogue.entries:
            yield entry, not (found.problems and on_error == "fail")

    count = len(catalogue.entries)
    run = crew.parallel if count >= MANY else crew.serial
    # Closing ends the processes if writing fails, even while the error is held.
    with contextlib.closing(run(work, items())) as done:
        # disable=None: no progress bar unless stderr is a terminal.
        bar = tqdm(done, f"{catalogue.split} images", count, disable=None)
        for data, row, problems in bar:
            found.problems += problems
            if row is not None:
                found.add(row)
            if data is not None:
                shards.add(data)
    return found


def _check_not_empty(name: str, summaries: Mapping[str, Summary]) -> None:
    for split, found in summaries.items():
        if not found.ids:
            raise UserError(
                f"split {split!r} of {name!r} has no image left to write; check its "
                "paths and problems"
            )


def _metadata(
    catalogues: Mapping[str, Catalogue],
    summaries: Mapping[str, Summary],
    schema: Schema,
    task: Task,
) -> dict[str, Any]:
    """The metadata that `builder.info` returns."""
    first = next(iter(catalogues.values()))
    found = summaries.values()
    return {
        "task": task.stored,
        "classes": list(schema.classes),
        "keypoints": list(schema.keypoints),
        "category_ids": list(first.category_ids or range(1, len(first.classes) + 1)),
        "text_ids": schema.text_ids,
        **({"has_amodal": True} if schema.amodal else {}),
        "has_masks": any(s.counts().get("with masks") for s in found),
        "max_objects": max(s.max_objects for s in found),
        "max_proposals": max(s.max_proposals for s in found),
        "pixels": {s.split: s.pixels() for s in found if s.pixels()},
    }


def _write_info(
    folder: Path,
    name: str,
    splits: list[tfds_splits.SplitInfo],
    schema: Schema,
    task: Task,
    metadata: dict[str, Any],
    description: str,
) -> None:
    """Writes the tfds metadata beside the records."""
    identity = dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(folder),
        module_name="detjax.data.builder",
    )
    held = dataset_info.DatasetInfo(
        builder=identity,
        description=description,
        features=features.features(schema, task),
        metadata=tfds.core.MetadataDict(metadata),
        # Examples keep their reading order.
        disable_shuffling=True,
    )
    held.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    held.set_splits(tfds_splits.SplitDict(splits))
    held.write_to_directory(folder)
