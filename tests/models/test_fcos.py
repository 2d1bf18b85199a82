"""FCOS's own rules; the whole is checked by the parity suite."""

import jax
import numpy as np
import pytest
from families import FCOS, key, objects

from detjax import models
from detjax.errors import UserError
from detjax.models.fcos import Match
from detjax.models.fcos.match import centerness
from detjax.models.fcos.places import places
from detjax.types import Inputs

AT = places([(8, 8), (4, 4)], (64, 64), 3, 4.0)


def test_the_original_has_its_parameters():
    model = models.make("fcos_resnet50_fpn")
    images = np.zeros((1, 320, 448, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    assert sum(x.size for x in jax.tree.leaves(params)) == 32_322_720
    found = jax.eval_shape(model.predict, params, state, Inputs(images))
    assert found.boxes.shape == (1, 100, 4)
    assert model.priors is None


def test_places_lie_on_their_cells_corners():
    assert AT.counts == (64, 16)
    np.testing.assert_array_equal(AT.centre[[0, 1, 8, 64, 65]].T[0], [0, 8, 0, 0, 16])
    np.testing.assert_array_equal(AT.centre[[0, 1, 8, 64, 65]].T[1], [0, 0, 8, 0, 0])
    np.testing.assert_array_equal(AT.span[[0, 64]], [[0, 64], [64, np.inf]])
    # The last level's strides are named by their power of two, whatever the rounding.
    odd = places([(14, 14), (7, 7), (4, 4)], (448, 448), 5, 4.0)
    assert odd.stride[-1] == 128
    assert odd.centre[-1].tolist() == [336, 336]


def test_boxes_and_sides_are_inverse():
    truth = np.random.default_rng(0).uniform(0, 64, (80, 4)).astype("f")
    reach = AT.sides(truth) / AT.stride[:, None]
    np.testing.assert_allclose(AT.box(reach), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_targets_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (5, 2))
    truth = objects(*np.concatenate([low, low + rng.uniform(4, 60, (5, 2))], axis=1))
    at = places([(8, 8), (4, 4)], (64, 64), 3, 1.0)
    target = Match(span=1.0).targets(truth, at, 5)
    ends = np.repeat([[0, 16], [16, np.inf]], at.counts, axis=0)
    for p, (x, y) in enumerate(at.centre):
        own, least = None, np.inf
        for n, (x1, y1, x2, y2) in enumerate(truth.boxes):
            sides = x - x1, y - y1, x2 - x, y2 - y
            near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
            fits = min(sides) > 0 and near < 1.5 * at.stride[p]
            fits = fits and ends[p, 0] < max(sides) < ends[p, 1]
            area = (x2 - x1) * (y2 - y1)
            if fits and area < least:
                own, least = n, area
        assert bool(target.positive[p]) == (own is not None)
        if own is not None:
            assert target.labels[p].argmax() == truth.labels[own]
            np.testing.assert_array_equal(target.boxes[p], truth.boxes[own])
        else:
            assert not target.labels[p].any()
    assert target.positive.any()
    assert target.learnt.all()


def test_places_on_crowds_are_not_learnt():
    target = Match().targets(objects((0, 0, 32, 64), crowd=(0,)), AT, 1)
    x, y = AT.centre.T
    assert not target.positive.any()
    assert not target.learnt[(x > 8) & (x < 24) & (y > 8) & (AT.stride == 8)].any()
    assert target.learnt[x > 40].all()


def test_centerness_falls_from_the_centre_to_the_sides():
    sides = np.float32([[5, 5, 5, 5], [1, 5, 4, 5], [1, 1, 9, 4]])
    expected = [1, 0.5, np.sqrt(1 / 9 * 1 / 4)]
    np.testing.assert_allclose(centerness(sides), expected, rtol=1e-6)


def test_levels_must_follow_one_another():
    with pytest.raises(UserError, match="must follow one another"):
        models.make(**{**FCOS, "backbone": {"levels": (2, 4)}})
