"""Data sets as ArrayRecord files of tfds: written once, read at random, no TensorFlow.

What is written can be read by anybody with `tfds.data_source(name, data_dir=...)`.
Boxes are stored as tfds wants them, relative yxyx; `source` gives them back in pixels.

Names that tfds has code for, such as coco, voc or bccd, work here like any other, but
tfds itself reads those only with `tfds.builder_from_directory(path)`.
"""

import contextlib
import io
import operator
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from detjax.data import pixels
from detjax.data.records import Annotation, Dataset, Record, Unreadable

VERSION = "1.0.0"
_RAW_IMAGE = {"image": tfds.decode.SkipDecoding()}
_UNCHANGED = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # how PNG and JPEG files begin


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


def directory(name: str, data_dir: str | Path) -> Path:
    """Where the data set `name` lies below `data_dir`; it exists only when whole."""
    return Path(data_dir).expanduser() / name / VERSION


def write(
    datasets: Mapping[str, Dataset],
    name: str,
    out: str | Path,
    description: str = "",
    made_from: Mapping[str, Any] | None = None,
) -> Path:
    """The new directory that holds `datasets`, one split for each, in their order.

    It appears under its name when it is complete: an interrupted run leaves a folder
    called `incomplete...` that nothing reads. Raises FileExistsError where there is
    such a data set, ValueError for names that tfds cannot take and for splits that
    disagree about their classes.
    """
    _check_names(name, datasets)
    target = directory(name, out)
    if target.exists():
        raise FileExistsError(
            f"{target} exists; delete {target.parent} or choose another name"
        )
    metadata = _metadata(datasets) | {"made_from": dict(made_from or {})}
    # A class of its own, as tfds takes the data set's name from the class.
    kind = type(name, (_Builder,), {"name": name}, skip_registration=True)
    builder = kind(
        datasets=datasets,
        metadata=metadata,
        text=description or name,
        data_dir=str(Path(out).expanduser()),
        file_format="array_record",
    )
    with _quiet() as scratch:
        builder.download_and_prepare(
            download_dir=scratch,
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False,
                compute_stats=tfds.download.ComputeStatsMode.SKIP,
            ),
        )
    for split, dataset in datasets.items():
        found = [(r.height, r.width) for r in dataset.records]
        _store_sizes(target, split, np.array(found, np.int32))
    return target


def load(name: str, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """The tfds builder of a data set that was written.

    Raises FileNotFoundError that names the data sets there are.
    """
    target = directory(name, data_dir)
    if not target.is_dir():
        found = sorted(p.parent.name for p in target.parents[1].glob(f"*/{VERSION}"))
        raise FileNotFoundError(
            f"no data set {name!r} in {target.parents[1]} (there: "
            f"{', '.join(found) or 'none'}); make it with scripts/make_dataset.py"
        )
    return tfds.builder_from_directory(str(target))


def info(name: str, data_dir: str | Path) -> Info:
    """What is known about the data set `name` without reading its examples."""
    found = load(name, data_dir).info
    return Info(
        name=name,
        classes=tuple(found.metadata["classes"]),
        splits={split: s.num_examples for split, s in found.splits.items()},
        has_masks=found.metadata["has_masks"],
        keypoints=tuple(found.metadata["keypoints"]),
        category_ids=tuple(found.metadata["category_ids"]),
        max_objects=found.metadata["max_objects"],
        made_from=dict(found.metadata["made_from"]),
        directory=directory(name, data_dir),
        # Sets that were written before there were proposals do not say.
        max_proposals=found.metadata.get("max_proposals", 0),
    )


def source(
    name: str, data_dir: str | Path, split: str, on_error: str = "fail"
) -> "Source":
    """The records of a split, read one by one when they are asked for.

    `split` may be a part, in tfds's words: "train[:10%]". With `on_error` "skip" a loop
    over them leaves out what cannot be read. Raises ValueError where there is no such
    split.
    """
    builder = load(name, data_dir)
    if split.partition("[")[0] not in builder.info.splits:
        raise ValueError(
            f"data set {name!r} has no split {split!r}; it has "
            f"{', '.join(builder.info.splits)}"
        )
    rows = builder.as_data_source(split, decoders=_RAW_IMAGE)
    return Source(rows, directory(name, data_dir), skip=on_error == "skip")


def sizes(name: str, data_dir: str | Path, split: str) -> np.ndarray:
    """The (h, w) [n 2] int32 of the images of a split, or of a part of one.

    They are kept beside the records. Where they are not, as in data sets of earlier
    versions, all records are read for them, and they are stored if they can be.
    """
    splits = load(name, data_dir).info.splits
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
    counts = {split: s.num_examples for split, s in splits.items()}
    wholes = [(_sizes_of(name, data_dir, p.splitname, counts), p) for p in parts]
    return np.concatenate([whole[part.from_ : part.to] for whole, part in wholes])


def _sizes_of(
    name: str, data_dir: str | Path, split: str, counts: Mapping[str, int]
) -> np.ndarray:
    """The (h, w) [n 2] int32 of the images of a whole split."""
    target = directory(name, data_dir)
    with contextlib.suppress(OSError, ValueError, EOFError):
        stored = np.load(_sizes_path(target, split), allow_pickle=False)
        if stored.shape == (counts[split], 2):
            return stored
    print(
        f"{target} does not hold the images' sizes; {counts[split]} records of split "
        f"{split!r} are read for them, once",
        file=sys.stderr,
    )
    records = source(name, data_dir, split)
    found = np.array([(r.height, r.width) for r in records], np.int32)
    with contextlib.suppress(OSError):
        _store_sizes(target, split, found)
    return found


def _sizes_path(target: Path, split: str) -> Path:
    return target / f"sizes-{split}.npy"


def _store_sizes(target: Path, split: str, found: np.ndarray) -> None:
    """Stores sizes whole or not at all, whoever else does it at the same time."""
    with tempfile.NamedTemporaryFile(dir=target, suffix=".tmp", delete=False) as file:
        np.save(file, found)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(_sizes_path(target, split))


class Source(Sequence[Record]):
    """Records by number; images stay encoded. Pickled, it takes only paths along.

    Raises Unreadable for a record at a damaged place of its file in `directory`; with
    `skip` a loop over the records passes over those.
    """

    def __init__(self, rows, directory: Path, skip: bool = False):
        self._rows, self._directory, self._skip = rows, directory, skip

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            row = self._rows[index % len(self)]
        except (RuntimeError, ValueError, OSError) as error:
            why = str(error).split(";")[0]
            raise Unreadable(
                f"the data set's file in {self._directory} is damaged there ({why})"
            ) from None
        return _record(row)

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self)):
            try:
                yield self[index]
            except Unreadable as error:
                if not self._skip:
                    raise Unreadable(f"record {index}: {error}") from None

    def __repr__(self) -> str:
        return f"Source({self._rows!r}, {len(self)} records)"


def encoded(record: Record) -> bytes:
    """A record's PNG or JPEG file, byte by byte; other formats become PNG.

    Raises ValueError where the pixels of another format cannot be decoded.
    """
    data = record.image
    if data is None and record.path is not None:
        data = record.path.read_bytes()
    if data is None:
        raise ValueError(f"record {record.id} ({record.file_name}) has no image")
    if data.startswith(_UNCHANGED):
        return data
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = pixels.decode(data, flags)
    except ValueError:
        raise ValueError(f"{record.file_name} cannot be decoded") from None
    return cv2.imencode(".png", found)[1].tobytes()


class _Builder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # tfds has no types
):
    """tfds's view of data sets in memory; `write` gives it its name."""

    VERSION = tfds.core.Version(VERSION)
    pkg_dir_path = None  # there is no folder with a description beside the class

    def __init__(self, *, datasets, metadata, text, **kwargs):
        self._datasets, self._metadata, self._text = datasets, metadata, text
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._text,
            features=_features(self._metadata),
            metadata=tfds.core.MetadataDict(self._metadata),
            # Examples keep the order that they were read in.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        points = len(self._metadata["keypoints"])
        proposed = self._metadata["max_proposals"] > 0
        return {
            s: _examples(d.records, points, proposed) for s, d in self._datasets.items()
        }

    def _generate_examples(self):
        raise NotImplementedError("splits bring their own generators")


def _features(metadata: Mapping[str, Any]) -> tfds.features.FeaturesDict:
    thing: dict[str, Any] = {
        "id": np.int64,
        "bbox": tfds.features.BBoxFeature(),
        "label": tfds.features.ClassLabel(names=metadata["classes"]),
        "area": np.float32,
        "is_crowd": np.bool_,
        "is_difficult": np.bool_,
        "rle": tfds.features.Text(),
    }
    if metadata["keypoints"]:
        shape = (len(metadata["keypoints"]), 3)
        thing["keypoints"] = tfds.features.Tensor(shape=shape, dtype=np.float32)
    features = {
        "image": tfds.features.Image(),
        "image_id": np.int64,
        "file_name": tfds.features.Text(),
        "height": np.int32,
        "width": np.int32,
        "objects": tfds.features.Sequence(thing),
    }
    if metadata["max_proposals"]:
        features["proposals"] = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
    return tfds.features.FeaturesDict(features)


def _metadata(datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """What `info` gives back. Raises ValueError where the splits disagree."""
    first = next(iter(datasets.values()))
    for other in datasets.values():
        for what in ("classes", "keypoints", "category_ids"):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs:
                raise ValueError(
                    f"splits disagree about {what}: {first.split!r} has {list(ours)}, "
                    f"{other.split!r} has {list(theirs)}; write them as two data sets"
                )
    records = [r for d in datasets.values() for r in d.records]
    return {
        "classes": list(first.classes),
        "keypoints": list(first.keypoints),
        "category_ids": list(first.category_ids or range(1, len(first.classes) + 1)),
        "has_masks": any(a.rle is not None for r in records for a in r.annotations),
        "max_objects": max((len(r.annotations) for r in records), default=0),
        "max_proposals": max(
            (len(r.proposals) for r in records if r.proposals is not None), default=0
        ),
    }


def _examples(
    records: Sequence[Record], points: int, proposed: bool
) -> Iterator[tuple[int, dict]]:
    """(position, example) of every record.

    `points` is how many keypoints an object has; with `proposed` a record that has no
    proposals gets none of them.
    """
    for position, record in enumerate(records):
        example = {
            "image": io.BytesIO(encoded(record)),
            "image_id": record.id,
            "file_name": record.file_name,
            "height": record.height,
            "width": record.width,
            "objects": [_thing(a, record, points) for a in record.annotations],
        }
        if proposed:
            found = record.proposals
            example["proposals"] = np.asarray(
                np.zeros((0, 4)) if found is None else found, np.float32
            )
        yield position, example


def _thing(annotation: Annotation, record: Record, points: int) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, annotation.box)
    h, w = record.height, record.width
    thing = {
        "id": annotation.id,
        "bbox": tfds.features.BBox(y1 / h, x1 / w, y2 / h, x2 / w),
        "label": annotation.label,
        "area": annotation.area,
        "is_crowd": annotation.crowd,
        "is_difficult": annotation.difficult,
        "rle": annotation.rle or b"",
    }
    if points:
        # Nothing is visible of keypoints that nobody annotated.
        absent = np.zeros((points, 3), np.float32)
        found = annotation.keypoints
        thing["keypoints"] = absent if found is None else found.astype(np.float32)
    return thing


def _record(row: Mapping[str, Any]) -> Record:
    """The record behind an example as tfds reads it, its image encoded."""
    h, w, things = row["height"], row["width"], row["objects"]
    boxes = np.reshape(things["bbox"], (-1, 4)) * np.array([h, w, h, w], np.float64)
    points = things.get("keypoints", [])
    annotations = [
        Annotation(
            id=int(things["id"][i]),
            box=(x1, y1, x2, y2),
            label=int(things["label"][i]),
            area=float(things["area"][i]),
            crowd=bool(things["is_crowd"][i]),
            difficult=bool(things["is_difficult"][i]),
            rle=things["rle"][i] or None,
            keypoints=points[i] if len(points) else None,
        )
        for i, (y1, x1, y2, x2) in enumerate(boxes.tolist())
    ]
    return Record(
        id=int(row["image_id"]),
        file_name=row["file_name"].decode(),
        height=int(h),
        width=int(w),
        image=row["image"],
        annotations=annotations,
        proposals=row.get("proposals"),
    )


def _check_names(name: str, splits: Mapping[str, Dataset]) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"{name!r} cannot name a data set; take small letters, digits and _, a "
            "letter first"
        )
    if not splits:
        raise ValueError(f"data set {name!r} has no split; name one, such as train")
    for split, dataset in splits.items():
        if not re.fullmatch(r"\w+", split) or split == "all":
            raise ValueError(
                f"{split!r} cannot name a split; take letters, digits and _, and not "
                "'all', which means every split"
            )
        if not dataset.records:
            raise ValueError(
                f"split {split!r} of {name!r} has no image left to write; check its "
                "paths and problems"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[str]:
    """A folder for tfds's empty download folders; its chatter is kept from stdout."""
    tfds.display_progress_bar(sys.stderr.isatty())
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        yield scratch
