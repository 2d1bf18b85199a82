"""Candidates against a sort of all pairs."""

import numpy as np
import pytest

from detjax.ops import candidates


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pairs(found):
    some = np.asarray(found.valid)
    return {
        (int(i), int(c)): float(s)
        for i, c, s in zip(
            found.index[some], found.labels[some], found.scores[some], strict=True
        )
    }


@pytest.mark.parametrize("with_quality", [False, True])
@pytest.mark.parametrize("most", [1, 7, 500])
def test_the_best_of_each_level_are_those_of_a_sort(most, with_quality):
    rng, counts = np.random.default_rng(most), (40, 12, 1)
    logits = rng.normal(0, 2, (sum(counts), 5)).astype("f")
    quality = rng.normal(0, 2, sum(counts)).astype("f") if with_quality else None
    scores = sigmoid(logits)
    if with_quality:
        scores = np.sqrt(scores * sigmoid(quality)[:, None])
    expected, start = {}, 0
    for count in counts:
        some = [
            (scores[i, c], i, c)
            for i in range(start, start + count)
            for c in range(5)
            if scores[i, c] > 0.6
        ]
        expected |= {(i, c): s for s, i, c in sorted(some, reverse=True)[:most]}
        start += count
    found = candidates.by_level(logits, counts, most, 0.6, quality)
    assert pairs(found) == pytest.approx(expected, rel=1e-5)
    assert len(found.scores) == sum(min(most, n * 5, min(most, n) * 5) for n in counts)


def test_the_best_of_each_class_are_those_of_a_sort():
    scores = np.random.default_rng(0).random((30, 4)).astype("f")
    found = candidates.by_class(scores, 5, 0.8)
    expected = {
        (int(i), c): scores[i, c]
        for c in range(4)
        for i in np.argsort(-scores[:, c])[:5]
        if scores[i, c] > 0.8
    }
    assert pairs(found) == pytest.approx(expected)
    assert found.scores.shape == (20,)
