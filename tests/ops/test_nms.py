"""Both suppressions against loops: exact, with ties, labels and padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import nms
from tests import reference

THRESHOLDS = [round(0.05 * i, 2) for i in range(1, 20)]

greedy = jax.jit(nms.greedy)
enough = jax.jit(nms.greedy, static_argnames="most")
fast = jax.jit(nms.fast, static_argnums=(3, 4))


def dense_boxes(n, seed=0, span=200.0, size=60.0):
    """Boxes on a quarter-pixel grid: their areas are exact, however they are added."""
    rng = np.random.default_rng(seed)
    low, wh = rng.uniform(0, span, (n, 2)), rng.uniform(1, size, (n, 2))
    boxes = np.concatenate([low, low + wh], 1)
    return (np.round(boxes * 4) / 4).astype(np.float32)


def random_scores(shape, seed=0, tied=False):
    rng = np.random.default_rng(seed + 100)
    if tied:
        return rng.integers(0, 8, shape).astype(np.float32) / 8
    return rng.random(shape, np.float32)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [1, 7, 300, 700])
def test_greedy_is_exact(n, tied):
    for seed, threshold in enumerate(THRESHOLDS):
        boxes, scores = dense_boxes(n, seed), random_scores(n, seed, tied)
        expected = reference.greedy_nms(boxes, scores, threshold)
        np.testing.assert_array_equal(greedy(boxes, scores, threshold), expected)


def test_greedy_is_exact_off_the_grid():
    rng = np.random.default_rng(0)
    low, size = rng.uniform(0, 100, (700, 2)), rng.uniform(1, 60, (700, 2))
    boxes = np.concatenate([low, low + size], 1).astype(np.float32)
    for seed, threshold in enumerate(THRESHOLDS):
        scores = random_scores(700, seed)
        expected = reference.greedy_nms(boxes, scores, threshold)
        np.testing.assert_array_equal(greedy(boxes, scores, threshold), expected)


def first(keep, scores, most):
    """The first `most` that are kept, by falling score and then by index."""
    order = sorted(np.flatnonzero(keep), key=lambda i: (-scores[i], i))
    return np.isin(np.arange(len(keep)), order[:most])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("most", [0, 1, 17, 128, 150, 700])
def test_greedy_stops_when_enough_are_kept(most, tied):
    rng = np.random.default_rng(most)
    for seed, threshold in enumerate(THRESHOLDS[::6]):
        boxes, scores = dense_boxes(700, seed), random_scores(700, seed, tied)
        valid, labels = rng.random(700) < 0.8, rng.integers(0, 3, 700)
        boxes[rng.integers(0, 700, 20)] = np.nan
        sound = valid & np.isfinite(boxes).all(axis=1)
        boxes[~sound] = np.nan_to_num(boxes[~sound])
        keep = reference.greedy_nms(boxes, scores, threshold, sound, labels)
        boxes[valid & ~sound] = np.nan
        got = enough(boxes, scores, threshold, valid, labels, most=most)
        np.testing.assert_array_equal(got, first(keep, scores, most))


def test_greedy_stops_under_vmap_at_each_lists_own_place():
    boxes = np.stack([dense_boxes(400, seed, span=9 + 99 * seed) for seed in range(3)])
    scores, valid = random_scores((3, 400)), random_scores((3, 400), 5) < 0.8
    valid[1, 40:] = False
    call = functools.partial(nms.greedy, most=60)
    batched = jax.vmap(call, (0, 0, None, 0))(boxes, scores, 0.4, valid)
    for b, s, v, got in zip(boxes, scores, valid, batched, strict=True):
        keep = reference.greedy_nms(b, s, 0.4, v)
        np.testing.assert_array_equal(got, first(keep, s, 60))


def test_greedy_at_the_threshold():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 4]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert greedy(boxes, scores, 0.5).tolist() == [True, True, True]
    assert greedy(boxes, scores, 0.49).tolist() == [True, False, False]
    assert greedy(boxes, scores, np.float32(0.49)).tolist() == [True, False, False]


def test_greedy_follows_a_long_chain():
    """Each box suppresses only the next: every second one stays."""
    x = np.arange(300, dtype=np.float32)
    boxes = np.stack([x, 0 * x, x + 3, 0 * x + 1], 1)  # neighbours at IoU 1/2, then 1/5
    keep = greedy(boxes, -x, 0.3)
    np.testing.assert_array_equal(keep, x % 2 == 0)


@pytest.mark.parametrize("n", [7, 300])
def test_greedy_keeps_classes_apart(n):
    labels = np.random.default_rng(0).integers(0, 4, n)
    valid = np.random.default_rng(1).random(n) < 0.7
    for seed, threshold in enumerate(THRESHOLDS):
        boxes, scores = dense_boxes(n, seed, span=40), random_scores(n, seed, tied=True)
        expected = reference.greedy_nms(boxes, scores, threshold, valid, labels)
        got = greedy(boxes, scores, threshold, valid, labels)
        np.testing.assert_array_equal(got, expected)


def test_greedy_ignores_padding():
    boxes, scores = dense_boxes(300), random_scores(300)
    valid = np.random.default_rng(1).random(300) < 0.5
    expected = np.zeros(300, bool)
    expected[valid] = greedy(boxes[valid], scores[valid], 0.4)
    for junk in (0.0, 1e30, -1e30):
        dirty, high = boxes.copy(), scores.copy()
        dirty[~valid], high[~valid] = [-junk, junk, junk, junk], junk
        np.testing.assert_array_equal(greedy(dirty, high, 0.4, valid), expected)
    assert not greedy(boxes, scores, 0.4, np.zeros(300, bool)).any()


def test_greedy_of_nothing_and_of_empty_boxes():
    assert (
        nms.greedy(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5).size == 0
    )
    assert nms.greedy(np.ones((3, 4), np.float32), np.ones(3, np.float32), 0.5).all()


def test_greedy_under_vmap_and_eagerly():
    boxes = np.stack([dense_boxes(150, seed, span=30 + 99 * seed) for seed in range(3)])
    scores, valid = random_scores((3, 150)), random_scores((3, 150), 5) < 0.8
    batched = jax.vmap(nms.greedy, (0, 0, None, 0))(boxes, scores, 0.4, valid)
    looped = [
        nms.greedy(b, s, 0.4, v) for b, s, v in zip(boxes, scores, valid, strict=True)
    ]
    np.testing.assert_array_equal(batched, looped)


def test_greedy_does_not_disturb_a_gradient():
    boxes, scores = jnp.asarray(dense_boxes(20)), jnp.asarray(random_scores(20))

    def loss(boxes, scores):
        return jnp.sum(jnp.where(greedy(boxes, scores, 0.4), scores, 0) * boxes[:, 0])

    assert all(np.isfinite(g).all() for g in jax.grad(loss, (0, 1))(boxes, scores))


def check_fast(boxes, scores, threshold, top_k, count, low=0.0, valid=None):
    index, labels, best, keep = fast(boxes, scores, threshold, top_k, count, low, valid)
    expected = reference.fast_nms(boxes, scores, threshold, top_k, count, low, valid)
    assert keep.tolist() == [i < len(expected) for i in range(count)]
    found = zip(index.tolist(), labels.tolist(), np.asarray(best), strict=True)
    assert list(found)[: len(expected)] == expected
    assert not np.any(index[len(expected) :]) and not np.any(best[len(expected) :])


@pytest.mark.parametrize("tied", [False, True])
def test_fast_is_exact(tied):
    for seed, threshold in enumerate(THRESHOLDS[::3]):
        boxes, scores = dense_boxes(300, seed), random_scores((5, 300), seed, tied)
        check_fast(boxes, scores, threshold, 40, 30)


@pytest.mark.parametrize("low", [0.0, 0.9, 0.97, 1.0])
def test_fast_leaves_out_boxes_not_classes(low):
    check_fast(dense_boxes(300), random_scores((5, 300)), 0.5, 40, 30, low)


@pytest.mark.parametrize("low", [0.5, 0.95])
def test_fast_with_more_boxes_than_it_gathers(low):
    n = 1500
    boxes, scores = dense_boxes(n), random_scores((3, n), tied=low == 0.5)
    check_fast(boxes, scores, 0.4, 20, 30, low)


def test_fast_with_few_boxes():
    check_fast(dense_boxes(3), random_scores((2, 3)), 0.5, 200, 100)
    check_fast(dense_boxes(1), random_scores((1, 1)), 0.5, 1, 1, 2.0)


def test_fast_lets_suppressed_boxes_suppress():
    """A chain a-b-c where only neighbours overlap: greedy keeps c, fast does not."""
    boxes = np.array([[0, 0, 3, 1], [1, 0, 4, 1], [2, 0, 5, 1]], np.float32)
    scores = np.array([[0.9, 0.8, 0.7]], np.float32)
    assert greedy(boxes, scores[0], 0.3).tolist() == [True, False, True]
    assert fast(boxes, scores, 0.3, 3, 3)[3].tolist() == [True, False, False]


def test_fast_ignores_padding():
    boxes, scores = dense_boxes(300), random_scores((4, 300))
    valid = random_scores(300, 9) < 0.5
    check_fast(boxes, scores, 0.4, 40, 30, 0.3, valid)
    clean = fast(boxes, scores, 0.4, 40, 30, 0.3, valid)
    boxes[~valid], scores[:, ~valid] = 1e30, 1e30
    dirty = fast(boxes, scores, 0.4, 40, 30, 0.3, valid)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_fast_of_nothing():
    empty = np.zeros((0, 4), np.float32), np.zeros((3, 0), np.float32)
    assert not nms.fast(*empty, 0.5, 10, 5)[3].any()


@pytest.mark.parametrize("low", [0.3, 0.99])
def test_fast_under_vmap_and_eagerly(low):
    n = 1034
    boxes = np.stack([dense_boxes(n, seed) for seed in range(2)])
    scores = random_scores((2, 3, n))
    scores[1] *= 0.5
    function = functools.partial(
        nms.fast, threshold=0.4, top_k=20, max_detections=10, score_threshold=low
    )
    batched = jax.vmap(function)(boxes, scores)
    looped = [function(*pair) for pair in zip(boxes, scores, strict=True)]
    for got, *expected in zip(batched, *looped, strict=True):
        np.testing.assert_array_equal(got, np.stack(expected))


def test_fast_with_many_classes():
    check_fast(dense_boxes(20), random_scores((130, 20)), 0.4, 5, 12)


def test_boxes_with_numbers_that_are_not_finite_are_not_kept():
    boxes = dense_boxes(40, 3)
    scores = random_scores(40, 3)
    sound = np.ones(40, bool)
    spoilt, unsure = boxes.copy(), scores.copy()
    for i, value in ((2, np.nan), (7, np.inf), (11, -np.inf)):
        spoilt[i, i % 4] = value
        sound[i] = False
    unsure[20], sound[20] = np.nan, False
    expected = np.zeros(40, bool)
    expected[sound] = reference.greedy_nms(boxes[sound], scores[sound], 0.4)
    np.testing.assert_array_equal(greedy(spoilt, unsure, 0.4), expected)
    index, _, score, keep = fast(spoilt, unsure[None], 0.4, 40, 40)
    assert set(index[keep].tolist()) <= set(np.flatnonzero(sound).tolist())
    assert np.isfinite(score).all()
