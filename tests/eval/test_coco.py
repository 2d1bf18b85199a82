"""COCO's AP and AR against pycocotools, published numbers and cases worked by hand."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from eval_cases import NAMES, crowded, oracle, synthetic, to_coco

from detjax.eval import coco, coco_json, matching
from detjax.eval.columns import Results, Truths, take

DATA = Path(os.environ.get("DETJAX_DATA", Path(__file__).parents[3] / "shared/data"))
FIXTURES = DATA / "metric_faster_coco_eval"
TOLERANCE = 1e-9


def agree(case, num_classes, kind="bbox"):
    """Asserts that all twelve numbers are pycocotools's; returns them."""
    truths, results, image_ids = case
    got = coco.evaluate(
        truths, results, image_ids=image_ids, num_classes=num_classes, kind=kind
    )
    stats = oracle(*to_coco(*case, num_classes), kind).stats
    assert list(got) == NAMES
    np.testing.assert_allclose(list(got.values()), stats, rtol=0, atol=TOLERANCE)
    return got


def one_image(truth_boxes, boxes, scores, **columns):
    """A case of one image and one class; `columns` are further fields of Truths."""
    zeros = np.zeros(len(truth_boxes), int)
    truth_boxes = np.array(truth_boxes, float).reshape(-1, 4)
    truths = Truths(
        zeros, zeros, truth_boxes, truth_boxes[:, 2:].prod(1), zeros > 0
    )._replace(**columns)
    zeros = np.zeros(len(boxes), int)
    boxes = np.array(boxes, float).reshape(-1, 4)
    return truths, Results(zeros, zeros, np.array(scores, float), boxes), [0]


def keep(records, chosen):
    """The chosen rows of Truths or Results."""
    return take(records, np.flatnonzero(chosen))


PUBLISHED = [
    # truths, results and kind of objects, and the key of their numbers
    (
        "cocoapi/instances_val2014_100.json",
        "cocoapi/instances_val2014_fakebbox100_results.json",
        "bbox",
        "instances_val2014_100.json + fakebbox100 (bbox)",
    ),
    (
        "cocoapi/instances_val2014_100.json",
        "cocoapi/instances_val2014_fakesegm100_results.json",
        "segm",
        "instances_val2014_100.json + fakesegm100 (segm)",
    ),
    (
        "gt_dataset.json",
        "dt_dataset.json",
        "segm",
        "dataset/gt_dataset.json + dt_dataset.json (segm)",
    ),
]


@pytest.mark.parametrize(
    ("truth", "found", "kind", "key"), PUBLISHED, ids=["bbox", "segm", "polygons"]
)
def test_published_numbers(truth, found, kind, key):
    if not FIXTURES.is_dir():
        pytest.skip(f"{FIXTURES} is absent (DETJAX_DATA names the data folder)")
    folder = FIXTURES / "tests/dataset"
    truths, results, image_ids, categories = coco_json.read(
        folder / truth, str(folder / found)
    )
    got = coco.evaluate(
        truths, results, image_ids=image_ids, num_classes=len(categories), kind=kind
    )
    expected = json.loads((FIXTURES / "EXPECTED.json").read_text())[key]
    assert got == pytest.approx(expected, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_ties_crowds_and_range_limits(seed, kind):
    agree(crowded(seed, kind), 6, kind)


def test_more_detections_than_the_limit():
    truths, results, image_ids = crowded(5, num_detections=4000)
    case = truths._replace(labels=truths.labels * 0), results, image_ids
    case = case[0], results._replace(labels=results.labels * 0), image_ids
    assert np.bincount(results.image_ids).max() > 200
    agree(case, 1)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_nothing_to_detect_or_nothing_detected(kind):
    truths, results, image_ids = crowded(0, kind)
    none = keep(truths, truths.labels < 0), keep(results, results.labels < 0)
    got = agree((truths, none[1], image_ids), 6, kind)
    assert got["AP"] == got["AR100"] == 0
    arguments = {"image_ids": image_ids, "num_classes": 6, "kind": kind}
    for found in (results, none[1]):
        assert set(coco.evaluate(none[0], found, **arguments).values()) == {-1.0}
    arguments["image_ids"] = []
    assert set(coco.evaluate(truths, results, **arguments).values()) == {-1.0}


def test_no_crowd_and_only_crowds():
    truths, results, image_ids = crowded(1)
    agree((truths._replace(crowd=truths.crowd & False), results, image_ids), 6)
    got = agree((truths._replace(crowd=truths.crowd | True), results, image_ids), 6)
    assert set(got.values()) == {-1.0}


def test_truths_that_only_absorb():
    truths, results, image_ids = crowded(2)
    ignore = np.random.default_rng(0).random(len(truths.labels)) < 0.3
    ground_truth, found = to_coco(truths, results, image_ids, 6)
    for row, value in zip(ground_truth["annotations"], ignore.tolist(), strict=True):
        row["ignore"] = int(value)
    expected = oracle(ground_truth, found, ignore=True)
    truths = truths._replace(ignore=ignore)
    got = coco.evaluate(truths, results, image_ids=image_ids, num_classes=6)
    np.testing.assert_allclose(
        list(got.values()), expected.stats, rtol=0, atol=TOLERANCE
    )
    plain = coco_json.read(ground_truth, found)[:2]
    assert got != coco.evaluate(*plain, image_ids=image_ids, num_classes=6)


@pytest.mark.parametrize("limits", [(1, 10, 100), (5,), (30, 2), (1, 10, 100, 1000)])
def test_curves_at_other_limits(limits):
    truths, results, image_ids = crowded(3, num_detections=1500)
    arguments = {"image_ids": image_ids, "num_classes": 6, "max_detections": limits}
    got = coco.curves(truths, results, **arguments)
    evaluation = oracle(*to_coco(truths, results, image_ids, 6), "bbox", limits).eval
    for ours, theirs in (
        (got.precision, evaluation["precision"][..., -1]),
        (got.recall, evaluation["recall"]),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    names = set(coco.evaluate(truths, results, **arguments))
    assert {name for name in names if name[2:].isdigit() and name[:2] == "AR"} == {
        f"AR{limit}" for limit in limits
    }


def test_per_class_averages_to_the_summary():
    truths, results, image_ids = crowded(4)
    arguments = {"image_ids": image_ids, "num_classes": 6}
    ap = coco.per_class(truths, results, **arguments)
    assert ap.shape == (6,)
    assert np.isnan(ap).tolist() == [False, False, False, True, True, False]
    assert ap[5] == 0
    summary = coco.evaluate(truths, results, **arguments)
    assert np.nanmean(ap) == pytest.approx(summary["AP"], abs=TOLERANCE)


def test_precision_worked_by_hand():
    far, near = [0, 0, 10, 10], [50, 50, 10, 10]
    case = one_image([far, near], [far, [90, 0, 9, 9], near], [0.9, 0.8, 0.7])
    got = coco.evaluate(*case[:2], image_ids=case[2], num_classes=1)
    # Recalls 0..0.5 (51 points) at precision 1, the other 50 at 2/3.
    assert got["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert got["AP"] == got["APs"] == pytest.approx(got["AP50"])
    assert (got["AR1"], got["AR10"], got["APm"]) == (0.5, 1.0, -1.0)


def test_ignored_truth_absorbs_once_and_crowd_always():
    box, other = [0, 0, 10, 10], [50, 50, 10, 10]
    truths, results, ids = one_image([box, other], [box, box, other], [0.9, 0.8, 0.7])
    first = np.array([True, False])

    def ap(**columns):
        changed = truths._replace(**columns)
        return coco.evaluate(changed, results, image_ids=ids, num_classes=1)["AP"]

    assert ap(crowd=first) == pytest.approx(1)
    assert ap(ignore=first) == pytest.approx(1 / 2)


def test_order_of_detections_and_images_is_irrelevant():
    truths, results, image_ids = synthetic(30, 200, 1500, 5, 0)
    scores = np.random.default_rng(1).permutation(1500) / 1500
    results = results._replace(scores=scores)
    got = coco.evaluate(truths, results, image_ids=image_ids, num_classes=5)
    shuffled = take(results, np.random.default_rng(2).permutation(1500))
    again = coco.evaluate(truths, shuffled, image_ids=image_ids[::-1], num_classes=5)
    assert got == again


def test_only_the_listed_images_count():
    truths, results, image_ids = crowded(6)
    few = image_ids[2:]
    got = coco.evaluate(truths, results, image_ids=few, num_classes=6)
    case = (
        keep(truths, np.isin(truths.image_ids, few)),
        keep(results, np.isin(results.image_ids, few)),
    )
    assert got == agree((*case, few), 6)


def test_small_chunks_change_nothing(monkeypatch):
    cases = {kind: crowded(7, kind) for kind in ("bbox", "segm")}

    def numbers():
        return [
            coco.evaluate(*case[:2], image_ids=case[2], num_classes=6, kind=kind)
            for kind, case in cases.items()
        ]

    whole = numbers()
    monkeypatch.setattr(matching, "CHUNK", 7)
    assert numbers() == whole


def test_plain_columns_of_other_types_do():
    truths, results, image_ids = crowded(8)
    expected = coco.evaluate(truths, results, image_ids=image_ids, num_classes=6)
    truths = truths._replace(
        labels=truths.labels.tolist(), crowd=truths.crowd.astype(int)
    )
    results = results._replace(boxes=results.boxes.astype(np.float32))
    got = coco.evaluate(truths, results, image_ids=image_ids.tolist(), num_classes=6)
    assert got == expected


def test_reading_json_maps_sparse_categories():
    square, image = [[0, 0, 0, 8, 8, 8, 8, 0]], {"id": 3, "height": 10, "width": 10}
    plain = {"size": [10, 10], "counts": [0, 50, 50]}
    truth = {
        "images": [image],
        "categories": [{"id": 90, "name": "b"}, {"id": 7, "name": "a"}],
        "annotations": [
            {"image_id": 3, "category_id": c, "bbox": [0, 0, 8, 8], "area": 64} | more
            for c, more in (
                (90, {"segmentation": square}),
                (7, {"segmentation": plain, "iscrowd": 1}),
            )
        ],
    }
    packed = coco_json.read(truth, [])[0].rles[0]
    found = [{"image_id": 3, "category_id": 90, "score": 0.5, "segmentation": packed}]
    found.append({**found[0], "category_id": 8})
    truths, results, image_ids, categories = coco_json.read(truth, found)
    assert [c["name"] for c in categories] == ["a", "b"]
    assert truths.labels.tolist() == [1, 0] and results.labels.tolist() == [1]
    assert truths.crowd.tolist() == [False, True] and image_ids.tolist() == [3]
    assert results.boxes.tolist() == [[0, 0, 8, 8]]
    got = coco.per_class(
        truths, results, image_ids=image_ids, num_classes=2, kind="segm"
    )
    np.testing.assert_allclose(got, [np.nan, 1])


def test_errors_say_what_and_where():
    truths, results, image_ids = crowded(0)
    arguments = {"image_ids": image_ids, "num_classes": 6}
    ground_truth, found = to_coco(truths, results, image_ids, 6)
    found[2]["image_id"] = 77
    with pytest.raises(ValueError, match="result 2 is of image 77"):
        coco_json.read(ground_truth, found)
    with pytest.raises(ValueError, match=r"Truths \d+ \(image \d+\) has label 4"):
        coco.evaluate(truths, results, image_ids=image_ids, num_classes=4)
    with pytest.raises(
        ValueError,
        match="kind is 'masks', expected one of bbox, segm, oriented, keypoints",
    ):
        coco.evaluate(truths, results, kind="masks", **arguments)
    with pytest.raises(ValueError, match="Truths carry no masks"):
        coco.evaluate(truths, results, kind="segm", **arguments)
    truths, results, image_ids = crowded(0, "segm")
    halves = [{"size": [64, 256], "counts": r["counts"]} for r in results.rles]
    results = results._replace(rles=halves)
    with pytest.raises(ValueError, match=r"sizes \[\(64, 256\), \(128, 128\)\]"):
        coco.evaluate(truths, results, kind="segm", **arguments)


def test_a_twentieth_of_coco_agrees():
    agree(synthetic(250, 1839, 15_000, 80, 0), 80)


@pytest.mark.long
def test_twenty_times_as_fast_as_pycocotools():
    case = truths, results, image_ids = synthetic(5000, 36_781, 300_000, 80, 0)
    ground_truth, found = to_coco(*case, 80)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        got = coco.evaluate(truths, results, image_ids=image_ids, num_classes=80)
        seconds.append(time.perf_counter() - start)
    evaluation = oracle(ground_truth, found)
    np.testing.assert_allclose(
        list(got.values()), evaluation.stats, rtol=0, atol=TOLERANCE
    )
    assert evaluation.seconds > 20 * np.median(seconds)
