"""COCO's metrics of the detections in a split, by kind: boxes, masks, keypoints."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.eval import coco, matching, operating
from detjax.tasks.detection.columns import results_of
from detjax.tasks.detection.compared import Truth, turned

# Kinds whose overlaps are those of another.
SAME = {"upright": "oriented", "amodal": "bbox", "visible": "bbox"}


class Judged(NamedTuple):
    """The detections of a split against its truth, of one kind."""

    curves: coco.Curves
    operating: operating.Operating
    limits: list[int]


def warn_of_boxes(masked: np.ndarray) -> None:
    """Warns of objects that are not `masked` [m], where masks are judged."""
    missing = int((~masked).sum())
    if missing:
        print(
            f"warning: {missing} of {len(masked)} annotations have no mask; detections "
            "of these count neither way where masks are judged",
            file=sys.stderr,
        )


def judge(
    parts: Mapping[str, np.ndarray],
    truth: Truth,
    *,
    num_classes: int,
    max_detections: Sequence[int],
    sigmas: Sequence[float],
    baselines: bool = False,
) -> dict[str, Judged]:
    """What is found of boxes, "bbox", masks, "segm", "keypoints", and boxes at an
    angle, "oriented", or of whole objects, "amodal". With `baselines` the usual boxes
    are judged in their places as well, against the same truth: "upright", "visible".

    `parts` are detections as `columns` has them; each kind of them is matched once.
    Masks and keypoints are judged where both sides have them, nothing found being all
    kinds; keypoints need as many `sigmas`, and at most 20 detections of an image and
    class count there.
    """
    truths = truth.columns
    kinds = ["bbox"]
    nothing = not len(parts.get("places", ()))
    if truths.rles is not None and (nothing or "text" in parts):
        kinds.append("segm")
    if truths.keypoints is not None and (nothing or "keypoints" in parts):
        kinds.append("keypoints")
    if truths.rles is not None and "oriented" in parts:
        kinds += ["oriented", "upright"] if baselines else ["oriented"]
    if truth.amodal is not None and "amodal" in parts:
        kinds += ["amodal", "visible"] if baselines else ["amodal"]
    found = {}
    for kind in kinds:
        against = truths
        if kind in ("segm", "oriented", "upright"):
            warn_of_boxes(truth.masked)
            against = truths._replace(ignore=truths.ignore | ~truth.masked)
        if kind in ("oriented", "upright"):
            against = against._replace(oriented=turned(truth))
        if kind in ("amodal", "visible"):
            against = truths._replace(boxes=truth.amodal)
        options: dict[str, Any] = {"max_detections": tuple(max_detections)}
        if kind == "keypoints":
            options = {"max_detections": None, "sigmas": tuple(sigmas)}
        matched = matching.matched(
            against,
            results_of(parts, truth.ranks, kind),
            image_ids=truth.images,
            num_classes=num_classes,
            kind=SAME.get(kind, kind),
            **options,
        )
        found[kind] = Judged(
            coco.accumulate(matched), operating.by_confidence(matched), matched.limits
        )
    return found


def metrics(judged: Mapping[str, Judged], classes: Sequence[str]) -> dict[str, float]:
    """Flat COCO metrics: 'bbox/AP', 'segm/AP50', ...

    'bbox/AP/<class>' follows for each class of more than one. Undefined numbers are -1,
    as COCO has it.
    """
    found: dict[str, float] = {}
    for kind, (curves, _, limits) in judged.items():
        summary = coco.means(curves, SAME.get(kind, kind), limits)
        found |= {f"{kind}/{name}": value for name, value in summary.items()}
        if len(classes) > 1:
            found |= {
                f"{kind}/AP/{name}": -1.0 if np.isnan(ap) else float(ap)
                for name, ap in zip(classes, coco.class_means(curves), strict=True)
            }
    return found
