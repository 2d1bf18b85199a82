"""Linear classifiers against normal equations, and folds and draws by counting."""

import numpy as np
import pytest

from detjax import linear


def clusters(n=60, d=8, classes=3, seed=0, apart=4.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(99).normal(size=(classes, d)) * apart
    features = centres[labels] + rng.normal(size=(n, d))
    return (features * 3 + 5).astype("f"), labels


@pytest.mark.parametrize("d", [5, 90])
def test_ridge_solves_the_normal_equations(d):
    """In the space of the features as in that of fewer examples."""
    features, labels = clusters(30, d)
    [made] = linear.ridge(linear.scaled(features), labels, 3, [0.5])
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    y = np.eye(3)[labels]
    squares = np.linalg.eigvalsh(x @ x.T)
    penalty = 0.5 * squares[squares > 1e-6 * squares[-1]].mean()
    w = np.linalg.solve(x.T @ x + penalty * np.eye(d), x.T @ (y - y.mean(axis=0)))
    expected = x @ w + y.mean(axis=0)
    np.testing.assert_allclose(made.logits(features), expected, atol=1e-4)


@pytest.mark.parametrize("d", [5, 90])
def test_logistic_is_at_a_minimum(d):
    features, labels = clusters(30, d, apart=0.5)
    seen = linear.scaled(features)
    [made] = linear.logistic(seen, labels, 3, [1.0])
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    x /= np.sqrt(np.square(x).sum(axis=1).mean())
    norm = np.sqrt(np.square(seen.rows).sum(axis=1).mean())
    weights = made.kernel * features.std(axis=0)[:, None] * norm
    logits = made.logits(features)
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    gradient = x.T @ (scores - np.eye(3)[labels]) + weights
    assert np.abs(gradient).max() < 5e-2 * np.abs(weights).max() + 5e-3


@pytest.mark.parametrize("method", linear.METHODS)
@pytest.mark.parametrize("classes", [2, 3])
def test_clusters_are_told_apart(method, classes):
    features, labels = clusters(classes=classes)
    views = np.stack([features, features + 0.1], axis=1)
    made = linear.fit(method, views, labels, classes)
    other, truth = clusters(seed=1, classes=classes)
    assert linear.accuracy(made, other[:, None], truth) > 0.95
    found = linear.in_folds(method, views, labels, classes, 3)
    assert len(found) == 3 and min(found) > 0.9
    few = linear.by_shots(method, views, labels, classes, 4, 2)
    assert len(few) == 2 and min(few) > 0.8
    # One of a class: nothing to choose a strength by.
    assert linear.by_shots(method, views, labels, classes, 1, 1)[0] > 0.5


@pytest.mark.parametrize("method", linear.METHODS)
def test_a_class_without_examples_is_never_found(method):
    features, labels = clusters()
    made = linear.fit(method, features[:, None], labels, 5)
    assert made.kernel.shape == (8, 5)
    assert set(made.logits(features).argmax(axis=1)) <= {0, 1, 2}


def test_constant_features_say_nothing():
    features, labels = clusters()
    features[:, 3] = 7.0
    made = linear.fit("ridge", features[:, None], labels, 3)
    assert np.isfinite(made.kernel).all()
    assert (made.kernel[3] == 0).all()


def test_folds_have_every_example_once_and_classes_in_shares():
    labels = np.array([0] * 10 + [1] * 7)
    tests = list(linear.folds(labels, 3))
    np.testing.assert_array_equal(np.sum(tests, axis=0), 1)
    for test in tests:
        assert 3 <= test[labels == 0].sum() <= 4 and 2 <= test[labels == 1].sum() <= 3


def test_draws_have_so_many_of_each_class():
    labels = np.array([0] * 10 + [1] * 3)
    drawn = linear.draw(labels, 4, seed=0)
    assert drawn[labels == 0].sum() == 4 and drawn[labels == 1].sum() == 3
    assert (drawn != linear.draw(labels, 4, seed=1)).any()


def test_the_temperature_is_that_of_the_most_probable_truth():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    scores = np.exp(5 * logits) / np.exp(5 * logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=p) for p in scores])
    assert linear.temperature(logits, labels) == pytest.approx(5, rel=0.15)


def test_views_share_their_label():
    rows, labels = linear.flat(np.arange(12.0).reshape(3, 2, 2), np.array([4, 5, 6]))
    assert rows[1].tolist() == [2, 3] and labels.tolist() == [4, 4, 5, 5, 6, 6]


def test_roots_keep_signs():
    assert linear.roots(np.array([-4.0, 0.0, 9.0])).tolist() == [-2, 0, 3]


@pytest.mark.parametrize("method", linear.METHODS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_without_bias_is_known_by_its_kernel(method, classes):
    features, labels = clusters(classes=classes)
    made = linear.fit(method, features[:, None], labels, classes, biased=False)
    assert not made.bias.any()
    assert (made.logits(features).argmax(axis=1) == labels).mean() > 0.95


def test_blocks_change_nothing(monkeypatch):
    features, labels = clusters(50)
    whole = linear.fit("ridge", features[:, None], labels, 3)
    monkeypatch.setattr(linear, "BLOCK", 7)
    parts = linear.fit("ridge", features[:, None], labels, 3)
    np.testing.assert_allclose(parts.kernel, whole.kernel, rtol=1e-4, atol=1e-6)
    assert linear.accuracy(parts, features[:, None], labels) == linear.accuracy(
        whole, features[:, None], labels
    )


def test_few_of_many_choose_the_strength(monkeypatch):
    labels = np.array([0] * 900 + [1] * 90 + [2] * 2)
    rows = linear.sample(labels, 99)
    assert len(set(rows)) == len(rows)
    assert np.bincount(labels[rows]).tolist() == [89, 8, 2]
    assert linear.sample(labels, 992).tolist() == [*range(992)]
    features, labels = clusters(300)
    monkeypatch.setattr(linear, "CHOSEN_BY", 30)
    sizes, scaled = [], linear.scaled
    monkeypatch.setattr(
        linear, "scaled", lambda x, *given: sizes.append(len(x)) or scaled(x, *given)
    )
    linear.fit("ridge", features[:, None], labels, 3)
    assert sizes == [20, 20, 20, 300]
