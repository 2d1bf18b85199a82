"""Accuracy, precision and recall, and calibration of a split, with their files."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from detjax.data.records import Record
from detjax.eval import classification as metrics
from detjax.eval.collected import Collected, Parts
from detjax.plots import metrics as plots
from detjax.tasks.classification.answers import Found, entries
from detjax.types import Table

# The columns of a split without an image.
NOTHING: Parts = {
    "places": np.zeros(0, np.int32),
    "labels": np.zeros((0, 1), np.int32),
    "scores": np.zeros((0, 1)),
}


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
        self._last: tuple[Any, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

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
        """Accuracy, precision, recall and F1, calibration, and top-1 of each class.

        What is undefined, as of classes without an image, is -1. Images that cannot be
        read are left out. Where images have several classes, those of a score of .5
        are found, and there is no calibration error ("ece").
        """
        ranked, scores, truth = self._compared(parts)
        first = metrics.top_k(ranked, truth, 1)
        found = {"top1": _mean(first), "top5": _mean(metrics.top_k(ranked, truth, 5))}
        said = metrics.decided(ranked, scores, truth)
        for kind, of in (("macro", metrics.macro), ("micro", metrics.micro)):
            rates = of(said, truth)._asdict().items()
            found |= {f"{name}_{kind}": _known(rate) for name, rate in rates}
        single = metrics.single(truth)
        error = metrics.calibration_error(scores[:, 0], first) if single else -1
        found["ece"] = _known(error)
        if len(self._info.classes) > 1:
            for label, name in enumerate(self._info.classes):
                found[f"top1/{name}"] = _mean(first[truth[:, label]])
        return found

    def names(self) -> list[str]:
        """The names of the metrics of `result`, without reading anything."""
        classes = self._info.classes if len(self._info.classes) > 1 else ()
        rates = [
            f"{rate}_{kind}"
            for kind in ("macro", "micro")
            for rate in metrics.Rates._fields
        ]
        return ["top1", "top5", *rates, "ece", *(f"top1/{name}" for name in classes)]

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
        """The confusion of classes and the calibration, where every image has one."""
        matrix, classes = self._confusion(parts), self._info.classes
        if matrix is None:
            return {}
        right = np.trace(matrix) / max(matrix.sum(), 1)
        title = f"The most probable class: {right:.1%} of {matrix.sum():,} are right"
        ranked, scores, truth = self._compared(parts)
        first = metrics.top_k(ranked, truth, 1)
        make = functools.partial(plots.confusion, matrix, classes, classes, title)
        bins = metrics.calibration(scores[:, 0], first)
        error = metrics.calibration_error(scores[:, 0], first)
        reliability = functools.partial(plots.reliability, *bins, error)
        return {"confusion.png": make, "calibration.png": reliability}

    def table(self, parts: Mapping[str, np.ndarray]) -> Table:
        """Accuracy, precision, recall and F1 by class."""
        ranked, scores, truth = self._compared(parts)
        rates = metrics.rates(metrics.decided(ranked, scores, truth), truth)
        counts = truth.sum(axis=0)
        numbers = np.column_stack([metrics.by_class(ranked, truth), *rates])
        rows = [
            (name, int(count), *map(float, row))
            for name, count, row in zip(
                self._info.classes, counts, numbers, strict=True
            )
        ]
        names = "class", "images", "top1", "top5", *metrics.Rates._fields
        return Table(names, rows, 2)

    def _confusion(self, parts) -> np.ndarray | None:
        """The confusion matrix [c c]; None unless every image has one class."""
        ranked, _, truth = self._compared(parts)
        if not len(truth) or not metrics.single(truth):
            return None
        return metrics.confusion(
            ranked[:, 0], truth.argmax(axis=1), len(self._info.classes)
        )

    def _compared(self, parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The labels [n k] found, the most probable first, their scores, and the truth.

        The truth is [n c] bool.

        Metrics, files, plots and table share what is found once.
        """
        if self._last is None or self._last[0] is not parts:
            self._last = parts, self._ranked(parts)
        return self._last[1]

    def _ranked(self, parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = NOTHING | dict(parts)
        truth = np.zeros((len(parts["places"]), len(self._info.classes)), bool)
        for row, place in zip(truth, parts["places"].tolist(), strict=True):
            row[list(self._truth(place))] = True
        return parts["labels"], parts["scores"], truth

    def _rows(self, parts: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """The entries of results.json."""
        ids, categories = self._image_ids, self._info.category_ids
        for place, *found in zip(*(parts[name] for name in NOTHING), strict=True):
            yield from entries(Found(*found), ids[place], categories)


def _mean(hits: np.ndarray) -> float:
    """The share of `hits` [n] bool; -1 of none, as COCO's metrics have it."""
    return float(hits.mean()) if len(hits) else -1.0


def _known(value: float) -> float:
    """`value`; -1 where it is not defined."""
    return -1.0 if np.isnan(value) else float(value)


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
