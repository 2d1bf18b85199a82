"""Whether a model's priors (anchors) fit the objects of a data set, and which would.

Objects are taken as an input without augmentation shows them. A sample of records,
drawn with a seed, is read without their images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax import models
from detjax.data import frames, sizing
from detjax.data.records import Record, Unreadable
from detjax.ops import anchors
from detjax.types import Model, Priors, Task

# A run warns where fewer objects than this share find a prior, and fitted ones would
# have so much more of them, or so much more of their overlap.
MOST, GAIN = 0.5, 0.1
# What it looks at.
OBJECTS, RECORDS = 1000, 500


class Sample(NamedTuple):
    """Objects of some records in the pixels of their inputs."""

    boxes: Mapping[tuple[int, int], np.ndarray]  # [n 4] xyxy by the input's (h, w)
    records: int  # that were read

    @property
    def shapes(self) -> np.ndarray:
        """The (w, h) [n 2] of all."""
        held = [b[:, 2:] - b[:, :2] for b in self.boxes.values()]
        return np.concatenate([np.zeros((0, 2)), *held])

    @property
    def usual(self) -> tuple[int, int]:
        """The (h, w) of the input that has most of them."""
        return max(self.boxes, key=lambda size: len(self.boxes[size]))


class Fit(NamedTuple):
    """How well priors fit a sample."""

    share: float  # of the objects that reach the IoU `Priors.positive` with one
    mean: float  # of the objects' highest IoU with one


def sample(
    records: Sequence[Record],
    task: Task,
    sizes: sizing.InputSizes,
    *,
    objects: int,
    most_records: int,
    min_size: float = 1.0,
    seed: int = 0,
) -> Sample:
    """About `objects` objects of records drawn at random, at most `most_records`.

    Those with a side below `min_size` pixels of the input are left out, as in training,
    and so are records that cannot be read.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    count = read = 0
    for index in rng.permutation(len(records))[:most_records].tolist():
        try:
            record = records[index]
        except Unreadable:
            continue
        read += 1
        boxes = task.regions(record)[1]
        if not len(boxes):
            continue
        size, moved = placed(boxes, (record.height, record.width), sizes, rng)
        moved = moved[(moved[:, 2:] - moved[:, :2]).min(axis=1) >= max(min_size, 1e-3)]
        found.setdefault(size, []).append(moved)
        count += len(moved)
        if count >= objects:
            break
    joined = {size: np.concatenate(parts) for size, parts in found.items()}
    return Sample({size: b for size, b in joined.items() if len(b)}, read)


def placed(
    boxes: np.ndarray,
    picture: tuple[int, int],
    sizes: sizing.InputSizes,
    rng: np.random.Generator,
) -> tuple[tuple[int, int], np.ndarray]:
    """The (h, w) of the input of a picture of (h, w), and its boxes [n 4] there."""
    options, counts = sizes.options(np.array([picture]))
    choice = int(rng.integers(counts[0]))
    short = choice if sizes.short_sides else -1
    fit = sizes.resize(picture, int(options[0, choice]), short)
    frame = frames.Frame(np.eye(3), picture)
    frame = frames.resize(frame, fit.size, fit.letterbox, fit.scale)
    h, w = fit.size
    return fit.size, np.clip(frames.move_boxes(boxes, frame.matrix), 0, [w, h, w, h])


def fit(objects: Sample, priors: Callable[[tuple[int, int]], Priors]) -> Fit:
    """How well the priors that a model has of each input's size fit its objects."""
    best = []
    for size, boxes in objects.boxes.items():
        held = priors(size)
        best.append(anchors.best_iou(boxes, held.levels)[0].max(axis=1))
    iou = np.concatenate(best)
    return Fit(float((iou >= held.positive).mean()), float(iou.mean()))


def fitted(objects: Sample, model: Model, settings: Mapping[str, Any]) -> "Fitted":
    """Settings of the model of `settings` whose priors fit, and how well they do."""
    size = objects.usual
    found = model.priors(size).fitted(objects.boxes[size])
    made = models.make(**changed(settings, found))
    return Fitted(found, fit(objects, made.priors), made.priors(size))


class Fitted(NamedTuple):
    """Priors of a model that fit a sample of objects."""

    settings: dict[str, Any]  # of the model, by dotted name
    fit: Fit
    priors: Priors  # of the input that has most of the objects


def changed(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model with others at the dotted names of `values`."""
    made = dict(settings)
    for path, value in values.items():
        stage, name = path.split(".")
        held = made.get(stage)
        made[stage] = {**(held if isinstance(held, Mapping) else {}), name: value}
    return made


def warning(
    model: Model,
    settings: Mapping[str, Any],
    records: Callable[[], Sequence[Record]],
    task: Task,
    sizes: sizing.InputSizes,
    min_size: float = 1.0,
) -> str | None:
    """What a run says where most objects find no prior of its model; None if they do.

    `settings` are those of the model. Priors are only blamed where fitted ones would
    reach clearly more objects.
    """
    if model.priors is None:
        return None
    objects = sample(
        records(),
        task,
        sizes,
        objects=OBJECTS,
        most_records=RECORDS,
        min_size=min_size,
    )
    if not objects.boxes:
        return None
    now = fit(objects, model.priors)
    if now.share >= MOST:
        return None
    better = fitted(objects, model, settings)
    more, closer = better.fit.share - now.share, better.fit.mean - now.mean
    if max(more, closer) < GAIN or more < 0:
        return None
    held = model.priors(objects.usual)
    return (
        f"only {now.share:.0%} of {len(objects.shapes)} training objects find a prior "
        f"(anchor) at model.{held.setting}={held.positive}, their mean best IoU is "
        f"{now.mean:.2f}; fitted ones would reach {better.fit.share:.0%} and "
        f"{better.fit.mean:.2f}: `python scripts/anchors.py --config=FILE` with this "
        "run's config prints them"
    )
