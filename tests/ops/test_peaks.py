"""Peaks of maps, against a loop over cells."""

import itertools

import jax
import numpy as np

from detjax.ops import peaks


def looked_for(heat, k):
    h, w, c = heat.shape
    found = []
    for label, y, x in itertools.product(range(c), range(h), range(w)):
        around = heat[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2, label]
        score = heat[y, x, label] if heat[y, x, label] == around.max() else 0
        found.append((score, label, x, y))
    return sorted(found, key=lambda one: -one[0])[:k]


def test_peaks_are_those_of_a_loop():
    """Ties too: values are whole tenths."""
    heat = np.random.default_rng(0).integers(0, 10, (9, 11, 3)).astype(np.float32) / 10
    found = jax.jit(peaks.highest, static_argnums=1)(heat, 40)
    assert [tuple(x) for x in np.stack(found, axis=1).tolist()] == [
        tuple(np.float32(x) for x in one) for one in looked_for(heat, 40)
    ]


def test_there_are_no_more_than_cells():
    found = peaks.highest(np.ones((2, 2, 1), np.float32), 10)
    assert found.scores.tolist() == [1, 1, 1, 1]
