"""Classification with localisation: an image's main object, its class and one box.

The setting of ImageNet's localisation challenge (Russakovsky et al. 2015, section 4.2),
on data sets of detection: the main object of a picture is its largest.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from detjax.data.records import Record
from detjax.eval import classification as rates
from detjax.eval.collected import Collected, Parts
from detjax.ops import boxes, masks
from detjax.ops.ranking import top_k
from detjax.plots import metrics as plots
from detjax.settings import NonNegative
from detjax.tasks import detection
from detjax.tasks.classification import subject as classes_of
from detjax.tasks.classification.quantities import score
from detjax.tasks.detection.quantities import measured
from detjax.tasks.detection.restore import Found, entries
from detjax.types import (
    Array,
    Asked,
    Batch,
    Detections,
    Inputs,
    Located,
    Objects,
    Quantity,
    Question,
    Subject,
    Table,
)

TOP = 5  # classes that leave the device
IOU = 0.5  # above which a box is right
# The columns of a split without an image.
NOTHING: Parts = {
    "places": np.zeros(0, np.int32),
    "labels": np.zeros((0, 1), np.int32),
    "scores": np.zeros((0, 1)),
    "boxes": np.zeros((0, 1, 4)),
}


def targets(info: Any, *, min_size: NonNegative = 1.0) -> Any:
    """How the main object of each picture becomes a target: `Objects` of one row.

    min_size: pixels of the input; objects with a shorter side are left out.
    """
    settings: dict[str, Any] = {"max_objects": 1, "mask_stride": None}
    return detection.TASK.targets(info, min_size=min_size, **settings)


def warnings(sums: Mapping[str, float]) -> dict[str, str]:
    """A warning where most pictures have several objects, of which one is learnt."""
    if sums["objects cut"] <= sums["objects"]:
        return {}
    return {
        "cut": "pictures have two objects and more, of which the largest is learnt; "
        "to find all of them take a detector"
    }


def shrink(answers: Located) -> Detections:
    """The most probable classes of a batch with their boxes, [b k]."""
    count = min(TOP, answers.scores.shape[-1])
    scores, labels = top_k(answers.scores, count)
    chosen = jnp.take_along_axis(answers.boxes, labels[..., None], axis=-2)
    return Detections(chosen, scores, labels, jnp.ones(scores.shape, bool))


def mirror(answers: Located, size: tuple[int, int], names: tuple[str, ...]) -> Located:
    """`answers` as in the mirror image of a picture of `size` (h, w)."""
    return Located(answers.scores, boxes.mirror(answers.boxes, size[1]))


def rescale(answers: Located, scale: tuple[float, float]) -> Located:
    """`answers` in a picture that is `scale` (y, x) times as large."""
    sy, sx = scale
    return Located(answers.scores, answers.boxes * jnp.array([sx, sy, sx, sy]))


def merge(answers: Sequence[Located], iou: float) -> Located:
    """The mean probabilities and the mean boxes."""
    return Located(
        *(
            sum(getattr(a, name) for a in answers) / len(answers)
            for name in ("scores", "boxes")
        )
    )


def main_object(record: Record) -> tuple[int, np.ndarray] | None:
    """The label and the box [4] of a record's largest object; None without one."""
    some = [a for a in record.truth if not a.crowd]
    if not some:
        return None
    found = np.array([a.box for a in some], np.float64)
    largest = int((found[:, 2:] - found[:, :2]).prod(axis=1).argmax())
    return some[largest].label, found[largest]


def box(
    answers: Located, labels: Array | None = None, side: int | None = None
) -> Array:
    """A side [b q] of the boxes of `labels` [b q]; of the most probable class if None.

    side: 0 to 3, of left, top, right and bottom, in pixels of the network's input; if
        None the logarithm of the box's area.
    """
    if labels is None:
        labels = answers.scores.argmax(axis=-1)[..., None]
    of = measured(answers.boxes, side)
    return jnp.take_along_axis(of, jnp.asarray(labels), axis=-1).astype(jnp.float32)


class Meter:
    """Collects the classes and boxes that are found in the images of a split.

    `parts` are columns, a row for each image: `places` [n], its place in the split,
    `labels` [n k], `scores` [n k] and `boxes` [n k 4] of the most probable classes.
    Images without an object are not judged.
    """

    def __init__(
        self,
        records: Sequence[Record],
        info: Any,
        image_ids: Sequence[int | str],
        truth: Callable[[int], Any] | None = None,
    ):
        self._collected = Collected()
        self._records, self._info, self._image_ids = records, info, image_ids
        self._truth = truth or functools.cache(lambda i: main_object(records[i]))

    def again(self) -> "Meter":
        """A meter of the same split, of nothing yet; the truth is read once."""
        return Meter(self._records, self._info, self._image_ids, self._truth)

    def add(self, place: int, found: Found) -> None:
        """Collects what is found in the image at `place`."""
        rows: Parts = {
            "places": np.array([place], np.int32),
            "labels": np.asarray(found.labels, np.int32)[None],
            "scores": np.asarray(found.scores, np.float64)[None],
            "boxes": np.asarray(found.boxes, np.float64)[None],
        }
        self._collected.add(rows)

    @property
    def parts(self) -> Parts:
        """What is collected; the same object until there is more."""
        return self._collected.parts

    def result(self, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Accuracy of class and place; -1 of no image.

        top1, top5                        the class, or one of the five, is right
        localised_top1, localised_top5    and its box has an IoU above .5 with the
                                          object's: 1 - ImageNet's localisation error
        box                               the first box has, whatever its class
        iou                               the mean IoU of the first box
        """
        right, overlap, _ = self._judged(parts)
        found = right & (overlap > IOU)
        each = {
            "top1": right[:, :1].any(axis=1),
            "top5": right.any(axis=1),
            "localised_top1": found[:, :1].any(axis=1),
            "localised_top5": found.any(axis=1),
            "box": (overlap[:, :1] > IOU).any(axis=1),
            "iou": overlap[:, :1].sum(axis=1),
        }
        return {k: float(v.mean()) if len(v) else -1.0 for k, v in each.items()}

    def names(self) -> list[str]:
        """The names of the metrics of `result`, without reading anything."""
        return [*self.result({})]

    def files(self, parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """results.json: the classes of each image with their boxes, as COCO's rows."""
        return {"results.json": functools.partial(self._rows, NOTHING | dict(parts))}

    def plots(self, parts: Mapping[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
        """The confusion of classes."""
        _, _, labels = self._judged(parts)
        if not len(labels):
            return {}
        first, classes = self._first(parts), self._info.classes
        matrix = rates.confusion(first, labels, len(classes))
        title = f"The most probable class: {np.trace(matrix) / len(labels):.1%} right"
        make = functools.partial(plots.confusion, matrix, classes, classes, title)
        return {"confusion.png": make}

    def table(self, parts: Mapping[str, np.ndarray]) -> Table:
        """Accuracy of class and place by class."""
        right, overlap, labels = self._judged(parts)
        rows = []
        for label, name in enumerate(self._info.classes):
            of = labels == label
            numbers = (
                right[of, :1],
                right[of, :1] & (overlap[of, :1] > IOU),
                overlap[of, :1],
            )
            means = (float(x.mean()) if x.size else np.nan for x in numbers)
            rows.append((name, int(of.sum()), *means))
        return Table(("class", "images", "top1", "localised", "iou"), rows, 3)

    def _judged(self, parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which labels [n k] are right, the IoU of their boxes [n k], the truth [n]."""
        parts = NOTHING | dict(parts)
        truth = [self._truth(place) for place in parts["places"].tolist()]
        some = np.array([found is not None for found in truth], bool)
        labels = np.array([found[0] for found in truth if found is not None], int)
        real = np.array([found[1] for found in truth if found is not None])
        found = np.float32(parts["boxes"][some])
        wanted = np.broadcast_to(np.float32(real).reshape(-1, 1, 4), found.shape)
        overlap = np.asarray(boxes.paired_iou(found, wanted))
        return parts["labels"][some] == labels[:, None], overlap, labels

    def _first(self, parts) -> np.ndarray:
        """The most probable labels of the images that have an object."""
        places = parts["places"].tolist()
        some = [i for i, p in enumerate(places) if self._truth(p) is not None]
        return parts["labels"][some, 0]

    def _rows(self, parts: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """The entries of results.json."""
        ids, categories = self._image_ids, self._info.category_ids
        for place, labels, scores, found in zip(
            *(parts[name] for name in NOTHING), strict=True
        ):
            one = Found(found, scores, labels, None)
            yield from entries(one, ids[place], categories)


def meter(
    records: Sequence[Record],
    info: Any,
    image_ids: Sequence[int | str],
    skip: bool = False,
) -> Meter:
    """A meter of a split, of `records` without images.

    With or without `skip` those that cannot be read are left out: nothing is found in
    them.
    """
    return Meter(records, info, image_ids)


def truth(record: Record) -> Found:
    """The main object of `record` as an answer without a score."""
    found = main_object(record)
    size = record.height, record.width
    if found is None:
        return Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), None, size=size)
    label, box = found
    return Found(box[None], np.full(1, np.nan), np.array([label]), None, size=size)


def draw(image: Any, found: Found, classes: Sequence[str], **how: Any) -> Array:
    """A copy of `image` with the box of the most probable class; see `detection`'s."""
    first = found._replace(
        boxes=found.boxes[:1], scores=found.scores[:1], labels=found.labels[:1]
    )
    return detection.TASK.draw(image, first, classes, **how)


def subject(batch: Batch, answers: Located, classes: Sequence[str]) -> Subject:
    """The class that is true, which is where its box is."""
    target: Objects = batch.target
    valid, size = np.asarray(target.valid), batch.inputs.images.shape[1:3]
    where = masks.of_boxes(target.boxes, valid, size)
    return Subject(np.asarray(target.labels)[:, 0], valid[:, 0], np.asarray(where))


QUANTITIES: Mapping[str, Quantity] = {"score": score, "box": box}


def ask(answers: Located, inputs: Inputs, question: Question) -> Asked:
    """The classes that are asked for, their scores or boxes; see `classification`'s."""
    return classes_of.ask(answers, inputs, question, QUANTITIES[question.quantity])


TASK = detection.TASK._replace(
    name="localisation",
    reads="detection",
    targets=targets,
    warnings=warnings,
    shrink=shrink,
    mirror=mirror,
    rescale=rescale,
    merge=merge,
    meter=meter,
    truth=truth,
    draw=draw,
    quantities=QUANTITIES,
    ask=ask,
    explained=classes_of.EXPLAINED._replace(of=subject),
)
