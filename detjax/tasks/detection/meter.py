"""COCO's metrics of detections in a split, and Pascal VOC's."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from detjax.data.records import Record
from detjax.errors import UserError
from detjax.eval import coco, confusion, pck
from detjax.eval import voc as pascal
from detjax.eval.collected import Collected, Parts
from detjax.eval.confusion import MIN_IOU
from detjax.settings import Count, NotEmpty, Positive
from detjax.tasks.detection.columns import columns_of, results_of, rows_of
from detjax.tasks.detection.compared import Truth, truth_of
from detjax.tasks.detection.judge import SAME, Judged, judge, metrics
from detjax.tasks.detection.report import figures, table
from detjax.tasks.detection.restore import Found
from detjax.types import Table


class Meter:
    """Collects what is found in the images of a split, and evaluates it.

    `parts` are the detections as `columns` has them.
    """

    def __init__(
        self,
        records: Sequence[Record],
        info: Any,
        image_ids: Sequence[int | str],
        skip: bool,
        *,
        truth: Callable[[], Truth] | None = None,
        voc: pascal.Points | None = None,
        pose: pck.Scale,
        **settings: Any,
    ):
        self._collected = Collected()
        self._records, self._info, self._skip = records, info, skip
        self._image_ids, self._voc, self._pose = image_ids, voc, pose
        self._settings = settings
        self._truth = truth or functools.cache(lambda: truth_of(records, skip))
        # Of the last parts: what they are worth, and their confusion.
        self._last: tuple[Any, dict[str, Judged]] | None = None
        self._mixed: tuple[Any, np.ndarray, float] | None = None

    def again(self) -> "Meter":
        """A meter of the same split, of nothing yet; the truth is read once."""
        held = self._records, self._info, self._image_ids, self._skip
        return Meter(
            *held,
            truth=self._truth,
            voc=self._voc,
            pose=self._pose,
            **self._settings,
        )

    def add(self, place: int, found: Found) -> None:
        """Collects the detections of the image at `place`."""
        self._collected.add(columns_of(place, found))

    @property
    def parts(self) -> Parts:
        """What is collected; the same object until there is more."""
        return self._collected.parts

    def result(self, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metrics of the parts of all processes."""
        judged = self._judged(parts)
        found = metrics(judged, self._info.classes)
        if "keypoints" in judged:
            found |= self._correct(parts)
        return found if self._voc is None else found | self._pascal(parts, self._voc)

    def names(self) -> list[str]:
        """The names of the metrics of `result`, without reading anything.

        Masks, boxes at an angle and those of whole objects are among them where the
        data set has some, whether or not they are found.
        """
        info = self._info
        kinds = {
            "bbox": True,
            "segm": info.has_masks,
            "keypoints": info.keypoints,
            "oriented": info.has_masks,
            "amodal": info.has_amodal,
            "upright": info.has_masks and self._settings["baselines"],
            "visible": info.has_amodal and self._settings["baselines"],
        }
        found = []
        for kind in (kind for kind, there in kinds.items() if there):
            points = kind == "keypoints"
            most = None if points else self._settings["max_detections"]
            each = coco.names(SAME.get(kind, kind), most)
            found += [f"{kind}/{name}" for name in each]
            if len(info.classes) > 1:
                found += [f"{kind}/AP/{name}" for name in info.classes]
        if info.keypoints:
            found += ["keypoints/PCK"]
            found += [f"keypoints/PCK/{name}" for name in info.keypoints]
        if self._voc is not None:
            found += ["voc/mAP", "voc/global_AP", "voc/AP_by_image"]
            found += [f"voc/AP/{name}" for name in info.classes]
        return found

    def _correct(self, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The share of keypoints in `parts` that are where they should be."""
        truth = self._truth()
        found = pck.evaluate(
            truth.columns._replace(rles=None),
            results_of(parts, truth.ranks, "keypoints"),
            image_ids=truth.images,
            num_classes=len(self._info.classes),
            by=self._pose,
        )
        rates = pck.rates(*found, self._info.keypoints)
        return {f"keypoints/{name}": value for name, value in rates.items()}

    def _pascal(
        self, parts: Mapping[str, np.ndarray], points: pascal.Points
    ) -> dict[str, float]:
        """Pascal VOC's metrics of the boxes in `parts`."""
        truth = self._truth()
        classes = self._info.classes
        scores = pascal.evaluate(
            truth.columns._replace(rles=None, keypoints=None),
            results_of(parts, truth.ranks),
            image_ids=truth.images,
            num_classes=len(classes),
            points=points,
        )
        means = {
            "mAP": scores.macro,
            "global_AP": scores.micro,
            "AP_by_image": scores.by_image,
        }
        each = zip(classes, scores.classes, strict=True)
        means |= {f"AP/{name}": value for name, value in each}
        return {
            f"voc/{name}": -1.0 if np.isnan(value) else float(value)
            for name, value in means.items()
        }

    def files(self, parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What is written of the parts, by file name: results.json in COCO's form.

        Its entries come from a function, one by one. Where masks rank by scores of
        their own there is results_segm.json too, for tools that know one score a file.
        In confusion.json the last row is background that was taken for an object, the
        last column are objects that were missed.
        """
        rows = functools.partial(
            rows_of, parts, self._image_ids, self._info.category_ids
        )
        held: dict[str, Any] = {"results.json": rows}
        if "mask_scores" in parts:
            held["results_segm.json"] = functools.partial(rows, score="mask_scores")
        matrix, confidence = self._confusion(parts)
        held["confusion.json"] = {
            "classes": list(self._info.classes),
            "score": confidence,
            "iou": MIN_IOU,
            "matrix": matrix.tolist(),
        }
        return held

    def plots(self, parts: Mapping[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
        """Precision by recall, F1 by confidence and the confusion of classes."""
        classes = self._info.classes
        return figures(self._judged(parts), *self._confusion(parts), classes)

    def table(self, parts: Mapping[str, np.ndarray]) -> Table:
        """AP, precision and recall by class."""
        return table(self._judged(parts), self._info.classes)

    def _judged(self, parts: Mapping[str, np.ndarray]) -> dict[str, Judged]:
        """What `parts` are worth, found once."""
        if self._last is None or self._last[0] is not parts:
            found = judge(
                parts,
                self._truth(),
                num_classes=len(self._info.classes),
                **self._settings,
            )
            self._last = parts, found
        return self._last[1]

    def _confusion(self, parts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
        """The confusion matrix at the score of the highest mean F1, and that score.

        Its pairs are of any two classes and none of the metrics' matches, so they are
        found here, of boxes, once.
        """
        if self._mixed is not None and self._mixed[0] is parts:
            return self._mixed[1:]
        confidence = self._judged(parts)["bbox"].operating.confidence()
        truth = self._truth()
        matrix = confusion.detections(
            truth.columns._replace(rles=None, keypoints=None),
            results_of(parts, truth.ranks),
            image_ids=truth.images,
            num_classes=len(self._info.classes),
            min_score=confidence,
        )
        self._mixed = parts, matrix, confidence
        return matrix, confidence


def pose_scale(reach: float, of: Sequence[str], names: Sequence[str]) -> pck.Scale:
    """`reach` of the distance between the keypoints called `of`; of the box if empty.

    Raises UserError for a name that the data set does not have, and for other than two.
    """
    if not of:
        return pck.Scale(reach)
    missing = [name for name in of if name not in names]
    if missing or len(of) != 2:
        raise UserError(
            f"eval.pck_of={tuple(of)} must name two of the data set's keypoints, which "
            f"are {', '.join(names)}"
        )
    first, second = (list(names).index(name) for name in of)
    return pck.Scale(reach, (first, second))


def meter(
    records: Sequence[Record],
    info: Any,
    image_ids: Sequence[int | str],
    skip: bool = False,
    *,
    max_detections: Annotated[tuple[Count, ...], NotEmpty()] = (1, 10, 100),
    sigmas: tuple[Positive, ...] = coco.COCO_SIGMAS,
    voc: pascal.Points | None = None,
    pck_reach: Positive = 0.2,
    pck_of: tuple[str, ...] = (),
    baselines: bool = False,
) -> Meter:
    """A meter of a split, of `records` without images.

    max_detections  of an image and class, for each AR; the last one counts for AP
    sigmas          the annotators' standard deviation of each keypoint, for OKS
    voc             also Pascal VOC's AP, at an IoU of 0.5, over "all" recalls or "11":
                    its mean over classes, that of one ranking of all classes
                    (global_AP), and the mean over images of that of one image
    pck_reach       how far from its place a keypoint is correct, for PCK: in lengths of
                    the longer side of its object's box
    pck_of          two keypoints, whose distance takes that side's place: PCKh has 0.5
                    and ("head_top", "upper_neck")
    baselines       also the usual boxes in the place of those at an angle ("upright")
                    and of those of whole objects ("visible"), against their truth

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
        baselines=baselines,
        voc=voc,
        pose=pose_scale(pck_reach, pck_of, info.keypoints),
    )
