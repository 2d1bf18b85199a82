"""Prepared data sets as files again: COCO's JSON files, or folders of pictures."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from detjax import files
from detjax.data import builder, images, lint, shards
from detjax.data.builder import Info
from detjax.data.records import Annotation, Record
from detjax.errors import UserError
from detjax.types import Task

# The task whose data sets can be written in each form.
FORMS = {"coco": "detection", "folders": "classification"}


def export(
    name: str,
    data_dir: str | Path,
    out: str | Path,
    to: str,
    tasks: Mapping[str, Task],
    log: Callable[[str], Any] = print,
) -> Path:
    """Writes the data set `name` to the new folder `out`; returns it.

    `to` is "coco": images/SPLIT/ and annotations/instances_SPLIT.json, with the ids,
    categories, masks (as run lengths), crowds, keypoints and names of the images, and
    with boxes of whole objects and at an angle as the reader of this form has them; or
    "folders": SPLIT/CLASS/, for classification. Images are the stored ones: upright,
    JPEG or PNG, with their ending corrected if they were something else.

    Records are read one after the other. The folder gets its name once complete.
    Raises UserError if it exists, and for data sets of another task.
    """
    info = builder.info(name, data_dir)
    if to not in FORMS:
        raise UserError(f"to={to!r} is not one of {', '.join(map(repr, FORMS))}")
    if info.task != FORMS[to]:
        fits = next((form for form, task in FORMS.items() if task == info.task), "")
        advice = f"write it with --to={fits}" if fits else "there is no other form"
        raise UserError(
            f"{name!r} is a data set for {info.task}, which --to={to} cannot hold; "
            f"{advice}"
        )
    target = lint.expanded(out)
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} is there already; choose another --out")
    write = _coco if to == "coco" else _folders
    with shards.incomplete(target) as folder:
        for split in info.splits:
            source = builder.source(name, data_dir, split, tasks[info.task])
            bar = tqdm(source, f"{split} images", len(source), disable=None)
            with files.writing(folder):
                write(folder, split, bar, info)
    counts = ", ".join(f"{split} {count}" for split, count in info.splits.items())
    log(f"wrote {target} ({counts})")
    return target


def _folders(folder: Path, split: str, source: Iterator[Record], info: Info) -> None:
    taken: set[str] = set()
    for record in source:
        (label,) = record.truth
        kind = PurePosixPath(info.classes[label].replace("/", "_").replace("\0", "_"))
        kind = PurePosixPath("_") if kind.name in ("", "..") else kind
        bare = PurePosixPath(record.file_name).name
        name = _free(f"{kind}/{bare}", record, taken)
        _write(folder / split / name, record.image)


def _coco(folder: Path, split: str, source: Iterator[Record], info: Info) -> None:
    """The JSON file of a split and its images; annotations wait in a file beside it."""
    place = folder / "annotations" / f"instances_{split}.json"
    place.parent.mkdir(exist_ok=True)
    aside = place.with_suffix(".tmp")
    taken: set[str] = set()
    with open(place, "w") as out, open(aside, "w+") as rows:
        out.write('{"info": ' + json.dumps({"description": info.name}))
        out.write(',\n"categories": ' + json.dumps(_categories(info)))
        out.write(',\n"images": [')
        first_image = first_row = True
        for record in source:
            name = _free(record.file_name, record, taken)
            _write(folder / "images" / split / name, record.image)
            row = {
                "id": record.id,
                "file_name": name,
                "width": record.width,
                "height": record.height,
            }
            out.write(("\n" if first_image else ",\n") + json.dumps(row))
            first_image = False
            for annotation in record.truth:
                text = json.dumps(_row(annotation, record, info))
                rows.write(("\n" if first_row else ",\n") + text)
                first_row = False
        out.write('],\n"annotations": [')
        rows.seek(0)
        while chunk := rows.read(1 << 20):
            out.write(chunk)
        out.write("]}\n")
    aside.unlink()


def _categories(info: Info) -> list[dict[str, Any]]:
    """The categories by id, with the keypoints of all if there are any."""
    points = {"keypoints": list(info.keypoints)} if info.keypoints else {}
    pairs = sorted(zip(info.category_ids, info.classes, strict=True))
    return [{"id": number, "name": name, **points} for number, name in pairs]


def _row(annotation: Annotation, record: Record, info: Info) -> dict[str, Any]:
    """A row of COCO's annotations; float32 coordinates hold a thousandth of a pixel."""
    x1, y1, x2, y2 = annotation.box
    row: dict[str, Any] = {
        "id": annotation.id,
        "image_id": record.id,
        "category_id": info.category_ids[annotation.label],
        "bbox": [round(x, 3) for x in (x1, y1, x2 - x1, y2 - y1)],
        "area": round(annotation.area, 3),
        "iscrowd": int(annotation.crowd),
    }
    if annotation.rle:
        size = [record.height, record.width]
        code = annotation.rle.decode("ascii")
        row["segmentation"] = {"size": size, "counts": code}
    if annotation.difficult:
        row["difficult"] = 1
    if annotation.keypoints is not None:
        points = np.round(annotation.keypoints.astype(np.float64), 3)
        row["keypoints"] = [int(x) if x == int(x) else x for x in points.ravel()]
        row["num_keypoints"] = int((points[:, 2] > 0).sum())
    if annotation.amodal is not None:
        x1, y1, x2, y2 = annotation.amodal
        row["amodal"] = [round(x, 3) for x in (x1, y1, x2 - x1, y2 - y1)]
    if annotation.corners is not None:
        places = annotation.corners.astype(np.float64).ravel()
        row["corners"] = np.round(places, 3).tolist()
    return row


def _free(name: str, record: Record, taken: set[str]) -> str:
    """A name for a record's image: its own, below the folder, and not taken.

    Names are compared as file systems do that ignore case.
    """
    kept = name if lint.fault_of_name(name) is None else os.path.basename(name)
    path = PurePosixPath(os.path.normpath(kept.replace("\0", "_") or "image"))
    jpeg = record.image.startswith(images.JPEG)
    fits = (".jpg", ".jpeg") if jpeg else (".png",)
    if path.suffix.lower() not in fits:
        path = path.with_name(f"{path.stem or 'image'}{fits[0]}")
    stem, number = path.stem, 1
    while str(path).casefold() in taken:
        number += 1
        path = path.with_name(f"{stem}-{number}{path.suffix}")
    taken.add(str(path).casefold())
    return str(path)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir():
            raise UserError(f"{path} is the name of a picture and of a folder")
    path.write_bytes(data)
