"""Image classification, single-label or multi-label.

A record's truth is the tuple of its labels: one, or several where classes do not
exclude each other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.data.features import Schema, integers
from detjax.data.frames import Seen, move_boxes
from detjax.data.records import Record, Unreadable
from detjax.data.summary import Facts
from detjax.draw import canvas, font, plain
from detjax.eval import classification as metrics
from detjax.eval.collected import Collected, Parts
from detjax.ops.ranking import top_k
from detjax.plots import metrics as plots
from detjax.types import Array, Label, Scores, Table, Task

TOP = 5  # labels that leave the device
NO_BOXES = np.zeros((0, 4))
# The columns of a split without an image.
NOTHING: Parts = {
    "places": np.zeros(0, np.int32),
    "labels": np.zeros((0, 1), np.int32),
    "scores": np.zeros((0, 1)),
}


def features(schema: Schema) -> dict[str, Any]:
    """tfds's features of the labels of an image."""
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=schema.classes)
    return {"labels": tfds.features.Sequence(label)}


def encode(record: Record, schema: Schema) -> dict[str, Any]:
    """The labels of a record as those features."""
    return {"labels": integers(list(record.truth))}


def decode(held: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, ...]:
    """The labels of an image, of its example's features."""
    return tuple(held["labels"].int64_list.value)


def fault(labels: tuple[int, ...], num_classes: int) -> str | None:
    """The problem of labels from a file, if any."""
    wrong = [label for label in labels if not 0 <= label < num_classes]
    return f"the image has label {wrong[0]}" if wrong else None


def facts(labels: tuple[int, ...]) -> Facts:
    """Statistics of an image for a data set's summary."""
    return Facts(
        labels=np.array(labels, np.int64),
        sides=np.zeros(0, np.float32),
        counts={
            "images without a class": int(not labels),
            "images of several classes": int(len(labels) > 1),
        },
    )


def regions(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The labels [n] of a record, and the whole picture for each as a box [n 4]."""
    labels = np.array(record.truth, np.int64)
    whole = np.array([0, 0, record.width, record.height], np.float64)
    return labels, np.tile(whole, (len(labels), 1))


class Truth(NamedTuple):
    """The labels of one image; there are no boxes that a crop has to keep."""

    labels: tuple[int, ...]
    size: tuple[int, int]  # (h, w) of the image
    boxes: np.ndarray = NO_BOXES


@dataclasses.dataclass(frozen=True)
class Targets:
    """Labels as weights of classes; nothing that moves with the picture."""

    num_classes: int

    def evaluation(self) -> "Targets":
        """The same: labels cost nothing."""
        return self

    def empty(
        self, count: int, size: tuple[int, int]
    ) -> tuple[Label, dict[str, np.ndarray]]:
        """Room for the labels of `count` images; nothing is counted."""
        return Label(np.zeros((count, self.num_classes), np.float32)), {}

    def clear(self, target: Label) -> None:
        """Makes an image's room empty again."""
        target.weights[:] = 0

    def read(self, record: Record, outlines: bool = False) -> Truth:
        """The truth of a record. Raises Unreadable where it has no label."""
        if not record.truth:
            raise Unreadable("the image has no class")
        return Truth(record.truth, (record.height, record.width))

    def fill(
        self, target: Label, seen: Sequence[Seen], size: tuple[int, int]
    ) -> dict[str, int]:
        """Sets the weights of the labels to 1.

        Of several pictures in one input, to the shares of what is seen of them, as
        CutMix does (Yun et al., ICCV 2019).
        """
        areas = np.ones(1) if len(seen) == 1 else np.array([_area(s) for s in seen])
        for one, share in zip(seen, areas / max(areas.sum(), 1e-9), strict=True):
            target.weights[list(one.truth.labels)] += share
        return {}


def _area(seen: Seen) -> float:
    """The pixels of the input in which a picture is seen, by the box around it."""
    h, w = seen.truth.size
    [box] = move_boxes(np.array([[0.0, 0.0, w, h]]), seen.matrix)
    low = np.maximum(box[:2], seen.window[:2])
    return float(np.clip(np.minimum(box[2:], seen.window[2:]) - low, 0, None).prod())


def targets(info: Any) -> Targets:
    """How the labels of the data set that `info` describes become targets."""
    return Targets(len(info.classes))


def warnings(sums: dict[str, float]) -> dict[str, str]:
    """None: nothing is counted."""
    return {}


class Found(NamedTuple):
    """The most probable classes of one image, by falling score."""

    labels: Array  # [k]
    scores: Array  # [k]


def shrink(answers: Scores) -> Found:
    """The most probable classes of a batch, [b k]."""
    scores, labels = top_k(answers.scores, min(TOP, answers.scores.shape[-1]))
    return Found(labels, scores)


def mirror(answers: Scores, size: tuple[int, int], names: tuple[str, ...]) -> Scores:
    """The same: classes have no place in a picture."""
    return answers


def rescale(answers: Scores, scale: tuple[float, float]) -> Scores:
    """The same: classes have no size."""
    return answers


def merge(answers: Sequence[Scores], iou: float) -> Scores:
    """The mean probabilities."""
    return Scores(sum(a.scores for a in answers) / len(answers))


def restore(
    answer: Found,
    affine: np.ndarray,
    size: tuple[int, int],
    network_size: tuple[int, int],
    min_score: float = 0.0,
) -> Found:
    """`answer` without the classes that score less than `min_score`.

    The most probable one stays: a class of the image there always is.
    """
    return confident(answer, min_score)


def confident(found: Found, min_score: float) -> Found:
    """`found` as `restore` leaves it."""
    labels, scores = np.asarray(found.labels), np.asarray(found.scores)
    some = ~(scores < min_score)
    some[:1] = True
    return Found(labels[some], scores[some])


def entries(
    found: Found, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """An entry for each class, as COCO's results have them, by falling score."""
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "score": float(score),
        }
        for label, score in zip(found.labels, found.scores, strict=True)
    ]


class Meter:
    """Collects the classes that are found in the images of a split.

    `parts` are columns, a row for each image: `places` [n], its place in the split, and
    `labels` [n k] and `scores` [n k] of the most probable classes.
    """

    def __init__(
        self,
        records: Sequence[Record],
        info: Any,
        image_ids: Sequence[int | str],
        truth: Callable[[int], tuple[int, ...]] | None = None,
    ):
        self._collected = Collected()
        self._records, self._info, self._image_ids = records, info, image_ids
        # The labels of the image at a place.
        self._truth = truth or functools.cache(lambda place: records[place].truth)
        # Of the last parts: what was found in their images, and the truth.
        self._last: tuple[Any, tuple[np.ndarray, np.ndarray]] | None = None

    def again(self) -> "Meter":
        """A meter of the same split, of nothing yet; the truth is read once."""
        return Meter(self._records, self._info, self._image_ids, self._truth)

    def add(self, place: int, found: Found) -> None:
        """Collects the classes of the image at `place`."""
        rows: Parts = {
            "places": np.array([place], np.int32),
            "labels": np.asarray(found.labels, np.int32)[None],
            "scores": np.asarray(found.scores, np.float64)[None],
        }
        self._collected.add(rows)

    @property
    def parts(self) -> Parts:
        """What is collected; the same object until there is more."""
        return self._collected.parts

    def result(self, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Top-1 and top-5 accuracy, and top-1 of each class of more than one.

        Of classes without an image it is -1. Images that cannot be read are left out.
        """
        ranked, truth = self._compared(parts)
        first = metrics.top_k(ranked, truth, 1)
        found = {"top1": _mean(first), "top5": _mean(metrics.top_k(ranked, truth, 5))}
        if len(self._info.classes) > 1:
            for label, name in enumerate(self._info.classes):
                found[f"top1/{name}"] = _mean(first[truth[:, label]])
        return found

    def names(self) -> list[str]:
        """The names of the metrics of `result`, without reading anything."""
        classes = self._info.classes if len(self._info.classes) > 1 else ()
        return ["top1", "top5", *(f"top1/{name}" for name in classes)]

    def files(self, parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """results.json, and confusion.json where every image has one class.

        The former is a function that makes its entries one by one.
        The matrix counts images by their class (row) and the class found (column).
        """
        held: dict[str, Any] = {
            "results.json": functools.partial(self._rows, NOTHING | dict(parts))
        }
        matrix = self._confusion(parts)
        if matrix is not None:
            held["confusion.json"] = {
                "classes": list(self._info.classes),
                "matrix": matrix.tolist(),
            }
        return held

    def plots(self, parts: Mapping[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
        """The confusion of classes, where every image has one."""
        matrix, classes = self._confusion(parts), self._info.classes
        if matrix is None:
            return {}
        right = np.trace(matrix) / max(matrix.sum(), 1)
        title = f"The most probable class: {right:.1%} of {matrix.sum():,} are right"
        make = functools.partial(plots.confusion, matrix, classes, classes, title)
        return {"confusion.png": make}

    def table(self, parts: Mapping[str, np.ndarray]) -> Table:
        """Accuracy by class, and how often the class is right where it is found."""
        ranked, truth = self._compared(parts)
        counts, numbers = truth.sum(axis=0), metrics.by_class(ranked, truth)
        rows = [
            (name, int(count), *map(float, row))
            for name, count, row in zip(
                self._info.classes, counts, numbers, strict=True
            )
        ]
        return Table(("class", "images", "top1", "top5", "precision"), rows, 2)

    def _confusion(self, parts) -> np.ndarray | None:
        """The confusion matrix [c c]; None unless every image has one class."""
        ranked, truth = self._compared(parts)
        if not len(truth) or (truth.sum(axis=1) != 1).any():
            return None
        return metrics.confusion(
            ranked[:, 0], truth.argmax(axis=1), len(self._info.classes)
        )

    def _compared(self, parts) -> tuple[np.ndarray, np.ndarray]:
        """The labels [n k] found, the most probable first, and the truth [n c].

        Metrics, files, plots and table share what is found once.
        """
        if self._last is None or self._last[0] is not parts:
            self._last = parts, self._ranked(parts)
        return self._last[1]

    def _ranked(self, parts) -> tuple[np.ndarray, np.ndarray]:
        parts = NOTHING | dict(parts)
        truth = np.zeros((len(parts["places"]), len(self._info.classes)), bool)
        for row, place in zip(truth, parts["places"].tolist(), strict=True):
            row[list(self._truth(place))] = True
        return parts["labels"], truth

    def _rows(self, parts: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """The entries of results.json."""
        ids, categories = self._image_ids, self._info.category_ids
        for place, *found in zip(*(parts[name] for name in NOTHING), strict=True):
            yield from entries(Found(*found), ids[place], categories)


def _mean(hits: np.ndarray) -> float:
    """The share of `hits` [n] bool; -1 of none, as COCO's metrics have it."""
    return float(hits.mean()) if len(hits) else -1.0


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
    """The labels of `record` as an answer without scores."""
    labels = np.array(record.truth, np.int64)
    return Found(labels, np.full(len(labels), np.nan))


def draw(
    image: Any,
    found: Found,
    classes: Sequence[str],
    *,
    least_side: int = 480,
    most_side: int | None = None,
) -> np.ndarray:
    """A copy of `image`, [h w 3] uint8 or of PIL, above the names of its classes.

    Behind each name is a bar as long as the class is probable. Small pictures are
    enlarged to `least_side` pixels first, and those with a side above `most_side` are
    shrunk.
    """
    from PIL import Image, ImageDraw  # here: evaluating draws nothing

    picture = canvas(image, least_side, most_side)
    h, w = picture.shape[:2]
    size = max(12, min(h, w) // 20)
    line = size * 3 // 2
    sheet = Image.new("RGB", (w, h + line * len(found.labels)), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    pen, letters = ImageDraw.Draw(sheet), font(size)
    for i, (label, score) in enumerate(zip(found.labels, found.scores, strict=True)):
        top = h + i * line
        known = not np.isnan(score)
        if known:
            right = max(round((w - 1) * float(np.clip(score, 0, 1))), 0)
            pen.rectangle((0, top, right, top + line - 2), fill=(173, 216, 230))
        text = plain(classes[int(label)], 60) + (f"  {score:.2f}" if known else "")
        pen.text((size // 2, top + size // 8), text, fill="black", font=letters)
    return np.asarray(sheet)


TASK = Task(
    name="classification",
    target=Label,
    features=features,
    encode=encode,
    decode=decode,
    fault=fault,
    facts=facts,
    regions=regions,
    targets=targets,
    warnings=warnings,
    shrink=shrink,
    mirror=mirror,
    rescale=rescale,
    merge=merge,
    restore=restore,
    confident=confident,
    meter=meter,
    entries=entries,
    truth=truth,
    draw=draw,
)
