"""Distances of sets of features, by normal distributions that have a formula."""

import numpy as np
import pytest

from detjax import similarity
from detjax.errors import UserError


def drawn(n=400, d=6, shift=0.0, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def test_frechet_is_that_of_normal_distributions():
    # |shift|^2 d + d (a - b)^2
    found = similarity.frechet(drawn(50_000), drawn(50_000, shift=1, scale=3, seed=1))
    assert found == pytest.approx(6 + 6 * 4, rel=0.03)
    assert similarity.frechet(drawn(), drawn()) == pytest.approx(0, abs=1e-9)


def test_alike_and_different_sets():
    same = similarity.compare(drawn(), drawn(seed=1))
    assert 0.3 < same.ratio < 3
    assert 0.4 < same.told_apart < 0.6
    other = similarity.compare(drawn(), drawn(shift=5, seed=1))
    assert other.ratio > 20
    assert other.told_apart == 1


def test_sets_of_any_sizes_are_compared():
    found = similarity.compare(drawn(9, 50), drawn(31, 50, seed=1))
    assert np.isfinite([found.distance, found.within, found.told_apart]).all()
    assert found.images == 8


@pytest.mark.parametrize("few", [1, 2, 3, 7])
def test_sets_that_have_no_covariance_are_refused(few):
    with pytest.raises(UserError, match=f"400 and {few} images .* needs 8"):
        similarity.compare(drawn(), drawn(few))


def test_a_constant_feature_is_no_distance():
    one, other = drawn(), drawn(seed=1)
    one[:, 0] = other[:, 0] = 3.0
    assert np.isfinite(similarity.compare(one, other).ratio)
