"""COCO's metrics of detections in a split."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from detjax.data.records import Record
from detjax.eval import coco, confusion
from detjax.eval.confusion import MIN_IOU
from detjax.settings import Count, NotEmpty, Positive
from detjax.tasks.detection.compared import Truth, results_of, truth_of
from detjax.tasks.detection.judge import Judged, judge, metrics
from detjax.tasks.detection.report import figures, table
from detjax.tasks.detection.restore import Found, entries
from detjax.types import Table


class Meter:
    """Collects what is found in the images of a split, and evaluates it.

    `parts` are [place, entry]: the image's place in the split, and an entry of COCO's
    results files.
    """

    def __init__(
        self,
        records: Sequence[Record],
        info: Any,
        image_ids: Sequence[int | str],
        skip: bool,
        **settings: Any,
    ):
        self.parts: list[list[Any]] = []
        self._records, self._info, self._skip = records, info, skip
        self._image_ids, self._settings = image_ids, settings
        # Of the last parts: what they are worth, and their confusion.
        self._last: tuple[Any, dict[str, Judged]] | None = None
        self._mixed: tuple[Any, np.ndarray, float] | None = None

    def add(self, place: int, found: Found) -> None:
        """Collects the detections of the image at `place`."""
        rows = entries(found, self._image_ids[place], self._info.category_ids)
        self.parts += [[place, row] for row in rows]
        self._last = self._mixed = None

    def result(self, parts: Sequence[Sequence[Any]]) -> dict[str, float]:
        """The metrics of the parts of all processes."""
        return metrics(self._judged(parts), self._info.classes)

    def names(self) -> list[str]:
        """The names of the metrics of `result`, without reading anything.

        Masks are among them where the data set has some, whether or not they are found.
        """
        info = self._info
        kinds = {"bbox": True, "segm": info.has_masks, "keypoints": info.keypoints}
        found = []
        for kind in (kind for kind, there in kinds.items() if there):
            points = kind == "keypoints"
            most = None if points else self._settings["max_detections"]
            each = coco.names(kind, most)
            found += [f"{kind}/{name}" for name in each]
            if len(info.classes) > 1:
                found += [f"{kind}/AP/{name}" for name in info.classes]
        return found

    def files(self, parts: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """What is written of the parts, by file name: results.json in COCO's form.

        Where masks rank by scores of their own there is results_segm.json too, for
        tools that know one score a file. In confusion.json the last row is background
        that was taken for an object, the last column are objects that were missed.
        """
        rows = [row for _, row in parts]
        held: dict[str, Any] = {"results.json": rows}
        if rows and "mask_score" in rows[0]:
            own = [{**row, "score": row["mask_score"]} for row in rows]
            held["results_segm.json"] = own
        matrix, confidence = self._confusion(parts)
        held["confusion.json"] = {
            "classes": list(self._info.classes),
            "score": confidence,
            "iou": MIN_IOU,
            "matrix": matrix.tolist(),
        }
        return held

    def plots(self, parts: Sequence[Sequence[Any]]) -> dict[str, Callable[[], Any]]:
        """Precision by recall, F1 by confidence and the confusion of classes."""
        classes = self._info.classes
        return figures(self._judged(parts), *self._confusion(parts), classes)

    def table(self, parts: Sequence[Sequence[Any]]) -> Table:
        """AP, precision and recall by class."""
        return table(self._judged(parts), self._info.classes)

    @functools.cached_property
    def _truth(self) -> Truth:
        return truth_of(self._records, self._skip)

    def _judged(self, parts: Sequence[Sequence[Any]]) -> dict[str, Judged]:
        """What `parts` are worth, found once."""
        if self._last is None or self._last[0] is not parts:
            found = judge(
                [place for place, _ in parts],
                [row for _, row in parts],
                self._truth,
                num_classes=len(self._info.classes),
                category_ids=self._info.category_ids,
                **self._settings,
            )
            self._last = parts, found
        return self._last[1]

    def _confusion(self, parts: Sequence[Sequence[Any]]) -> tuple[np.ndarray, float]:
        """The confusion matrix at the score of the highest mean F1, and that score."""
        if self._mixed is not None and self._mixed[0] is parts:
            return self._mixed[1:]
        confidence = self._judged(parts)["bbox"].operating.confidence()
        places, rows = [p for p, _ in parts], [r for _, r in parts]
        truth, ids = self._truth, self._info.category_ids
        matrix = confusion.detections(
            truth.columns._replace(rles=None, keypoints=None),
            results_of(places, rows, truth.ranks, ids)._replace(
                rles=None, keypoints=None
            ),
            image_ids=truth.images,
            num_classes=len(self._info.classes),
            min_score=confidence,
        )
        self._mixed = parts, matrix, confidence
        return matrix, confidence


def meter(
    records: Sequence[Record],
    info: Any,
    image_ids: Sequence[int | str],
    skip: bool = False,
    *,
    max_detections: Annotated[tuple[Count, ...], NotEmpty()] = (1, 10, 100),
    sigmas: tuple[Positive, ...] = coco.COCO_SIGMAS,
) -> Meter:
    """A meter of a split, of `records` without images.

    max_detections  of an image and class, for each AR; the last one counts for AP
    sigmas          the annotators' standard deviation of each keypoint, for OKS

    With `skip` records and masks that cannot be read are passed over; else they are a
    UserError.
    """
    return Meter(
        records,
        info,
        image_ids,
        skip,
        max_detections=tuple(max_detections),
        sigmas=tuple(sigmas),
    )
