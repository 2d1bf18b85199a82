"""SSD's own rules; the whole is checked by the parity suite."""

import jax
import numpy as np
import pytest
from families import SSD, batch, key, objects

from detjax import models
from detjax.errors import UserError
from detjax.models.ssd import Match, Priors
from detjax.models.ssd.net import pooled
from detjax.ops import anchors
from detjax.types import Inputs
from tests import reference

TORCHVISION = {
    "first": [
        [-6.5, -6.5, 14.5, 14.5],
        [-11.370427, -11.370427, 19.370426, 19.370426],
        [-10.849242, -3.424621, 18.849241, 11.424622],
        [-3.424621, -10.849242, 11.424622, 18.849241],
    ],
    "last": [
        [19.5, 19.5, 280.5, 280.5],
        [6.634212, 6.634212, 293.365784, 293.365784],
        [0, 57.722568, 300, 242.277435],
        [57.722568, 0, 242.277435, 300],
    ],
    "sums": [1157388.838328, 1157388.838328, 1508979.16251, 1508979.16251],
}
PRIORS = anchors.grid([(8, 8), (4, 4)], (64, 64), ((12,), (24,)), (1.0,))


@pytest.mark.parametrize(
    ("name", "side", "count", "priors"),
    [
        ("ssd300_vgg16", 300, 35_641_826, 8732),
        ("ssd300", 300, 26_285_486, 8732),
        # The authors' numbers for VOC.
        ("ssd512", 512, 27_188_676, 24_564),
    ],
)
def test_originals_have_their_parameters(name, side, count, priors):
    model = models.make(name, **({} if "vgg" in name else {"num_classes": 20}))
    images = np.zeros((1, side, side, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    found = jax.eval_shape(model.predict, params, state, Inputs(images))
    assert found.boxes.shape == (1, 200, 4)
    assert len(anchors.placed(model.priors((side, side)).levels)) == priors


def test_priors_are_torchvisions():
    """Recorded from its DefaultBoxGenerator: first, last, sums."""
    placed = anchors.placed(models.make("ssd300_vgg16").priors((300, 300)).levels)
    np.testing.assert_allclose(placed[:4], TORCHVISION["first"], atol=1e-4)
    np.testing.assert_allclose(placed[-4:], TORCHVISION["last"], atol=1e-4)
    np.testing.assert_allclose(
        placed.astype(np.float64).sum(axis=0), TORCHVISION["sums"], rtol=1e-6
    )


def test_priors_keep_their_ratios_on_inputs_that_are_no_squares():
    stage = Priors((0.2, 0.5, 1.05), ((2,), (3,)))
    first, second = stage.boxes((100, 400))
    sides = first[:, 2:] - first[:, :2]
    np.testing.assert_allclose(sides[:, 0] / sides[:, 1], [1, 1, 2, 0.5])
    np.testing.assert_allclose(sides[0], 40)
    # None is larger than the input.
    assert (second[:, 3] - second[:, 1]).max() == 100


def oracle(iou, labels, num_classes, one_each):
    """Labels of the priors, an object's best prior whatever their IoU."""
    found = np.full(iou.shape[1], num_classes)
    for p in range(iou.shape[1]):
        if iou[:, p].max() >= 0.5:
            found[p] = labels[iou[:, p].argmax()]
    if not one_each:
        for n in range(len(iou)):
            found[iou[n].argmax()] = labels[n]
        return found
    left = iou.copy()
    for _ in range(len(iou)):
        n, p = np.unravel_index(left.argmax(), left.shape)
        found[p] = labels[n]
        left[n], left[:, p] = -1, -1
    return found


@pytest.mark.parametrize("one_each", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_matching_is_that_of_a_loop(seed, one_each):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 44, (6, 2))
    low[3] = low[0]
    high = low + rng.uniform(3, 30, (6, 2))
    # Two objects whose best prior is the same.
    high[3] = high[0] + 0.5
    truth = objects(*np.concatenate([low, high], axis=1))
    target = Match(one_each=one_each).targets(truth, PRIORS, 6)
    iou = np.stack([reference.iou_row(box, PRIORS) for box in truth.boxes])
    expected = oracle(iou, truth.labels, 6, one_each)
    np.testing.assert_array_equal(target.labels, expected)
    np.testing.assert_array_equal(target.positive, expected < 6)
    np.testing.assert_array_equal(target.negative, expected == 6)
    if one_each:
        assert set(range(6)) <= {*expected.tolist()}


@pytest.mark.parametrize("seed", range(3))
def test_mining_takes_three_of_the_hardest_negatives_for_a_positive(seed):
    rng = np.random.default_rng(seed)
    truth = objects((3, 2, 18, 17), (30, 30, 52, 55))
    target = Match().targets(truth, PRIORS, 3)
    logits = rng.normal(0, 2, (len(PRIORS), 4)).astype("f")
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    positive, labels = np.asarray(target.positive), np.asarray(target.labels)
    loss = -log_probs[np.arange(len(labels)), labels]
    hard = sorted((loss[p] for p in np.flatnonzero(~positive)), reverse=True)
    expected = loss[positive].sum() + sum(hard[: 3 * positive.sum()])
    got = Match().class_loss(logits, target)
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_priors_on_crowds_are_not_learnt():
    target = Match().targets(objects((0, 0, 32, 64), crowd=(0,)), PRIORS, 3)
    inside = (PRIORS[:, 2] <= 32) & (PRIORS >= 0).all(axis=1)
    assert inside.any()
    assert not (target.positive | target.negative)[inside].any()


def test_an_odd_row_is_kept_or_left_out():
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(pooled(x)[0, ..., 0], [[4]])
    np.testing.assert_array_equal(pooled(x, ceil=True)[0, ..., 0], [[4, 5], [7, 8]])


def test_fitted_priors_fit_and_are_settings():
    made = models.make(**SSD)
    placed = made.priors((64, 64))
    low = np.random.default_rng(0).uniform(0, 40, (60, 2))
    truth = np.concatenate([low, low + np.array([9, 20])], axis=1).astype("f")
    held = placed.fitted(truth)
    fitted = {k.removeprefix("priors."): v for k, v in held.items()}
    again = models.make(**{**SSD, "priors": fitted}).priors((64, 64))
    before, after = (
        anchors.best_iou(truth, levels)[0].max(axis=1).mean()
        for levels in (placed.levels, again.levels)
    )
    assert after > before + 0.02


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"priors": {"scales": (0.1, 0.2)}}, "has 3 levels.*and one more"),
        ({"priors": {**SSD["priors"], "steps": (8, 16)}}, "number for each of the 3"),
        ({"extras": {"features": (8, 8)}}, "equal length"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, told):
    with pytest.raises(UserError, match=told):
        models.make(**{**SSD, **changes})


def test_images_too_small_for_the_levels_are_a_sentence():
    extras = {**SSD["extras"], "kernels": (5,), "paddings": (0,)}
    made = models.make(**{**SSD, "extras": extras})
    with pytest.raises(UserError, match="too few for a kernel of 5"):
        jax.eval_shape(made.init, key(), batch().inputs.images)
