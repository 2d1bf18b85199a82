"""Writes data sets as ArrayRecord files of tfds: record by record, whole or not at all.

Images are read, checked and encoded in one pass, by all cores where they are many; no
more of them than a few is in memory at any time.
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
from detjax.data.summary import Facts, Summary
from detjax.errors import UserError

VERSION = "1.0.0"
# Fewer images than that are not worth the seconds that processes take to start.
MANY = 1000


def check_names(name: str, splits: Mapping[str, Any]) -> None:
    """Raises UserError for names that tfds cannot take."""
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
    """The features that all splits share. Raises UserError where they disagree."""
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
    )


def write(
    catalogues: Mapping[str, Catalogue],
    name: str,
    out: Path,
    *,
    on_error: str = "skip",
    proposals: Mapping[str, Any] | None = None,
    description: str = "",
    made_from: Callable[[Mapping[str, Summary]], dict[str, Any]] = lambda _: {},
) -> tuple[Path, dict[str, Summary]]:
    """The new directory that holds `catalogues`, and what was counted in each split.

    What the files hold does not depend on how many cores write them. `made_from` makes
    the metadata of that name from the splits' summaries, before the directory gets its
    name; what it raises leaves none. With `on_error` "fail" nothing more is encoded
    once a problem is seen, but all images are looked at. Raises OSError where there is
    no room.
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
                example, read=catalogue.read, schema=schema, proposals=proposals
            )
            with contextlib.closing(shards):
                found = _write_split(catalogue, work, shards, on_error)
            summaries[split] = found
            infos.append(shards.finish())
            with files.writing(folder):
                listings.store(folder, split, found.ids, found.sizes())
        origin = made_from(summaries)
        _check_not_empty(name, summaries)
        held = _metadata(catalogues, summaries, schema)
        held["made_from"] = origin
        with files.writing(folder):
            _write_info(folder, name, infos, schema, held, description or name)
    return target, summaries


class Work(NamedTuple):
    """What became of an entry: the example's bytes, None where there is none."""

    example: bytes | None
    facts: Facts | None
    problems: list[Problem]


def example(
    task: tuple[Any, bool],
    read: Callable[[Any], Any],
    schema: Schema,
    proposals: Mapping[str, Any] | None,
) -> Work:
    """What is stored of an entry, and what is counted of it.

    `task` is the entry and whether it is still to be encoded.
    """
    entry, encoding = task
    pixels.quiet()
    record, problems, turned = read(entry)
    if record is None:
        return Work(None, None, problems)
    if not encoding:
        return Work(None, summary.facts(record, turned), problems)
    data = encoded(record)
    if proposals is not None:
        record.image = data
        record.proposals = proposing.of(record, proposals)
    return Work(
        features.encode(record, data, schema), summary.facts(record, turned), problems
    )


def encoded(record: Record) -> bytes:
    """A record's image as a PNG or JPEG file that is upright.

    Raises UserError where there is none, or it cannot be decoded.
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
    """What was found in a split, whose examples were added to `shards`."""
    found = Summary(catalogue.split, catalogue.classes)
    found.problems += catalogue.problems

    def tasks():
        for entry in catalogue.entries:
            yield entry, not (found.problems and on_error == "fail")

    count = len(catalogue.entries)
    run = crew.many if count >= MANY else crew.few
    # Closed, the processes end where writing fails, whoever holds the error.
    with contextlib.closing(run(work, tasks())) as done:
        # disable=None: a bar for people, none in a log file.
        bar = tqdm(done, f"{catalogue.split} images", count, disable=None)
        for data, facts, problems in bar:
            found.problems += problems
            if facts is not None:
                found.add(facts)
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
) -> dict[str, Any]:
    """What `builder.info` gives back."""
    first = next(iter(catalogues.values()))
    found = summaries.values()
    return {
        "classes": list(schema.classes),
        "keypoints": list(schema.keypoints),
        "category_ids": list(first.category_ids or range(1, len(first.classes) + 1)),
        "text_ids": schema.text_ids,
        "has_masks": any(s.counts()["with masks"] for s in found),
        "max_objects": max(s.max_objects for s in found),
        "max_proposals": max(s.max_proposals for s in found),
    }


def _write_info(
    folder: Path,
    name: str,
    splits: list[tfds_splits.SplitInfo],
    schema: Schema,
    metadata: dict[str, Any],
    description: str,
) -> None:
    """Writes what tfds reads of a data set beside its records."""
    identity = dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(folder),
        module_name="detjax.data.builder",
    )
    held = dataset_info.DatasetInfo(
        builder=identity,
        description=description,
        features=features.features(schema),
        metadata=tfds.core.MetadataDict(metadata),
        # Examples keep the order that they were read in.
        disable_shuffling=True,
    )
    held.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    held.set_splits(tfds_splits.SplitDict(splits))
    held.write_to_directory(folder)
