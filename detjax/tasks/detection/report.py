"""What an evaluation of detections shows beside its metrics: plots and a table."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from detjax.eval import coco
from detjax.eval.confusion import MIN_IOU
from detjax.plots import metrics as plots
from detjax.tasks.detection.judge import Judged
from detjax.types import Table

NAMES = {
    "bbox": "box",
    "segm": "mask",
    "keypoints": "keypoint",
    "oriented": "oriented box",
    "amodal": "whole box",
    "upright": "upright box",
    "visible": "visible box",
}


def figures(
    judged: Mapping[str, Judged],
    matrix: np.ndarray,
    confidence: float,
    classes: Sequence[str],
) -> dict[str, Callable[[], Any]]:
    """Functions that make the plots of each kind and of the `matrix` of confusion."""
    found: dict[str, Callable[[], Any]] = {}
    for kind, (curves, points, _) in judged.items():
        overlap = "OKS" if kind == "keypoints" else f"{NAMES[kind]} IoU"
        found[f"precision_recall_{kind}.png"] = functools.partial(
            plots.precision_recall,
            coco.RECALLS,
            curves.precision[..., 0],
            points.counts,
            classes,
            overlap,
        )
        found[f"f1_{kind}.png"] = functools.partial(
            plots.f1, points.confidences, points.f1, points.counts, classes, overlap
        )
    found["confusion.png"] = functools.partial(
        plots.confusion,
        matrix,
        [*classes, "background"],
        [*classes, "missed"],
        f"Boxes of a score of {confidence:.2f} or more, at an IoU of {MIN_IOU:g}",
    )
    return found


def table(judged: Mapping[str, Judged], classes: Sequence[str]) -> Table:
    """AP by class, and precision and recall where the class's F1 is highest.

    Those are of boxes at an IoU of .5, from the score in the last column on.
    """
    columns = ["class", "objects"]
    points = judged["bbox"].operating
    numbers: list[np.ndarray] = []
    for kind, held in judged.items():
        name = f"{NAMES[kind]} " if len(judged) > 1 else ""
        columns += [f"{name}AP", f"{name}AP50"]
        numbers += [coco.class_means(held.curves), coco.class_means_50(held.curves)]
    columns += ["precision", "recall", "F1", "from score"]
    each, best = np.arange(len(classes)), points.best()
    numbers += [points.precision[each, best], points.recall[each, best]]
    numbers += [points.f1[each, best], points.confidences[best]]
    rows = [
        (name, int(count), *map(float, row))
        for name, count, row in zip(
            classes, points.counts, np.stack(numbers, axis=1), strict=True
        )
    ]
    return Table(tuple(columns), rows, 2)
