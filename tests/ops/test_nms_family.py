"""Every method of suppression against loops from the papers, and their properties."""

import functools
from typing import get_args

import jax
import numpy as np
import pytest

from detjax.ops import nms
from tests import reference_nms
from tests.ops.test_nms import dense_boxes, random_scores

NAMES = ("nms", "max_detections")
suppress = jax.jit(nms.suppress, static_argnames=NAMES)
every = pytest.mark.parametrize("method", nms.METHODS)
LOWERING = ("soft", "soft_linear", "matrix", "matrix_linear", "wbf")


def drawn(n, seed=0, classes=4, span=60.0, tied=False, invalid=0.2):
    rng = np.random.default_rng(seed)
    boxes, scores = dense_boxes(n, seed, span), random_scores(n, seed, tied)
    return boxes, scores, rng.integers(0, classes, n), rng.random(n) >= invalid


def check(
    method, boxes, scores, labels, valid, threshold=0.4, sigma=0.5, low=0.05, most=30
):
    got = suppress(
        boxes,
        scores,
        labels,
        valid,
        nms=method,
        threshold=threshold,
        sigma=sigma,
        score_threshold=low,
        max_detections=most,
    )
    expected = reference_nms.suppress(
        boxes, scores, labels, valid, method, threshold, sigma, low, most
    )
    count = len(expected)
    assert got.valid.tolist() == [i < count for i in range(most)]
    index = np.array([i for i, _, _ in expected], int)
    np.testing.assert_allclose(
        got.scores[:count], [s for _, s, _ in expected], rtol=2e-5, atol=1e-7
    )
    # Lowered scores may tie in one arithmetic and not in the other.
    close = np.isclose(np.diff(got.scores[:count]), 0, atol=1e-6)
    sure = ~(np.append(close, False) | np.append(False, close)) if count else close
    if method not in LOWERING:
        sure = np.ones(count, bool)
    np.testing.assert_array_equal(np.asarray(got.index)[:count][sure], index[sure])
    boxes = np.array([b for _, _, b in expected], np.float32).reshape(-1, 4)
    np.testing.assert_allclose(
        np.asarray(got.boxes)[:count][sure], boxes[sure], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(
        np.asarray(got.labels)[:count][sure], labels[index[sure]]
    )
    for rest in (got.boxes, got.scores, got.index, got.labels):
        assert not np.any(np.asarray(rest)[count:])
    return got


@every
@pytest.mark.parametrize("tied", [False, True])
def test_every_method_is_its_papers(method, tied):
    for seed, threshold in enumerate((0.2, 0.5, 0.8)):
        case = drawn(200, seed, span=40.0 + 40 * seed, tied=tied)
        check(method, *case, threshold=threshold, sigma=0.1 + 0.3 * seed)


@every
@pytest.mark.parametrize("classes", [1, 200])
def test_of_one_class_and_of_many(method, classes):
    check(method, *drawn(200, 5, classes, span=20.0), most=250)


@every
def test_of_five_thousand(method):
    check(method, *drawn(5000, 7, classes=40, span=900.0), low=0.3, most=100)


@every
def test_of_nothing(method):
    boxes, scores, labels, valid = drawn(7)
    check(method, boxes[:0], scores[:0], labels[:0], valid[:0])
    check(method, boxes, scores, labels, np.zeros(7, bool))
    check(method, boxes[:1], scores[:1], labels[:1], np.ones(1, bool))
    check(method, boxes, scores, labels, valid, most=1)
    check(method, boxes, 0 * scores, labels, valid)


@every
def test_copies_and_boxes_without_area(method):
    boxes, scores, labels, valid = drawn(40, 3, classes=2)
    boxes[10:20], scores[10:20] = boxes[:10], scores[:10]
    boxes[20:25, 2:] = boxes[20:25, :2]
    boxes[25:30, 2:] = boxes[25:30, :2] - 3
    got = check(method, boxes, scores, labels, valid)
    assert all(np.isfinite(x).all() for x in got)


@every
def test_numbers_that_are_not_finite_change_nothing(method):
    boxes, scores, labels, valid = drawn(60, 4)
    valid[:8] = True
    valid[8:16] = False
    boxes[0, 1], boxes[1, 2], boxes[2, 3] = np.nan, np.inf, -np.inf
    scores[3], scores[4], scores[5] = np.nan, np.inf, -np.inf
    boxes[8:12], scores[12:16] = np.nan, np.inf
    got = check(method, boxes, scores, labels, valid)
    assert all(np.isfinite(x).all() for x in got)
    boxes[valid & (np.arange(60) > 20)] *= 1e30  # whose areas are infinite
    huge = suppress(
        boxes, scores, labels, valid, nms=method, threshold=0.5, max_detections=60
    )
    assert all(np.isfinite(x).all() for x in huge)


@every
def test_padding_is_inert(method):
    boxes, scores, labels, valid = drawn(60, 6)
    clean = check(method, boxes, scores, labels, valid)
    boxes[~valid], scores[~valid], labels[~valid] = 7e29, 9e29, 1
    dirty = check(method, boxes, scores, labels, valid)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


@every
def test_the_order_given_changes_nothing(method):
    boxes, scores, labels, valid = drawn(80, 8)
    turned = np.random.default_rng(0).permutation(80)
    first = check(method, boxes, scores, labels, valid)
    second = check(method, *(x[turned] for x in (boxes, scores, labels, valid)))
    np.testing.assert_allclose(first.scores, second.scores, rtol=1e-6)
    count = int(first.valid.sum())
    np.testing.assert_array_equal(turned[second.index[:count]], first.index[:count])


@every
def test_images_of_a_batch_and_one_program(method):
    """vmap equals a loop, and no threshold compiles anew."""
    traces = []

    def counted(*case, **settings):
        traces.append(1)
        return nms.suppress(*case, nms=method, max_detections=20, **settings)

    cases = [drawn(70, seed, span=20.0 + 50 * seed) for seed in range(3)]
    cases[1][3][5:] = False
    batched = jax.jit(jax.vmap(functools.partial(counted, threshold=0.4)))(
        *(np.stack(x) for x in zip(*cases, strict=True))
    )
    single = jax.jit(counted)
    looped = [single(*case, threshold=0.4) for case in cases]
    for got, *expected in zip(batched, *looped, strict=True):
        np.testing.assert_allclose(got, np.stack(expected), rtol=1e-6)
    traces.clear()
    for sigma, threshold in ((0.3, 0.2), (0.7, 0.9)):
        single(*cases[0], threshold=threshold, sigma=sigma, score_threshold=0.1)
    assert len(traces) == 1  # of other keywords


@every
def test_scores_carry_no_broken_gradient(method):
    boxes, scores, labels, valid = drawn(30, 9)

    def total(boxes, scores):
        kept = nms.suppress(
            boxes, scores, labels, valid, nms=method, threshold=0.5, max_detections=9
        )
        return kept.scores.sum() + kept.boxes.sum()

    by_boxes, by_scores = jax.jit(jax.grad(total, (0, 1)))(boxes, scores)
    assert np.isfinite(by_boxes).all()
    assert np.isfinite(by_scores).all()
    # Of each box that is returned, and not by more than 1: scores are only lowered.
    assert 1 <= (np.abs(by_boxes).sum(axis=-1) > 0).sum() <= 9
    assert by_scores.max() > 0
    assert by_scores.max() <= 1 + 1e-6


def test_only_the_agnostic_lets_classes_meet():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 8]], np.float32)
    case = boxes, np.float32([0.9, 0.8]), np.array([0, 1]), np.ones(2, bool)
    for method in nms.METHODS:
        got = suppress(*case, nms=method, threshold=0.5, max_detections=2)
        expected = [0.9] if method == "greedy_agnostic" else [0.9, 0.8]
        np.testing.assert_allclose(got.scores[got.valid], expected, rtol=1e-6)


def test_soft_linear_by_hand():
    """Bodla's example in numbers: IoU .5 halves the second, which stays."""
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2], [9, 9, 10, 10]], np.float32)
    case = boxes, np.float32([0.9, 0.8, 0.3]), np.zeros(3, int), np.ones(3, bool)
    got = suppress(*case, nms="soft_linear", threshold=0.3, max_detections=3)
    np.testing.assert_allclose(got.scores, [0.9, 0.4, 0.3], rtol=1e-6)
    got = suppress(*case, nms="soft", threshold=0.3, sigma=0.5, max_detections=3)
    np.testing.assert_allclose(got.scores, [0.9, 0.8 * np.exp(-0.5), 0.3], rtol=1e-6)


def test_matrix_spares_what_a_suppressed_box_overlaps():
    """A chain a-b-c: b is lowered by a, so that it hardly lowers c."""
    boxes = np.array([[0, 0, 4, 1], [1, 0, 5, 1], [2, 0, 6, 1]], np.float32)
    case = boxes, np.float32([0.9, 0.8, 0.7]), np.zeros(3, int), np.ones(3, bool)
    got = suppress(*case, nms="matrix_linear", threshold=0.5, max_detections=3)
    # IoU .6 of neighbours, 1/3 of a and c: c by min(2/3, .4 / .4).
    np.testing.assert_allclose(got.scores, [0.9, 0.7 * 2 / 3, 0.8 * 0.4], rtol=1e-6)
    assert got.index.tolist() == [0, 2, 1]


def test_diou_spares_boxes_whose_centres_are_apart():
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [0, 1, 10, 9]], np.float32)
    case = boxes, np.float32([0.9, 0.8, 0.7]), np.zeros(3, int), np.ones(3, bool)
    # IoU 2/3, less 4 / 244; IoU .8 at the same centre.
    kept = suppress(*case, nms="diou", threshold=0.66, max_detections=3)
    assert kept.index[kept.valid].tolist() == [0, 1]
    kept = suppress(*case, nms="greedy", threshold=0.66, max_detections=3)
    assert kept.index[kept.valid].tolist() == [0]


def test_fusion_of_several_models_lowers_what_few_found():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 3], [9, 9, 12, 12]], np.float32)
    scores = np.array([0.9, 0.6, 0.8], np.float32)
    fused, score = nms.fuse(boxes, scores, 0.5, sources=2)
    np.testing.assert_allclose(score, [0.75, -np.inf, 0.4], rtol=1e-6)
    np.testing.assert_allclose(fused[0], [0, 0, 4, 3.6], rtol=1e-6)
    expected = reference_nms.fusion(boxes, scores, np.zeros(3, int), 0.5, sources=2)
    assert [float(s) for s, _ in expected.values()] == pytest.approx([0.75, 0.4])


def test_labels_are_not_needed():
    boxes, scores, _, valid = drawn(50, 2)
    one = np.zeros(50, int)
    for call in map(
        jax.jit,
        (
            nms.soft,
            nms.diou,
            nms.fast_of_list,
            lambda b, s, _, *rest: nms.matrix(b, s, *rest),
            lambda *case: nms.fuse(*case)[1],
        ),
    ):
        np.testing.assert_array_equal(
            call(boxes, scores, 0.5, valid), call(boxes, scores, 0.5, valid, one)
        )


def test_best_of_what_is_left():
    boxes, scores, labels, _ = drawn(5)
    left = np.where(np.arange(5) < 2, scores, -np.inf)
    kept = nms.best(boxes, left, labels, max_detections=7)
    order = np.argsort(-scores[:2], kind="stable")
    assert kept.index.tolist() == [*order, 0, 0, 0, 0, 0]
    assert kept.valid.tolist() == [True] * 2 + [False] * 5


def test_methods_are_those_that_settings_take():
    assert get_args(nms.Method) == nms.METHODS
