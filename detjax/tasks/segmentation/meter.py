"""Metrics of the label maps of a split, summed as its images come."""

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from detjax.data import crew
from detjax.data.records import Record, Unreadable
from detjax.eval import boundaries, semantic
from detjax.eval.collected import Parts
from detjax.plots import by_class
from detjax.plots import metrics as plots
from detjax.settings import Fraction
from detjax.tasks.segmentation import storage
from detjax.tasks.segmentation.answers import Found
from detjax.types import Table

MOST_THREADS = 8


class Sums(NamedTuple):
    """What is summed over images; a part of a split has one row of each."""

    confusion: np.ndarray  # [1 c c] int64 pixels
    # [1 c 2] float64: boundary F scores, and the images that they are of
    outlines: np.ndarray
    # [1 3] float64: mean boundary F scores of images, those that have one, all images
    images: np.ndarray


class Meter:
    """Sums what is found in the images of a split: memory does not grow with them.

    `parts` are those of `Sums`, of one row. Truths are read one by one, by threads.
    """

    def __init__(
        self,
        records: Sequence[Record],
        info: Any,
        skip: bool = False,
        *,
        boundary: bool = True,
        boundary_tolerance: float = boundaries.TOLERANCE,
    ):
        self._records, self._info, self._skip = records, info, skip
        self._settings: dict[str, Any] = {
            "boundary": boundary,
            "boundary_tolerance": boundary_tolerance,
        }
        self._sums: Sums | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: collections.deque[Future[Sums | None]] = collections.deque()

    def again(self) -> "Meter":
        """A meter of the same split, of nothing yet."""
        return Meter(self._records, self._info, self._skip, **self._settings)

    def add(self, place: int, found: Found) -> None:
        """Adds the label map of the image at `place`. Raises Unreadable, of any before.

        With `skip` an image whose truth cannot be read is left out.
        """
        threads = min(MOST_THREADS, crew.cores())
        if self._pool is None:
            self._pool = ThreadPoolExecutor(threads)
        self._waiting.append(self._pool.submit(self._judged, place, found))
        self._take(2 * threads)

    @property
    def parts(self) -> Parts:
        """What is summed, of one row; nothing where there is no image."""
        self._take(0)
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        return {} if self._sums is None else self._sums._asdict()

    def _take(self, most: int) -> None:
        """Adds what is judged until at most so many images wait for it."""
        while len(self._waiting) > most:
            more = self._waiting.popleft().result()
            if more is None:
                continue
            if self._sums is None:
                self._sums = more
                continue
            for total, own in zip(self._sums, more, strict=True):
                total += own

    def _judged(self, place: int, found: Found) -> Sums | None:
        """The sums of one image; None where its truth cannot be read."""
        count = len(self._info.classes)
        try:
            truth, valid = storage.read(self._records[place], count)
        except Unreadable:
            if self._skip:
                return None
            raise
        matrix = semantic.confusion(truth, found.labels, valid, count)
        outlines, images = np.zeros((count, 2)), np.array([0.0, 0.0, 1.0])
        if self._settings["boundary"]:
            tolerance = self._settings["boundary_tolerance"]
            each = [*boundaries.scores(truth, found.labels, valid, tolerance)]
            for label, value in each:
                outlines[label] += value, 1
            if each:
                images[:2] = np.mean([one.f1 for one in each]), 1
        return Sums(matrix[None], outlines[None], images[None])

    def result(self, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metrics of all pixels that have a class; what is undefined is -1.

        miou                 mean IoU of the classes that occur or are found
        pixel_accuracy       share of pixels whose class is found
        mean_accuracy        mean share of the pixels of a class
        fwiou                IoU weighted by the pixels of the classes
        precision, recall, f1, dice   _macro: means of classes; _micro: of all pixels;
                             F1 of pixels and Dice's coefficient are one number
        boundary_f           of outlines, see `eval.boundaries`, where asked for
        iou/NAME             of each class, where there are several
        """
        sums = self._summed(parts)
        matrix = sums.confusion
        found: dict[str, float] = {
            "miou": semantic.mean_iou(matrix),
            "pixel_accuracy": semantic.pixel_accuracy(matrix),
            "mean_accuracy": semantic.mean_accuracy(matrix),
            "fwiou": semantic.frequency_weighted_iou(matrix),
        }
        for kind, of in (("macro", semantic.macro), ("micro", semantic.micro)):
            rates = of(matrix)
            rates["dice"] = rates["f1"]
            found |= {f"{name}_{kind}": value for name, value in rates.items()}
        if self._settings["boundary"]:
            total, some, _ = sums.images.tolist()
            found["boundary_f"] = total / some if some else np.nan
        if len(self._info.classes) > 1:
            iou = semantic.rates(matrix).iou.tolist()
            names = (f"iou/{name}" for name in self._info.classes)
            found |= dict(zip(names, iou, strict=True))
        return {k: -1.0 if np.isnan(v) else float(v) for k, v in found.items()}

    def names(self) -> list[str]:
        """The names of the metrics of `result`, without reading anything."""
        return [*self.result({})]

    def files(self, parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """confusion.json: pixels by true class (row) and the class found (column)."""
        matrix = self._summed(parts).confusion
        held = {"classes": list(self._info.classes), "matrix": matrix.tolist()}
        return {"confusion.json": held}

    def plots(self, parts: Mapping[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
        """The confusion of classes, and the IoU of each."""
        matrix, classes = self._summed(parts).confusion, self._info.classes
        if not matrix.any():
            return {}
        right = semantic.pixel_accuracy(matrix)
        title = f"{right:.1%} of {matrix.sum():,} pixels are right; cells in % of a row"
        confusion = functools.partial(
            plots.confusion, matrix, classes, classes, title, per_cent=True
        )
        iou, mean = semantic.rates(matrix).iou, semantic.mean_iou(matrix)
        bars = functools.partial(by_class.bars, iou, classes, mean, "IoU")
        return {"confusion.png": confusion, "iou.png": bars}

    def table(self, parts: Mapping[str, np.ndarray]) -> Table:
        """IoU, accuracy, precision and F1 of the pixels of each class."""
        sums = self._summed(parts)
        matrix, (scores, images) = sums.confusion, sums.outlines.T
        rates = semantic.rates(matrix)
        with np.errstate(invalid="ignore"):
            edges = scores / images
        columns = [rates.iou, rates.recall, rates.precision, rates.f1]
        names = ["iou", "accuracy", "precision", "f1"]
        if self._settings["boundary"]:
            columns.append(edges)
            names.append("boundary_f")
        counts = matrix.sum(axis=1).tolist()
        rows = [
            (name, count, *map(float, numbers))
            for name, count, *numbers in zip(
                self._info.classes, counts, *columns, strict=True
            )
        ]
        return Table(("class", "pixels", *names), rows, 2)

    def _summed(self, parts: Mapping[str, np.ndarray]) -> Sums:
        """The sums of the rows of all processes."""
        c = len(self._info.classes)
        blank = Sums(np.zeros((c, c), np.int64), np.zeros((c, 2)), np.zeros(3))
        return Sums(
            *(
                parts[name].sum(axis=0) if name in parts else none
                for name, none in blank._asdict().items()
            )
        )


def meter(
    records: Sequence[Record],
    info: Any,
    image_ids: Sequence[int | str],
    skip: bool = False,
    *,
    boundary: bool = True,
    boundary_tolerance: Fraction = boundaries.TOLERANCE,
) -> Meter:
    """A meter of a split, of `records` without images.

    boundary: also how well outlines are found; it takes most of a meter's time.
    boundary_tolerance: how far off an outline may be, as a share of the diagonal.

    With `skip` images whose truth cannot be read are left out.
    """
    return Meter(
        records,
        info,
        skip,
        boundary=boundary,
        boundary_tolerance=boundary_tolerance,
    )
