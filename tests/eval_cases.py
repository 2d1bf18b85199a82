"""Made-up detection data sets of any size, and COCO's own evaluation code as oracle."""

import contextlib
import copy
import io
import time

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detjax.eval.columns import Results, Truths
from detjax.tasks.detection.restore import Found

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
NAMES += ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def synthetic(
    num_images: int, num_truths: int, num_detections: int, num_classes: int, seed: int
) -> tuple[Truths, Results, np.ndarray]:
    """(truths, results, image_ids) as a trained detector might leave them.

    Classes follow a steep distribution, sizes a log-uniform one; 1 % of the truths are
    crowds. Three detections in five are shifted copies of a truth, a tenth of them of
    the wrong class; the others are noise in a class that the image has.
    """
    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.permutation(4 * num_images)[:num_images])
    images = rng.integers(0, num_images, num_truths)
    share = 1 / np.arange(1, num_classes + 1)
    labels = rng.choice(num_classes, num_truths, p=share / share.sum())
    size = np.exp(rng.uniform(np.log(8), np.log(400), (num_truths, 2)))
    boxes = np.concatenate([rng.uniform(0, 240, (num_truths, 2)), size], 1).round(2)
    areas = size.prod(1) * rng.uniform(0.4, 1, num_truths)
    crowd = rng.random(num_truths) < 0.01
    truths = Truths(image_ids[images], labels, boxes, areas, crowd)

    source = rng.integers(0, num_truths, num_detections)
    noise = rng.random(num_detections) < 0.4
    spread = rng.exponential(0.12, (num_detections, 1)) + noise[:, None]
    corner = (
        boxes[source, :2]
        + rng.normal(size=(num_detections, 2)) * spread * (size[source])
    )
    extent = size[source] * np.exp(rng.normal(size=(num_detections, 2)) * spread)
    wrong = ~noise & (rng.random(num_detections) < 0.1)
    guess = rng.integers(0, num_classes, num_detections)
    results = Results(
        image_ids[images[source]],
        np.where(wrong, guess, labels[source]),
        np.clip(rng.beta(2, 5, num_detections) + 0.3 * ~noise, 0, 1).round(4),
        np.concatenate([corner, extent], 1).round(2),
    )
    return truths, results, image_ids


def crowded(
    seed: int, kind: str = "bbox", num_detections: int = 400
) -> tuple[Truths, Results, np.ndarray]:
    """A small case full of ties: in scores, overlaps, and areas on the range limits.

    Image 5 has no truths, image 7 has no detections, image 9 has neither; class 3 has
    no truths, class 4 has only crowds, class 5 has no detections.
    """
    rng = np.random.default_rng(seed)
    image_ids = np.array([9, 5, 2, 7, 3, 11])

    def records(n, absent_image, absent_class):
        ids = rng.choice(image_ids[~np.isin(image_ids, [absent_image, 9])], n)
        labels = rng.choice(np.setdiff1d(np.arange(6), absent_class), n)
        corner = rng.integers(0, 4, (n, 2)) * 4
        size = rng.choice([24, 28, 32, 36, 64, 96, 100], (n, 2))
        size[rng.random(n) < 0.5] = rng.choice([32, 96])
        return ids, labels, np.concatenate([corner, size], 1).astype(float)

    ids, labels, boxes = records(80, 5, 3)
    crowd = (rng.random(80) < 0.15) | (labels == 4)
    areas = boxes[:, 2:].prod(1)
    truths = Truths(ids, labels, boxes, areas, crowd, _shapes(boxes, rng, kind))
    ids, labels, boxes = records(num_detections, 7, 5)
    scores = rng.integers(0, 6, num_detections) / 5
    results = Results(ids, labels, scores, boxes, _shapes(boxes, rng, kind))
    return truths, results, image_ids


def _shapes(boxes, rng, kind):
    """Run lengths of the boxes with a random bite out of each."""
    if kind != "segm":
        return None
    masks = np.zeros((128, 128, len(boxes)), np.uint8, order="F")
    for n, (x, y, w, h) in enumerate(boxes.astype(int)):
        masks[y : y + h, x : x + w, n] = 1
        if rng.random() < 0.5:
            masks[y : y + 8, x : x + int(rng.integers(1, 20)), n] = 0
    return rle.encode(masks)


def posed(
    seed: int, k: int = 17, num_images: int = 12
) -> tuple[Truths, Results, np.ndarray]:
    """A small case of keypoints on a coarse lattice, so that similarities tie.

    A sixth of the truths has no visible keypoint, a third has three at most, some are
    crowds; some truths and many results are copies; some images have more than 20
    results. The last image has neither, the one before no truths.
    """
    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.permutation(5 * num_images)[:num_images])
    m, n = 8 * num_images, 30 * num_images
    corner = rng.integers(0, 5, (m, 1, 2)) * 16.0
    points = corner + rng.integers(0, 9, (m, k, 2)) * 8.0
    most = rng.choice([0, 1, 2, 3, k, k], m)[:, None]
    visible = rng.permuted(np.arange(k) < np.ones((m, 1)) * most, axis=1)
    keypoints = np.concatenate([points, visible[..., None] * 2.0], axis=-1)
    boxes = np.concatenate([corner[:, 0], np.full((m, 2), 64.0)], axis=1)
    boxes[:, 2:] += rng.integers(0, 5, (m, 2)) * 16
    copies = rng.integers(0, m, m // 8)
    keypoints[: len(copies)], boxes[: len(copies)] = keypoints[copies], boxes[copies]
    truths = Truths(
        image_ids[rng.integers(0, num_images - 2, m)],
        rng.integers(0, 2, m),
        boxes,
        boxes[:, 2:].prod(1) * rng.choice([0.1, 0.5, 1.0], m),
        rng.random(m) < 0.1,
        keypoints=keypoints,
    )
    source = rng.integers(0, m, n)
    found = keypoints[source, :, :2]
    # Exact points and points that are far off: similarities are simple fractions.
    off = rng.random((n, k, 1)) < rng.choice([0, 0.25, 0.5, 0.75], n)[:, None, None]
    found = found + off * rng.choice([4.0, 8.0, 1000.0], (n, 1, 1))
    score = rng.integers(0, 8, n) / 7
    ids = np.where(rng.random(n) < 0.1, image_ids[-2], truths.image_ids[source])
    low, high = found.min(axis=1), found.max(axis=1)
    results = Results(
        ids,
        np.where(rng.random(n) < 0.1, 1, truths.labels[source]),
        score,
        np.concatenate([low, high - low], axis=1),
        keypoints=np.concatenate([found, np.ones((n, k, 1))], axis=-1),
    )
    return truths, results, image_ids


def to_coco(truths, results, image_ids, num_classes):
    """(ground truth, results) in COCO's JSON form, category c + 1 for class c."""

    def plain(records, **more):
        rles = records.rles or [None] * len(records.labels)
        columns = zip(
            records.image_ids, records.labels, records.boxes, rles, strict=True
        )
        rows = [
            {"image_id": int(i), "category_id": int(c) + 1}
            | ({"bbox": box.tolist()} if shape is None else {"segmentation": shape})
            for i, c, box, shape in columns
        ]
        if records.keypoints is not None:
            more["keypoints"] = np.array([x.ravel() for x in records.keypoints])
        for name, values in more.items():
            for row, value in zip(rows, values.tolist(), strict=True):
                row[name] = value
        return rows

    annotations = plain(truths, area=truths.areas, iscrowd=truths.crowd.astype(int))
    for n, row in enumerate(annotations):
        row["id"] = n + 1
        if truths.keypoints is not None:
            row["num_keypoints"] = int((truths.keypoints[n, :, 2] > 0).sum())
    ground_truth = {
        "images": [{"id": int(i), "height": 128, "width": 128} for i in image_ids],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(num_classes)],
        "annotations": annotations,
    }
    return ground_truth, plain(results, score=results.scores)


class _Ignoring(COCOeval):
    """COCO's evaluation that keeps the annotations' own `ignore` as well."""

    def _prepare(self):
        own = {n: ann.get("ignore", 0) for n, ann in self.cocoGt.anns.items()}
        super()._prepare()
        for n, ann in self.cocoGt.anns.items():
            ann["ignore"] = int(own[n] or ann["ignore"])


def oracle(
    ground_truth,
    results,
    kind="bbox",
    max_detections=None,
    ignore=False,
    sigmas=None,
):
    """COCOeval after evaluation, and the `seconds` that took without its preparations.

    The twelve numbers (ten of keypoints) are in `stats`, for the usual limits only.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        if results:
            found = truth.loadRes(copy.deepcopy(results))
        else:  # loadRes looks at the first of them
            found = COCO()
            found.dataset = {**ground_truth, "annotations": []}
            found.createIndex()
        evaluation = (_Ignoring if ignore else COCOeval)(truth, found, kind)
        if max_detections is not None:
            evaluation.params.maxDets = list(max_detections)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        start = time.perf_counter()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.seconds = time.perf_counter() - start
        if max_detections is None:
            evaluation.summarize()
    return evaluation


def collected(meter, places, rows, category_ids):
    """The parts of a meter to which `rows` were added, entries of a results file."""
    for place, row in zip(places, rows, strict=True):
        x, y, w, h = row["bbox"]
        found = Found(
            boxes=np.array([[x, y, x + w, y + h]]),
            scores=np.array([row["score"]]),
            labels=np.array([list(category_ids).index(row["category_id"])]),
            rles=[row["segmentation"]] if "segmentation" in row else None,
            mask_scores=np.array([row["mask_score"]]) if "mask_score" in row else None,
            keypoints=np.reshape(row["keypoints"], (1, -1, 3))
            if "keypoints" in row
            else None,
        )
        meter.add(place, found)
    return meter.parts
