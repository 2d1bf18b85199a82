"""SVMs and ridge regression on made-up features with known answers."""

import numpy as np
import pytest

from detjax.models.rcnn import SVM, Ridge, linear


def clouds(n=4000, f=6, seed=0):
    """(positives, negatives), overlapping a little along the first two axes."""
    rng = np.random.default_rng(seed)
    positives = rng.standard_normal((80, f)) + np.r_[3.0, 2.0, np.zeros(f - 2)]
    return positives.astype(np.float32), rng.standard_normal((n, f)).astype(np.float32)


def test_separable_classes_are_separated():
    rng = np.random.default_rng(0)
    ahead, behind = rng.uniform(1, 2, (50, 3)), rng.uniform(-2, -1, (500, 3))
    found = SVM(cost=1.0).fit(ahead, behind)
    assert (found(ahead) > 0.9).all()
    assert (found(behind) < -0.9).all()


def objective(model, positives, negatives, cost, weight, intercept):
    hinge = np.maximum(0, 1 - model(positives)).sum() * weight
    hinge += np.maximum(0, 1 + model(negatives)).sum()
    size = (model.kernel**2).sum() + (model.bias / intercept) ** 2
    return size / 2 + cost * hinge


def test_mining_ends_near_the_machine_of_all_negatives():
    positives, negatives = clouds()
    mined = SVM(cost=0.1, first=200).fit(positives, negatives)
    whole = SVM(cost=0.1, first=4000).fit(positives, negatives)
    costs = [objective(m, positives, negatives, 0.1, 2.0, 10.0) for m in (mined, whole)]
    assert costs[0] == pytest.approx(costs[1], rel=0.01)
    few = SVM(cost=0.1, first=200, rounds=1).fit(positives, negatives)
    assert objective(few, positives, negatives, 0.1, 2.0, 10.0) > 1.05 * costs[1]


def test_hard_negatives_are_found_wherever_they_are():
    """A few negatives among many stand where the first machine sees positives."""
    positives, negatives = clouds()
    negatives = np.tile(negatives, (5, 1))
    # As far ahead as the positives, but off to a side that random negatives leave free.
    negatives[-40:] = positives[:40] + np.float32([0, 0, 8, 0, 0, 0])
    blind = SVM(cost=0.1, first=300).fit(positives, negatives[:-40])
    found = SVM(cost=0.1, first=300).fit(positives, negatives)
    assert (blind(negatives[-40:]) > 0).mean() > 0.5
    assert (found(negatives[-40:]) < 0).mean() > 0.8
    assert (found(positives) > 0).mean() > 0.6


def test_positives_weigh_more():
    positives, negatives = clouds()
    light, heavy = (
        SVM(cost=0.01, positive_weight=weight).fit(positives, negatives)
        for weight in (1.0, 20.0)
    )
    assert (heavy(positives) > 0).mean() > (light(positives) > 0).mean()


def test_nothing_to_learn_from():
    positives, negatives = clouds()
    never, always = (
        SVM().fit(positives[:0], negatives),
        SVM().fit(positives, negatives[:0]),
    )
    assert (never(positives) <= -10).all()
    assert (always(negatives) >= 10).all()
    found = Ridge().fit(np.zeros((0, 5)), np.zeros((0, 4)))
    assert found.kernel.shape == (5, 4) and not found.kernel.any()


def test_ridge_recovers_a_linear_law():
    rng = np.random.default_rng(0)
    features, kernel = rng.standard_normal((500, 7)), rng.standard_normal((7, 4))
    targets = features @ kernel + [1, 2, 3, 4]
    found = Ridge(penalty=1e-6).fit(features, targets)
    np.testing.assert_allclose(found.kernel, kernel, atol=1e-4)
    np.testing.assert_allclose(found(features), targets, atol=1e-3)


def test_ridge_minimises_its_penalised_squares(monkeypatch):
    rng = np.random.default_rng(1)
    features, targets = rng.standard_normal((300, 5)), rng.standard_normal((300, 2)) + 3
    monkeypatch.setattr(linear, "BLOCK", 64)
    found = Ridge(penalty=50.0).fit(features, targets)
    apart = targets - targets.mean(0)
    rows = np.pad(features, [(0, 0), (0, 1)], constant_values=1)
    weights = np.vstack([found.kernel, found.bias - targets.mean(0)])
    # The gradient of |rows @ weights - apart|^2 + 50 |weights|^2.
    gradient = rows.T @ (rows @ weights - apart) + 50 * weights
    np.testing.assert_allclose(gradient, 0, atol=1e-3)


def test_rows_are_read_where_they_are_asked_for():
    source = np.arange(12, dtype=np.float16).reshape(6, 2)
    rows = linear.Rows(source, np.array([5, 1, 3]), 2.0)
    assert rows.shape == (3, 2) and len(rows) == 3
    np.testing.assert_array_equal(rows[1:], [[4, 6], [12, 14]])
    np.testing.assert_array_equal(rows[np.array([0])], [[20, 22]])
    assert rows[:].dtype == np.float32


def test_scale_brings_the_mean_norm_to_twenty(monkeypatch):
    monkeypatch.setattr(linear, "BLOCK", 4)
    features = np.random.default_rng(0).uniform(0, 3, (10, 8)).astype(np.float16)
    scaled = features.astype(np.float32) * linear.scale(features)
    assert np.linalg.norm(scaled, axis=1).mean() == pytest.approx(20, rel=1e-3)
    assert linear.scale(np.zeros((3, 2))) == linear.scale(np.zeros((0, 2))) == 1
