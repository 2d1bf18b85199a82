"""COCO's keypoint AP and AR against pycocotools and cases worked by hand."""

import json

import numpy as np
import pytest
from eval_cases import oracle, posed, to_coco

from detjax.eval import coco, coco_json, matching, overlaps
from detjax.eval.columns import Results, Truths, take

TOLERANCE = 1e-9
NAMES = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
MMPOSE, FASTER = "keypoints_mmpose_coco", "metric_faster_coco_eval"
PUBLISHED = {
    "mmpose": (
        MMPOSE,
        "tests/data/coco/test_coco.json",
        "example_coco_preds.json",
        "example_coco_preds.json vs test_coco.json (keypoints)",
    ),
    "faster": (
        FASTER,
        "tests/keypoints_dataset/gt_dataset.json",
        "tests/keypoints_dataset/dt_dataset.json",
        "keypoints_dataset (keypoints, COCO sigmas)",
    ),
}


def numbers(case, num_classes=2, **kwargs):
    truths, results, image_ids = case
    return coco.evaluate(
        truths,
        results,
        image_ids=image_ids,
        num_classes=num_classes,
        kind="keypoints",
        **kwargs,
    )


def agree(case, **kwargs):
    """Asserts that all ten numbers are pycocotools's; returns them."""
    got = numbers(case, **kwargs)
    expected = oracle(*to_coco(*case, 2), "keypoints", **kwargs).stats
    assert list(got) == NAMES
    np.testing.assert_allclose(list(got.values()), expected, rtol=0, atol=TOLERANCE)
    return got


def person(found, visible=(2, 2), truth=((0, 0), (60, 60)), **columns):
    """(truths, results, ids): one of two keypoints on 100 x 100 pixels, and `found`."""
    found = np.array(found, float).reshape(-1, 2, 2)
    n, zero = len(found), np.zeros(1, int)
    points = np.concatenate([truth, np.array(visible, float)[:, None]], axis=1)
    box = np.array([[0.0, 0, 100, 100]])
    truths = Truths(zero, zero, box, np.array([1e4]), zero > 0, keypoints=points[None])
    results = Results(
        np.zeros(n, int),
        np.zeros(n, int),
        np.arange(n, 0, -1) / n,
        np.repeat(box, n, 0),
        keypoints=found,
    )
    return truths._replace(**columns), results, [0]


@pytest.mark.parametrize("case", PUBLISHED.values(), ids=PUBLISHED)
def test_published_numbers(data_dir, case):
    name, truth, found, key = case
    folder = data_dir / name
    truths, results, ids, categories = coco_json.read(folder / truth, folder / found)
    got = numbers((truths, results, ids), len(categories))
    expected = json.loads((folder / "EXPECTED.json").read_text())[key]
    assert got == pytest.approx(expected, abs=TOLERANCE, rel=0)


def test_whole_bodies_count_what_the_file_says(data_dir):
    """Of 133 keypoints a file's own number, not the visible ones, decides."""
    folder = data_dir / MMPOSE
    truth = json.loads(
        (folder / "tests/data/coco/test_keypoint_partition_metric.json").read_text()
    )
    rng = np.random.default_rng(0)
    found = []
    for i, row in enumerate(truth["annotations"]):
        points = np.reshape(row["keypoints"], (-1, 3)) + rng.normal(size=(133, 3)) * 3
        found.append(
            {
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "keypoints": points.ravel().tolist(),
                "score": i / 20,
            }
        )
        row["num_keypoints"] *= i % 3 > 0
    sigmas = rng.uniform(0.02, 0.1, 133)
    case = coco_json.read(truth, found)
    got = numbers(case[:3], 1, sigmas=sigmas)
    expected = oracle(truth, found, "keypoints", sigmas=sigmas).stats
    np.testing.assert_allclose(list(got.values()), expected, rtol=0, atol=TOLERANCE)
    assert got["AP"] < got["AP50"]


@pytest.mark.parametrize("seed", range(8))
def test_ties_crowds_and_few_visible_points(seed):
    case = posed(seed)
    got = agree(case)
    assert 0 < got["AP"] < got["AP50"] < 1
    assert np.unique(case[1].image_ids, return_counts=True)[1].max() > 20


@pytest.mark.parametrize("k", [1, 3, 9])
def test_other_numbers_of_keypoints(k):
    sigmas = np.linspace(0.03, 0.1, k)
    got = agree(posed(20 + k, k), sigmas=sigmas)
    assert got != numbers(posed(20 + k, k), sigmas=2 * sigmas)


def test_nothing_to_detect_or_nothing_detected():
    truths, results, ids = posed(0)
    nothing = take(results, np.zeros(0, int))
    got = agree((truths, nothing, ids))
    assert got["AP"] == got["AR"] == 0
    nobody = take(truths, np.zeros(0, int))
    assert set(numbers((nobody, results, ids)).values()) == {-1.0}
    assert set(numbers((nobody, nothing, ids)).values()) == {-1.0}


def test_only_truths_without_a_visible_keypoint():
    truths, results, ids = posed(1)
    blind = truths.keypoints * np.array([1, 1, 0])
    got = agree((truths._replace(keypoints=blind), results, ids))
    assert set(got.values()) == {-1.0}


def test_small_chunks_change_nothing(monkeypatch):
    whole = numbers(posed(2))
    monkeypatch.setattr(matching, "CHUNK", 7)
    assert numbers(posed(2)) == whole


def similarity(case, sigmas=(0.05, 0.1)):
    pair = np.zeros(1, int)
    return overlaps.similarity(*case[:2], "keypoints", sigmas)(pair, pair).item()


def test_similarity_worked_by_hand():
    # 10 pixels off: (2 sigma)^2 is .01 and .04 of an area of 100^2 pixels.
    one = [[10, 0], [60, 60]]
    assert similarity(person(one)) == pytest.approx((np.exp(-100 / 200) + 1) / 2)
    both = [[10, 0], [60, 50]]
    expected = (np.exp(-100 / 200) + np.exp(-100 / 800)) / 2
    assert similarity(person(both)) == pytest.approx(expected)
    assert similarity(person(both, visible=(1, 0))) == pytest.approx(np.exp(-0.5))


def test_a_truth_without_visible_keypoints_absorbs_what_is_around_it():
    inside, outside = [[-99, 0], [0, 199]], [[0, 0], [230, 0]]
    assert similarity(person(inside, visible=(0, 0))) == 1
    expected = (1 + np.exp(-(30**2) / 800)) / 2
    assert similarity(person(outside, visible=(0, 0))) == pytest.approx(expected)


def test_at_most_twenty_of_an_image_and_class_count():
    wrong, right = [[500, 500], [500, 500]], [[0, 0], [60, 60]]
    sigmas = (0.05, 0.1)
    assert numbers(person([*[wrong] * 19, right]), sigmas=sigmas)["AR"] == 1
    late = person([*[wrong] * 20, right])
    assert numbers(late, sigmas=sigmas)["AR"] == 0
    assert numbers(late, sigmas=sigmas, max_detections=(1, 30))["AR"] == 1


def test_visibility_decides_where_the_file_says_nothing():
    case = person([[[0, 0], [60, 60]]], visible=(0, 0))
    assert numbers(case, sigmas=(0.05, 0.1))["AP"] == -1
    said = case[0]._replace(num_keypoints=np.array([2]))
    assert numbers((said, *case[1:]), sigmas=(0.05, 0.1))["AP"] == 1


def test_errors_say_what_and_where():
    truths, results, ids = posed(0, 5)
    with pytest.raises(ValueError, match=r"5 keypoints, results 5, .* 17 sigmas"):
        numbers((truths, results, ids))
    fewer = results._replace(keypoints=results.keypoints[:, :4])
    with pytest.raises(ValueError, match="have 5 keypoints, results 4"):
        numbers((truths, fewer, ids), sigmas=np.ones(5))
    none = results._replace(keypoints=None)
    with pytest.raises(ValueError, match="Results carry no keypoints"):
        numbers((truths, none, ids))
    ground_truth, found = to_coco(truths, results, ids, 2)
    found[1]["keypoints"] = found[1]["keypoints"][:-1]
    with pytest.raises(ValueError, match=r"lists of \[14, 15\] numbers"):
        coco_json.read(ground_truth, found)


def test_keypoints_are_read_only_where_all_have_them():
    ground_truth, found = to_coco(*posed(3), 2)
    truths, results, _, _ = coco_json.read(ground_truth, found)
    assert truths.keypoints.shape[1:] == results.keypoints.shape[1:] == (17, 3)
    del found[4]["keypoints"]
    truths, results, _, _ = coco_json.read(ground_truth, found)
    assert truths.keypoints is None and results.keypoints is None


def test_a_result_without_a_box_gets_one_around_its_keypoints():
    truths, results, ids = posed(4)
    ground_truth, found = to_coco(truths, results, ids, 2)
    for row in found:
        del row["bbox"]
    read = coco_json.read(ground_truth, found)[1]
    np.testing.assert_array_equal(read.boxes, results.boxes)
