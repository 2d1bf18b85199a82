"""Pictures of a data set's labels: what to look at before training.

Of large sets a sample, drawn with a seed, is read; the sizes of all pictures are known
without reading them.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from detjax import cli, draw, tasks
from detjax.data import builder
from detjax.data.example import read
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.plots import shapes, style
from detjax.types import Task

PICTURES, COLUMNS = 12, 4  # of grid.png
CLASSES, CROPS = 24, 8  # rows and columns of classes.png
CROP = 110  # pixels of a crop
AROUND = 0.15  # of a crop's sides, shown beyond its box
NAME = 150  # pixels of a row's name


class Sampled(NamedTuple):
    """The truth of some records; n regions with a class."""

    places: np.ndarray  # [r] of the records in the split
    owners: np.ndarray  # [n] the number of the region's record among these
    labels: np.ndarray  # [n]
    boxes: np.ndarray  # [n 4] xyxy pixels of their picture
    unreadable: int  # records beside these

    def counts(self, num_classes: int) -> np.ndarray:
        """The number of regions of each class."""
        return np.bincount(self.labels, minlength=num_classes)


def look(
    name: str,
    data_dir: str | pathlib.Path = "datasets",
    split: str = "train",
    *,
    out: str | pathlib.Path,
    seed: int = 0,
    records: int = 2000,
    pictures: int = PICTURES,
) -> str:
    """Draws grid.png, classes.png and sizes.png of a split into `out`; a summary.

    grid.png     `pictures` pictures with their truth
    classes.png  crops of objects by class, or pictures by class
    sizes.png    how large objects and pictures are, how many there are of each class

    Of at most so many `records`. Raises UserError for a data set or split that is not
    there.
    """
    info = builder.info(name, data_dir)
    task = tasks.TASKS[info.task]
    bare = builder.source(name, data_dir, split, task, images=False)
    whole = builder.source(name, data_dir, split, task)
    out = cli.make_workdir(out)
    rng = np.random.default_rng(seed)
    sampled = sample(bare, task, rng.permutation(len(bare))[:records])
    if not len(sampled.places):
        raise UserError(
            f"none of {sampled.unreadable} records of {name!r} can be read; make the "
            "data set anew"
        )
    boxed = info.task == "detection"
    panels = grid(whole, sampled.places, task, info.classes, pictures)
    if panels:
        draw.save(out / "grid.png", draw.grid(panels, COLUMNS))
    rows = classes(whole, sampled, info.classes)
    if rows:
        columns = 1 if len(rows) <= 12 else 2
        draw.save(out / "classes.png", draw.grid(rows, columns, gap=draw.MARGIN))
    sizes = builder.image_sizes(name, data_dir, split, task)
    counts = sampled.counts(len(info.classes))
    drawn = len(sampled.places)
    part = "" if drawn == len(bare) else f"sample of {drawn:,}"
    each = np.bincount(sampled.owners, minlength=drawn)
    sides = sampled.boxes[:, 2:] - sampled.boxes[:, :2]
    style.save_all(
        out,
        {
            "sizes.png": lambda: shapes.sizes(
                sizes, counts, info.classes, sides if boxed else None, each, part
            )
        },
    )
    return summary(f"{name} {split}", sizes, sampled, info.classes, boxed, out)


def sample(source: Sequence[Record], task: Task, places: np.ndarray) -> Sampled:
    """The truth of the records at `places`; those that cannot be read are left out."""
    read_places: list[int] = []
    owners, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    boxes = [np.zeros((0, 4))]
    for place in places.tolist():
        try:
            own, around = task.regions(source[place])
        except Unreadable:
            continue
        owners.append(np.full(len(own), len(read_places)))
        labels.append(own)
        boxes.append(around)
        read_places.append(place)
    return Sampled(
        np.array(read_places, np.int64),
        np.concatenate(owners),
        np.concatenate(labels),
        np.concatenate(boxes),
        len(places) - len(read_places),
    )


def grid(
    source: Sequence[Record],
    places: np.ndarray,
    task: Task,
    names: Sequence[str],
    most: int,
) -> list[np.ndarray]:
    """Drawings of the truth of the first `most` of the records that can be read."""
    side = draw.PANEL_SIDE
    panels: list[np.ndarray] = []
    for place in places.tolist():
        if len(panels) == most:
            break
        try:
            record = source[place]
            picture = task.draw(
                read(record), task.truth(record), names, least_side=side, most_side=side
            )
        except (Unreadable, MemoryError):
            continue
        sheet = np.full((picture.shape[0] + draw.TITLE, side, 3), 255, np.uint8)
        left = (side - picture.shape[1]) // 2
        sheet[draw.TITLE :, left : left + picture.shape[1]] = picture
        title = draw.middle_out(record.file_name, 50)
        panels.append(draw.written(sheet, [title], [(2, 2)]))
    return panels


def classes(
    source: Sequence[Record], sampled: Sampled, names: Sequence[str]
) -> list[np.ndarray]:
    """A row of crops for each class that the sample has, at most `CLASSES` rows.

    Of more classes they are evenly chosen from the most to the least frequent.
    """
    counts = sampled.counts(len(names))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    chosen = order[draw.spread(len(order), CLASSES)] if len(order) else order
    rows = []
    for label in chosen.tolist():
        crops: list[np.ndarray] = []
        for i in np.flatnonzero(sampled.labels == label)[: 3 * CROPS].tolist():
            if len(crops) == CROPS:
                break
            place = int(sampled.places[sampled.owners[i]])
            try:
                crops.append(crop(read(source[place]), sampled.boxes[i]))
            except (Unreadable, MemoryError):
                continue
        if crops:
            rows.append(row(names[label], int(counts[label]), crops))
    return rows


def crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A square [`CROP` `CROP` 3] around a box, which is framed; grey beyond the image.

    A box of the whole image is fitted in without a frame.
    """
    h, w = image.shape[:2]
    side = max(*(box[2:] - box[:2]).tolist(), 1.0)
    whole = box[0] <= 0 and box[1] <= 0 and box[2] >= w and box[3] >= h
    reach = side * (0.5 if whole else 0.5 + AROUND)
    low = (box[:2] + box[2:]) / 2 - reach
    scale = CROP / (2 * reach)
    x1, y1 = np.clip(np.floor(low), 0, [w - 1, h - 1]).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(low + 2 * reach), [x1 + 1, y1 + 1], [w, h]).astype(int)
    part = image[y1:y2, x1:x2]
    # What is shrunk is shrunk by areas: it has no moire.
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    part = cv2.resize(part, size, interpolation=kind)
    found = np.full((CROP, CROP, 3), 235, np.uint8)
    left, top = np.maximum(np.rint((np.array([x1, y1]) - low) * scale), 0).astype(int)
    inside = part[: CROP - top, : CROP - left]
    found[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    if not whole:
        corners = np.rint((box.reshape(2, 2) - low) * scale).astype(int).tolist()
        for wider, tint in ((1, (0, 0, 0)), (0, (255, 255, 255))):
            first, last = (
                [c + d for c in e]
                for e, d in zip(corners, (-wider, wider), strict=True)
            )
            cv2.rectangle(found, first, last, tint, 1)
    return found


def row(name: str, count: int, crops: Sequence[np.ndarray]) -> np.ndarray:
    """Crops beside one another after their class and its number."""
    gap = 3
    sheet = np.full((CROP, NAME + CROPS * (CROP + gap), 3), 255, np.uint8)
    for i, one in enumerate(crops):
        left = NAME + i * (CROP + gap)
        sheet[:, left : left + CROP] = one
    texts = [draw.plain(name, 19), f"{count:,}"]
    return draw.written(sheet, texts, [(0, CROP // 2 - 18), (0, CROP // 2)])


def summary(
    title: str,
    sizes: np.ndarray,
    sampled: Sampled,
    names: Sequence[str],
    boxed: bool,
    out: pathlib.Path,
) -> str:
    """What the pictures show, in a few lines."""
    counts = sampled.counts(len(names))
    h, w = np.median(sizes, axis=0)
    part = len(sampled.places)
    said = [
        f"{title}: {len(sizes):,} pictures, median {w:.0f} x {h:.0f} pixels (width x "
        f"height), from {sizes[:, 1].min()} x {sizes[:, 0].min()} to "
        f"{sizes[:, 1].max()} x {sizes[:, 0].max()}"
    ]
    if part < len(sizes):
        said.append(f"what follows is of a sample of {part:,} pictures")
    if sampled.unreadable:
        said.append(f"warning: {sampled.unreadable:,} records could not be read")
    each = np.bincount(sampled.owners, minlength=part)
    if boxed and len(sampled.labels):
        side = np.sqrt((sampled.boxes[:, 2:] - sampled.boxes[:, :2]).prod(axis=1))
        low, middle, high = np.quantile(side, (0.05, 0.5, 0.95))
        said.append(
            f"{len(side):,} objects, {each.mean():.1f} a picture ({each.max()} at "
            f"most, {np.mean(each == 0):.0%} of the pictures have none); nine in "
            f"ten are {low:.0f} to {high:.0f} pixels large, the median {middle:.0f} "
            "(square root of the area)"
        )
    order = np.argsort(-counts, kind="stable").tolist()
    shown = order if len(order) <= 12 else [*order[:6], *order[-6:]]
    listed = [f"{draw.plain(names[i], 24)} {counts[i]:,}" for i in shown]
    if len(order) > 12:
        listed.insert(6, "...")
    said.append(f"{len(names)} classes: {', '.join(listed)}")
    absent = int((counts == 0).sum())
    if absent:
        said.append(f"warning: {absent} classes have none of these")
    said.append(f"drawn in {out}: grid.png, classes.png, sizes.png")
    return "\n".join(said)
