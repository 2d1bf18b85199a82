"""The detections of a split as columns, n in all, 50 bytes each beside their masks.

    places        [n] int32: the image's place in the split
    labels        [n] int32
    scores        [n] float64
    boxes         [n 4] float64, xywh in pixels of the image
    sizes         [n 2] int32: h, w of the image
    text          [t] uint8: the masks' run-length codes, one after the other
    lengths       [n] int32: the bytes of each
    mask_scores   [n] float64, where masks rank by scores of their own
    keypoints     [n k 3] float64: x, y, score
    oriented      [n 5] float64, boxes at an angle
    amodal        [n 4] float64, xywh of whole objects

`sizes`, `text` and `lengths` are there with masks only. Columns of several processes
are put one after the other. A split without a detection may have no column at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from detjax.data import rectangles
from detjax.eval import coco
from detjax.eval.codes import Codes, packed
from detjax.eval.collected import Parts
from detjax.tasks.detection.restore import Found

LOT = 1000  # entries made at once
NOTHING: Parts = {
    "places": np.zeros(0, np.int32),
    "labels": np.zeros(0, np.int32),
    "scores": np.zeros(0),
    "boxes": np.zeros((0, 4)),
}


def columns_of(place: int, found: Found) -> Parts:
    """The columns of what is found in the image at `place`.

    Of nothing those, without a row, that tell what a model would find: boxes at an
    angle and of whole objects.
    """
    count = len(found.scores)
    if not count:
        kinds = {"oriented": (found.oriented, 5), "amodal": (found.amodal, 4)}
        return {k: np.zeros((0, n)) for k, (x, n) in kinds.items() if x is not None}
    boxes = np.array(found.boxes, np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    columns: Parts = {
        "places": np.full(count, place, np.int32),
        "labels": np.asarray(found.labels, np.int32),
        "scores": np.asarray(found.scores, np.float64),
        "boxes": boxes,
    }
    if found.rles is not None:
        text, lengths = packed(found.rles)
        sizes = np.array([code["size"] for code in found.rles], np.int32)
        columns |= {"sizes": sizes, "text": text, "lengths": lengths}
    if found.mask_scores is not None:
        columns["mask_scores"] = np.asarray(found.mask_scores, np.float64)
    if found.keypoints is not None:
        columns["keypoints"] = np.asarray(found.keypoints, np.float64)
    if found.oriented is not None:
        columns["oriented"] = np.asarray(found.oriented, np.float64)
    if found.amodal is not None:
        whole = np.array(found.amodal, np.float64)
        whole[:, 2:] -= whole[:, :2]
        columns["amodal"] = whole
    return columns


def codes_of(parts: Mapping[str, np.ndarray]) -> Codes | None:
    """The masks of `parts`, None without masks."""
    if "text" not in parts:
        return None
    ends = np.cumsum(parts["lengths"], dtype=np.int64)
    return Codes(parts["text"], ends, parts["sizes"])


def results_of(
    parts: Mapping[str, np.ndarray], ranks: np.ndarray, kind: str = "bbox"
) -> coco.Results:
    """Detections as the metric of a `kind` wants them: no column of it is copied.

    `ranks` are those of `compared.Truth`. Masks (`kind` "segm") rank by their
    `mask_scores` where they have some. Masks, keypoints and oriented boxes are left out
    of other kinds; of "amodal" those boxes take the place of the visible ones.
    """
    parts = NOTHING | dict(parts)
    own = kind == "segm" and "mask_scores" in parts
    return coco.Results(
        image_ids=ranks[parts["places"]],
        labels=parts["labels"],
        scores=parts["mask_scores" if own else "scores"],
        boxes=parts["amodal" if kind == "amodal" and "amodal" in parts else "boxes"],
        rles=codes_of(parts) if kind == "segm" else None,
        keypoints=parts.get("keypoints") if kind == "keypoints" else None,
        oriented=turned_of(parts, kind),
    )


def turned_of(parts: Mapping[str, np.ndarray], kind: str) -> np.ndarray | None:
    """Boxes at an angle [n 5]; the usual boxes as such for the kind "upright"."""
    if kind != "upright":
        return parts.get("oriented") if kind == "oriented" else None
    low, sides = parts["boxes"][:, :2], parts["boxes"][:, 2:]
    angle = np.zeros((len(low), 1))
    return rectangles.canonical(np.hstack([low + sides / 2, sides, angle]))


def rows_of(
    parts: Mapping[str, np.ndarray],
    image_ids: Sequence[int | str],
    category_ids: Sequence[int],
    score: str = "scores",
) -> Iterator[dict[str, Any]]:
    """Entries of a COCO results file, as `restore.entries` makes them, one by one.

    `image_ids` are those of places, `category_ids` those of labels; `score` is the
    column of the scores.
    """
    parts = NOTHING | dict(parts)
    codes, scores = codes_of(parts), parts[score if len(parts["places"]) else "scores"]
    row: dict[str, Any]
    for lo in range(0, len(parts["places"]), LOT):
        some = slice(lo, lo + LOT)
        each = {name: parts[name][some].tolist() for name in NOTHING}
        masks = None if codes is None else codes[some]
        own, points, turned, whole = (
            parts[name][some] if name in parts else None
            for name in ("mask_scores", "keypoints", "oriented", "amodal")
        )
        for i, value in enumerate(scores[some].tolist()):
            row = {
                "image_id": image_ids[each["places"][i]],
                "category_id": category_ids[each["labels"][i]],
                "bbox": each["boxes"][i],
                "score": value,
            }
            if masks is not None:
                counts = masks[i]["counts"].decode("ascii")
                row["segmentation"] = {**masks[i], "counts": counts}
            if own is not None:
                row["mask_score"] = float(own[i])
            if points is not None:
                row["keypoints"] = points[i].ravel().tolist()
            if turned is not None:
                row["oriented"] = turned[i].tolist()
            if whole is not None:
                row["amodal"] = whole[i].tolist()
            yield row
