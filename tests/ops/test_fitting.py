"""Shapes of priors that fit: against loops, and what they promise."""

import numpy as np
import pytest

from detjax.ops import anchors, fitting
from tests import reference

RNG = np.random.default_rng(0)


def groups(*centres, count=60, noise=0.03):
    """Shapes around some, in any order."""
    made = [np.array(c) * np.exp(RNG.normal(0, noise, (count, 2))) for c in centres]
    return RNG.permutation(np.concatenate(made))


def test_iou_of_shapes_is_that_of_boxes_with_one_centre():
    a, b = RNG.uniform(3, 60, (7, 2)), RNG.uniform(3, 60, (4, 2))
    boxes = [np.concatenate([-s / 2, s / 2], axis=1) for s in (a, b)]
    expected = np.array(reference.iou(*boxes))
    np.testing.assert_allclose(fitting.shape_iou(a, b), expected, atol=1e-6)
    best = np.max(expected, axis=1).mean()
    assert fitting.mean_best_iou(a, b) == pytest.approx(best, abs=1e-6)


def test_groups_that_lie_apart_are_found():
    centres = [(10.0, 12.0), (40.0, 20.0), (30.0, 90.0), (150.0, 140.0)]
    found = fitting.kmeans(groups(*centres), 5, seed=3)
    expected = sorted(centres, key=np.prod)
    np.testing.assert_allclose(found[3], expected, rtol=0.05)


def test_one_cluster_is_the_median_and_more_never_fit_worse():
    shapes = np.exp(RNG.normal(3, 0.7, (400, 2)))
    found = fitting.kmeans(shapes, 8)
    assert [len(centres) for centres in found] == list(range(1, 9))
    means = [fitting.mean_best_iou(shapes, centres) for centres in found]
    assert (np.diff(means) >= 0).all()
    # The best of many single shapes: hardly better than what one step finds.
    tried = max(fitting.mean_best_iou(shapes, s[None]) for s in shapes[::4])
    assert means[0] > tried - 0.02


def test_as_many_clusters_as_shapes_are_these():
    shapes = np.array([[3.0, 5.0], [9.0, 9.0], [20.0, 4.0], [50.0, 60.0]])
    found = fitting.kmeans(shapes, 4)
    assert fitting.mean_best_iou(shapes, found[3]) == pytest.approx(1)
    # The same shape many times leaves nothing to draw from.
    same = fitting.kmeans(np.tile([[4.0, 7.0]], (30, 1)), 3)
    np.testing.assert_allclose(same[2], np.tile([[4.0, 7.0]], (3, 1)))


def test_a_seed_gives_the_same_clusters():
    shapes = np.exp(RNG.normal(3, 0.7, (300, 2)))
    for one, other in zip(
        fitting.kmeans(shapes, 4, 5), fitting.kmeans(shapes, 4, 5), strict=True
    ):
        np.testing.assert_array_equal(one, other)


LEVELS = anchors.grid_levels(
    [(32, 40), (16, 20), (8, 10)], (256, 320), [[12], [30], [70]], [1, 2]
)


def scattered(count, mean=3.3, spread=0.6):
    size = np.exp(RNG.normal(mean, spread, (count, 2)))
    corner = RNG.uniform(0, 1, (count, 2)) * (np.array([320, 256]) - size)
    return np.concatenate([corner, corner + size], axis=1).clip(0, [320, 256] * 2)


def test_kmeans_by_euclidean_distance_is_that_of_the_textbook():
    """Centres are the means of what is nearest to them: no move lowers the squares."""
    rng = np.random.default_rng(2)
    shapes = np.exp(rng.normal(3.5, 0.8, (300, 2)))
    found = fitting.kmeans(shapes, 5, distance="euclidean")
    squares = []
    for centres in found:
        far = ((shapes[:, None] - centres) ** 2).sum(-1)
        nearest = far.argmin(1)
        for i, centre in enumerate(centres):
            np.testing.assert_allclose(centre, shapes[nearest == i].mean(0), rtol=1e-9)
        squares.append(far.min(1).mean())
    assert squares == sorted(squares, reverse=True)
    by_iou = fitting.kmeans(shapes, 5)
    for ours, plain in zip(by_iou[1:], found[1:], strict=True):
        assert fitting.mean_best_iou(shapes, ours) > fitting.mean_best_iou(
            shapes, plain
        )


def test_the_best_iou_is_that_of_all_priors():
    boxes = np.concatenate([scattered(40), [[300, 200, 320, 256], [0, 0, 320, 256]]])
    for levels in (
        LEVELS,
        anchors.rcnn_levels([(8, 10), (4, 5)], [32, (64, 64)], [[40, 60], [99, 130]]),
    ):
        got, shapes = anchors.best_iou(boxes, levels)
        start = 0
        for level in levels:
            placed = anchors.placed([level]).reshape(-1, len(level.boxes), 4)
            for kind in range(len(level.boxes)):
                expected = np.array(reference.iou(boxes, placed[:, kind])).max(axis=1)
                np.testing.assert_allclose(got[:, start], expected, atol=1e-5)
                side = placed[0, kind, 2:] - placed[0, kind, :2]
                np.testing.assert_allclose(shapes[start], side, atol=1e-4)
                start += 1
        assert got.shape[1] == len(shapes) == start


def quality(boxes, sizes, ratios, positive=0.5):
    """The objective, by its definition, of priors with these sizes and ratios."""
    shapes = [level.shape for level in LEVELS]
    levels = anchors.grid_levels(shapes, (256, 320), sizes, ratios)
    best = anchors.best_iou(boxes, levels)[0].max(axis=1)
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    octave = np.floor(np.log2(side))
    weights = np.array([(octave == o).sum() ** -0.5 for o in octave])
    return float((weights * (best + (best >= positive))).sum() / weights.sum())


@pytest.mark.parametrize(
    "given", [[[12], [30], [70]], [[3], [200], [300]], [[10, 14], [28, 33], [60, 90]]]
)
def test_fitted_sizes_are_never_worse_than_the_given(given):
    boxes = scattered(300)
    sizes, ratios = fitting.sizes_and_ratios(boxes, LEVELS, given, [1, 0.5, 2])
    assert [len(s) for s in sizes] == [len(s) for s in given]
    assert len(ratios) == 3
    before, after = quality(boxes, given, [1, 0.5, 2]), quality(boxes, sizes, ratios)
    assert after >= before - 0.02  # sizes are whole pixels
    if given[1] == [200]:
        assert after > before + 0.2


def test_sizes_of_a_kind_are_found():
    """Objects of two shapes, one small and one large."""
    small, large = np.array([16.0, 8.0]), np.array([120.0, 60.0])
    corners = RNG.uniform(0, 120, (200, 2))
    boxes = np.concatenate(
        [
            np.concatenate([corners[:150], corners[:150] + small], axis=1),
            np.concatenate([corners[150:], corners[150:] + large], axis=1),
        ]
    )
    sizes, ratios = fitting.sizes_and_ratios(boxes, LEVELS, [[30], [50], [60]], [1])
    assert sizes[0] == [11] and 84 <= sizes[2][0] <= 86
    assert ratios == [2.0]


def test_rare_sizes_weigh_more_each_and_less_together():
    scale = np.log([20.0] * 100 + [200.0])
    weights = fitting.rarity(scale)
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] == pytest.approx(10 * weights[0])
