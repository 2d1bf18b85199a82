"""Metrics of label maps against scikit-learn, loops, and by hand."""

import time

import cv2
import numpy as np
import pytest
import sklearn.metrics

from detjax.eval import boundaries, depth, semantic


def maps(classes, seed=0, shape=(37, 41)):
    kind = np.uint8 if classes < 256 else np.uint16
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, classes, (2, *shape)).astype(kind)
    return truth, found, rng.random(shape) < 0.8


@pytest.mark.parametrize("classes", [2, 21, 255, 300])
def test_the_matrix_is_that_of_scikit_learn(classes):
    truth, found, valid = maps(classes)
    expected = sklearn.metrics.confusion_matrix(
        truth[valid], found[valid], labels=range(classes)
    )
    got = semantic.confusion(truth, found, valid, classes)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)
    device = semantic.confusion_on_device(truth, found, valid, classes)
    np.testing.assert_array_equal(device, expected)
    counts = semantic.label_counts(truth, valid, classes)
    np.testing.assert_array_equal(counts, expected.sum(axis=1))


def test_what_is_ignored_may_be_any_label(monkeypatch):
    truth, found, valid = maps(5)
    expected = semantic.confusion(truth, found, valid, 5)
    junk = np.where(valid, truth, 255).astype(np.uint8)
    np.testing.assert_array_equal(semantic.confusion(junk, found, valid, 5), expected)
    wide = junk.astype(np.uint16)
    monkeypatch.setattr(semantic, "PIECE", 100)
    wide[~valid] = 65535
    np.testing.assert_array_equal(semantic.confusion(wide, found, valid, 5), expected)


def test_pieces_add_up(monkeypatch):
    truth, found, valid = maps(21)
    whole = semantic.confusion(truth, found, valid, 21)
    monkeypatch.setattr(semantic, "HISTOGRAM", 100)
    np.testing.assert_array_equal(semantic.confusion(truth, found, valid, 21), whole)


def test_rates_are_those_of_scikit_learn():
    truth, found, valid = maps(6)
    # A class that is nowhere, and one that is only found.
    truth[truth == 5] = 0
    found[found == 5] = 1
    truth[truth == 4] = 0
    t, f = truth[valid], found[valid]
    matrix = semantic.confusion(truth, found, valid, 6)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        t, f, labels=range(5), zero_division=0
    )
    ours = semantic.rates(matrix)
    np.testing.assert_allclose(np.nan_to_num(ours.precision)[:5], precision)
    np.testing.assert_allclose(np.nan_to_num(ours.recall)[:5], recall)
    np.testing.assert_allclose(np.nan_to_num(ours.f1)[:5], f1)
    iou = sklearn.metrics.jaccard_score(
        t, f, labels=range(5), average=None, zero_division=0
    )
    np.testing.assert_allclose(ours.iou[:5], iou)
    assert np.isnan(ours.iou[5])
    for kind, of in (("macro", semantic.macro), ("micro", semantic.micro)):
        expected = sklearn.metrics.precision_recall_fscore_support(
            t, f, labels=range(5), average=kind, zero_division=0
        )[:3]
        np.testing.assert_allclose([*of(matrix).values()], expected)
    assert semantic.pixel_accuracy(matrix) == sklearn.metrics.accuracy_score(t, f)
    some = [c for c in range(5) if (t == c).any()]
    assert semantic.mean_accuracy(matrix) == pytest.approx(recall[some].mean())
    weighted = sklearn.metrics.jaccard_score(
        t, f, labels=some, average="weighted", zero_division=0
    )
    assert semantic.frequency_weighted_iou(matrix) == pytest.approx(weighted)


def test_a_matrix_by_hand():
    matrix = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    rates = semantic.rates(matrix)
    np.testing.assert_allclose(rates.iou, [3 / 6, 4 / 7, np.nan])
    np.testing.assert_allclose(rates.recall, [3 / 4, 4 / 6, np.nan])
    assert semantic.mean_iou(matrix) == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert semantic.pixel_accuracy(matrix) == 0.7
    expected = 0.4 * 3 / 6 + 0.6 * 4 / 7
    assert semantic.frequency_weighted_iou(matrix) == pytest.approx(expected)
    nothing = np.zeros((3, 3), int)
    assert np.isnan(semantic.mean_iou(nothing))
    assert np.isnan(semantic.frequency_weighted_iou(nothing))
    assert np.isnan(semantic.pixel_accuracy(nothing))


def slow_scores(truth, found, valid, reach):
    """The boundary F score of each class, pixel by pixel."""

    def edge(labels, y, x):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]
            if inside and valid[v, u] and labels[v, u] != labels[y, x]:
                return True
        return False

    def points(labels, label):
        places = np.argwhere((labels == label) & valid)
        return [(y, x) for y, x in places.tolist() if edge(labels, y, x)]

    def near(some, others):
        return np.mean(
            [
                any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others)
                for y, x in some
            ]
        )

    scores = {}
    for label in range(4):
        real, said = points(truth, label), points(found, label)
        if real and said:
            p, r = near(said, real), near(real, said)
            scores[label] = 2 * p * r / (p + r) if p + r else 0.0
        elif real or said:
            scores[label] = 0.0
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_boundary_scores_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    truth, found = (
        np.kron(rng.integers(0, 4, (5, 6)), np.ones((5, 5), int)).astype(np.uint8)
        for _ in range(2)
    )
    found = np.where(rng.random(truth.shape) < 0.6, truth, found).astype(np.uint8)
    valid = rng.random(truth.shape) < 0.95
    tolerance = 0.05
    reach = np.ceil(tolerance * np.hypot(*truth.shape))
    got = {
        one.label: one.f1 for one in boundaries.scores(truth, found, valid, tolerance)
    }
    assert got == pytest.approx(slow_scores(truth, found, valid, reach))


def transformed_scores(truth, found, valid, reach):
    """The boundary F score of each class, by distances to all pixels of an outline."""
    real, said = (
        np.where(boundaries.outlines(labels, valid), labels.astype(int), -1)
        for labels in (truth, found)
    )

    def share(points, others):
        away = cv2.distanceTransform(
            (~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        return (away[points] <= reach + 1e-3).mean()

    scores = {}
    for label in np.union1d(real[real >= 0], said[said >= 0]).tolist():
        one, other = real == label, said == label
        p, r = (
            (share(other, one), share(one, other))
            if one.any() and other.any()
            else (0, 0)
        )
        scores[label] = 2 * p * r / (p + r) if p + r else 0
    return scores


def spread(classes, shape, cell, seed):
    """Blocks of classes, each of which is all over the picture."""
    few = np.random.default_rng(seed).integers(
        0, classes, np.divide(shape, cell).astype(int)
    )
    return np.kron(few, np.ones((cell, cell), int)).astype(np.uint16)


@pytest.mark.parametrize(("seed", "tolerance"), [(0, 0.0), (1, 0.004), (2, 0.03)])
def test_boundary_scores_are_those_of_distances(seed, tolerance):
    truth, found = (spread(7, (200, 300), 20, seed + k) for k in (0, 9))
    moved = np.roll(truth, (1, 3), (0, 1))
    found[:, :150] = moved[:, :150]
    found[:20, :] = 300 + seed
    valid = np.random.default_rng(seed).random(truth.shape) < 0.99
    reach = np.ceil(tolerance * np.hypot(*truth.shape))
    got = [*boundaries.scores(truth, found, valid, tolerance)]
    assert {one.label: one.f1 for one in got} == pytest.approx(
        transformed_scores(truth, found, valid, reach), abs=1e-12
    )


def test_boundaries_of_many_classes_cost_one_search():
    truth, found = (spread(60, (600, 800), 40, seed) for seed in (0, 1))
    valid = np.ones(truth.shape, bool)
    begun = time.process_time()
    slow = transformed_scores(truth, found, valid, 8)
    middle = time.process_time()
    got = {one.label: one.f1 for one in boundaries.scores(truth, found, valid)}
    took = time.process_time() - middle
    assert got == pytest.approx(slow)
    assert took < (middle - begun) / 3


def test_boundaries_within_the_tolerance_are_found():
    truth = np.zeros((60, 80), np.uint8)
    truth[20:40, 20:50] = 1
    moved = np.roll(truth, 2, axis=1)
    everywhere = np.ones(truth.shape, bool)
    assert [s.f1 for s in boundaries.scores(truth, moved, everywhere, 0.02)] == [1, 1]
    away = np.roll(truth, 15, axis=1)
    assert all(s.f1 < 0.8 for s in boundaries.scores(truth, away, everywhere, 0.02))
    none = np.zeros_like(truth)
    assert [*boundaries.scores(truth, none, everywhere)] == [(0, 0.0), (1, 0.0)]
    assert [*boundaries.scores(none, none, everywhere)] == []


def test_depth_by_hand():
    truth = np.float32([[1, 2, 4, 0, 9]])
    found = np.float32([[1, 3, -1, 5, 0]])
    valid = np.array([[True, True, True, True, False]])
    got = depth.metrics(depth.sums(truth, found, valid))
    assert got["mae"] == pytest.approx((0 + 1 + 5 + 5) / 4)
    assert got["rmse"] == pytest.approx(np.sqrt((0 + 1 + 25 + 25) / 4))
    assert got["abs_rel"] == pytest.approx((0 + 1 / 2 + 5 / 4) / 3)
    assert got["sq_rel"] == pytest.approx((0 + 1 / 2 + 25 / 4) / 3)
    log = np.log(1.5)
    assert got["log_rmse"] == pytest.approx(np.sqrt(log**2 / 2))
    assert got["log10"] == pytest.approx(np.log10(1.5) / 2)
    assert got["silog"] == pytest.approx(log / 2)
    # 1.25^2 is 1.5625.
    assert [got[f"delta{k}"] for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_depth_adds_up_and_is_undefined_of_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    truth, found = rng.uniform(0.5, 9, (2, 20, 30)).astype(np.float32)
    valid = rng.random(truth.shape) < 0.7
    whole = depth.sums(truth, found, valid)
    monkeypatch.setattr(depth, "PIECE", 50)
    np.testing.assert_allclose(depth.sums(truth, found, valid), whole)
    parts = [
        depth.sums(truth[i : i + 5], found[i : i + 5], valid[i : i + 5])
        for i in (0, 5, 10, 15)
    ]
    np.testing.assert_allclose(sum(parts), whole)
    t, y = truth[valid].astype(float), found[valid].astype(float)
    got = depth.metrics(whole)
    d = np.log(y) - np.log(t)
    assert got["silog"] == pytest.approx(np.sqrt((d**2).mean() - d.mean() ** 2))
    assert got["delta1"] == np.mean(np.maximum(y / t, t / y) < 1.25)
    assert all(np.isnan(v) for v in depth.metrics(np.zeros(len(depth.SUMS))).values())
    scaled = depth.metrics(depth.sums(truth, 3 * truth, valid))
    assert scaled["silog"] == pytest.approx(0, abs=1e-3)
    assert scaled["log_rmse"] == pytest.approx(np.log(3), rel=1e-5)
    broken = np.where(valid, np.nan, 1).astype(np.float32)
    assert np.isfinite(depth.metrics(depth.sums(truth, broken, valid))["mae"])
