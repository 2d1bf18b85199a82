"""How the notes of captum's goldens say what was computed."""

import numpy as np
import pytest

from detjax.parity import attributions

NAMES = ("one", "backbone.layer3.0", "backbone.layer3.1", "backbone.layer30")


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (
            "layer layer3, baseline 0, 20 steps, Gauss-Legendre: the weighted mean",
            {"layer": "backbone.layer3.1", "steps": 20},
        ),
        (
            "baseline 0.5, 20 steps, riemann_trapezoid: alphas linspace(0, 1, 20)",
            {"baseline": 0.5, "steps": 20, "rule": "riemann_trapezoid"},
        ),
        (
            "window (3, 24, 16), stride (3, 16, 8), baseline -0.25; the last window",
            {"window": (24, 16, 3), "stride": (16, 8, 3), "baseline": -0.25},
        ),
        (
            "layer layer3.0, baseline 0, Gauss-Legendre alphas of 21 points: sum",
            {"layer": "backbone.layer3.0", "steps": 20},
        ),
        (
            "layer layer30, unit (1492, 1, 2), baseline image 1, 7 steps on the line",
            {
                "layer": "backbone.layer30",
                "unit": (1492, 1, 2),
                "baseline": 1.0,
                "steps": 7,
            },
        ),
        ("", {}),
    ],
)
def test_what_notes_say(note, expected):
    found = attributions.described(note, NAMES)
    assert found == attributions.Settings(**expected)


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no layer layer4"):
        attributions.described("layer layer4, no ReLU", NAMES)


def test_noise_is_drawn_as_the_words_say():
    facts = {
        "seed": 3,
        "input": {"shape": [2, 4, 5, 3]},
        "noise": "0.5 * default_rng([seed, 23]).standard_normal((6, n, 3, h, w), f)",
    }
    found = attributions._noise(facts)
    rng = np.random.default_rng([3, 23])
    drawn = rng.standard_normal((6, 2, 3, 4, 5), np.float32)
    np.testing.assert_array_equal(found, 0.5 * drawn.transpose(0, 1, 3, 4, 2))
    assert attributions._noise({}) is None
