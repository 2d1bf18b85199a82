"""COCO's JSON ground truth and results as arrays for the metric."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from detjax.eval.columns import Results, Truths


def read(
    ground_truth: dict | str | Path, results: list | str | Path
) -> tuple[Truths, Results, np.ndarray, list[dict]]:
    """(truths, results, image_ids, categories) of COCO's JSON forms or their files.

    Label c is the c-th of `categories`, which are sorted by id. As in pycocotools,
    results of categories that the ground truth does not list are ignored, and so is an
    annotation's "ignore". Unlike there, a mask's area is its own even if its result has
    a box as well. Masks (polygons are rasterised) and keypoints are read only if all
    objects and all results have them; results without a box get the bounding box of
    their mask or keypoints. Raises ValueError if the number of keypoints varies.
    """
    truth, found = _content(ground_truth), _content(results)
    images = {image["id"]: image for image in truth["images"]}
    _check_images(found, images)
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    label = {category["id"]: c for c, category in enumerate(categories)}
    found = [x for x in found if x["category_id"] in label]
    objects = [
        x
        for x in truth["annotations"]
        if x["category_id"] in label and x["image_id"] in images
    ]
    masked, pointed = (
        all(key in x for x in (*objects, *found))
        for key in ("segmentation", "keypoints")
    )
    columns, rles = _columns(objects, label, images, masked)
    areas = np.array([x["area"] for x in objects], np.float64)
    crowd = np.array([x.get("iscrowd", 0) for x in objects], bool)
    truths = Truths(*columns, areas, crowd, rles)
    (ids, labels, boxes), rles = _columns(found, label, images, masked)
    scores = np.array([x["score"] for x in found], np.float64)
    detected = Results(ids, labels, scores, boxes, rles)
    if pointed:
        truths = truths._replace(
            keypoints=_keypoints(objects), num_keypoints=_labelled(objects)
        )
        detected = detected._replace(keypoints=_keypoints(found))
    return truths, detected, np.array(sorted(images), np.int64), categories


def _check_images(found: list[dict], images: dict) -> None:
    """Raises ValueError for a result of an image outside the ground truth."""
    for i, result in enumerate(found):
        if result["image_id"] not in images:
            raise ValueError(
                f"result {i} is of image {result['image_id']!r}, which is none of the "
                f"{len(images)} images of the ground truth; evaluate against the "
                "annotations of the images detected on, or drop the result."
            )


def _content(source: Any) -> Any:
    """The source itself, or the content of the JSON file at that path."""
    if isinstance(source, str | Path):
        return json.loads(Path(source).read_text())
    return source


def _columns(
    records: list[dict], label: dict[int, int], images: dict, masked: bool
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], list | None]:
    """(image ids, labels, boxes), masks; missing boxes come from masks or keypoints.

    As in pycocotools the first record decides whether there are boxes.
    """
    rles = [_rle(x["segmentation"], images[x["image_id"]]) for x in records * masked]
    if rles and not records[0].get("bbox"):
        boxes = np.array([rle.toBbox(mask) for mask in rles])
    elif records and "keypoints" in records[0] and not records[0].get("bbox"):
        points = _keypoints(records)[..., :2]
        corner = points.min(axis=1)
        boxes = np.concatenate([corner, points.max(axis=1) - corner], axis=1)
    else:
        boxes = np.array([x["bbox"] for x in records], np.float64).reshape(-1, 4)
    ids = np.array([x["image_id"] for x in records], np.int64)
    labels = np.array([label[x["category_id"]] for x in records], np.int64)
    return (ids, labels, boxes), rles if masked else None


def _keypoints(records: list[dict]) -> np.ndarray:
    """Keypoints [n k 3] of all records."""
    counts = {len(x["keypoints"]) for x in records}
    if len(counts) > 1 or any(count % 3 for count in counts):
        raise ValueError(
            f"keypoints are lists of {sorted(counts)} numbers, expected one "
            "multiple of 3 for all records: x, y and visibility of each keypoint."
        )
    flat = np.array([x["keypoints"] for x in records], np.float64)
    return flat.reshape(len(records), -1, 3) if records else np.zeros((0, 0, 3))


def _labelled(objects: list[dict]) -> np.ndarray:
    """The declared, else the visible number of keypoints of each object."""
    visible = (_keypoints(objects)[..., 2] > 0).sum(axis=1)
    said = [x.get("num_keypoints", n) for x, n in zip(objects, visible, strict=True)]
    return np.array(said, np.int64)


def _rle(segmentation: Any, image: dict) -> dict:
    """Compressed run lengths of polygons, of plain run lengths, or of themselves."""
    if isinstance(segmentation, list):
        parts = rle.frPyObjects(segmentation, image["height"], image["width"])
        return rle.merge(parts)
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, image["height"], image["width"])
    return segmentation
