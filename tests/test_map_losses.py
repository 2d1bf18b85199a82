"""Losses of maps against slow oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax import losses
from detjax.models.pixelwise import Loss, ValueLoss
from detjax.types import LabelMap, ValueMap


def drawn(seed=0, shape=(2, 5, 7), classes=4):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((*shape, classes)).astype(np.float32) * 2
    labels = rng.integers(0, classes - 1, shape)  # the last class has no pixel
    mask = rng.random(shape) < 0.7
    return logits, labels.astype(np.int32), mask


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def slow_lovasz(logits, labels, mask):
    """Berman et al. 2018: the sum of sorted errors by the growth of the Jaccard loss,
    counted set by set."""
    p, t = softmax(logits[mask].astype(np.float64)), labels[mask]
    found = []
    for c in range(logits.shape[-1]):
        truth = t == c
        if not truth.any():
            continue
        errors = np.where(truth, 1 - p[:, c], p[:, c])
        order = np.argsort(-errors, kind="stable")
        last, total = 0.0, 0.0
        wrong = np.zeros(len(t), bool)
        for i in order:
            wrong[i] = True
            # The Jaccard loss where exactly these pixels are wrong.
            said = truth ^ wrong
            now = 1 - (said & truth).sum() / (said | truth).sum()
            total += errors[i] * (now - last)
            last = now
        found.append(total)
    return np.mean(found)


def slow_dice(logits, labels, mask):
    p, t = softmax(logits[mask].astype(np.float64)), labels[mask]
    found = []
    for c in np.unique(t):
        truth = t == c
        both = p[truth, c].sum()
        found.append(1 - (2 * both + 1) / (p[:, c].sum() + truth.sum() + 1))
    return np.mean(found)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("loss", "oracle"),
    [(losses.lovasz_softmax, slow_lovasz), (losses.dice, slow_dice)],
)
def test_regions_equal_their_oracles(loss, oracle, seed):
    given = drawn(seed)
    assert loss(*given) == pytest.approx(oracle(*given), rel=1e-5)


@pytest.mark.parametrize("loss", [losses.lovasz_softmax, losses.dice])
def test_what_is_ignored_changes_nothing_of_regions(loss):
    logits, labels, mask = drawn()
    junk = np.where(mask[..., None], logits, 37.0)
    call = jax.jit(jax.value_and_grad(loss))
    (a, da), (b, db) = call(logits, labels, mask), call(junk, labels * 0 + labels, mask)
    assert a == b
    np.testing.assert_array_equal(da, db)
    assert not np.asarray(da)[~mask].any()
    nothing = call(logits, labels, np.zeros_like(mask))
    assert nothing[0] == 0
    assert not np.asarray(nothing[1]).any()


def test_lovasz_of_a_perfect_map_is_0_and_of_a_wrong_one_1():
    _, labels, mask = drawn()
    right = 50.0 * np.eye(4, dtype=np.float32)[labels]
    wrong = 50.0 * np.eye(4, dtype=np.float32)[(labels + 1) % 3]
    assert losses.lovasz_softmax(right, labels, mask) == pytest.approx(0, abs=1e-6)
    assert losses.lovasz_softmax(wrong, labels, mask) == pytest.approx(1, abs=1e-6)


def test_hardest_keeps_what_is_hard_and_a_share_at_least():
    rng = np.random.default_rng(1)
    values = rng.random((3, 50)).astype(np.float32)
    mask = rng.random((3, 50)) < 0.6
    kept = losses.hardest(values, mask, 0.9, 0.01)
    np.testing.assert_array_equal(kept, mask & (values >= 0.9))
    kept = np.asarray(losses.hardest(values, mask, 2.0, 0.25))
    assert kept.sum() == np.ceil(0.25 * mask.sum())
    assert values[kept].min() > values[mask & ~kept].max()
    assert not np.asarray(losses.hardest(values, mask & False, 0.5, 0.5)).any()


def test_focal_of_a_softmax_is_the_cross_entropy_less_what_is_easy():
    logits, labels, _ = drawn()
    p = np.take_along_axis(softmax(logits), labels[..., None], -1)[..., 0]
    for gamma in (0.0, 0.5, 2.0):
        found = losses.softmax_focal(logits, labels, gamma)
        np.testing.assert_allclose(found, -((1 - p) ** gamma) * np.log(p), rtol=2e-5)
    sure = 200.0 * np.eye(4, dtype=np.float32)[labels]
    gradient = jax.grad(lambda x: losses.softmax_focal(x, labels, 0.5).sum())(sure)
    assert np.isfinite(np.asarray(gradient)).all()


def test_scale_invariant_log_forgives_a_factor():
    rng = np.random.default_rng(2)
    target = rng.uniform(1, 9, (4, 6)).astype(np.float32)
    found = target * np.exp(rng.standard_normal((4, 6)).astype(np.float32))
    mask = rng.random((4, 6)) < 0.8
    d = (np.log(found) - np.log(target))[mask]
    for share in (0.0, 0.5, 1.0):
        wanted = (d**2).mean() - share * d.mean() ** 2
        said = losses.scale_invariant_log(found, target, mask, share)
        assert said == pytest.approx(wanted, rel=1e-5)
    scaled = losses.scale_invariant_log(7 * target, target, mask, 1.0)
    assert scaled == pytest.approx(0, abs=1e-5)
    # Targets that have no logarithm are left out.
    target[0] = 0
    value, gradient = jax.value_and_grad(losses.scale_invariant_log)(
        jnp.asarray(found), target, mask
    )
    assert np.isfinite(value)
    assert not np.asarray(gradient)[0].any()


def test_berhu_is_l1_below_its_threshold_and_squared_above():
    target = np.zeros(5, np.float32)
    found = np.float32([0.1, -0.5, 1.0, 4.0, 99.0])
    mask = np.array([True, True, True, True, False])
    c = 0.2 * 4
    wanted = [0.1, 0.5, (1 + c * c) / (2 * c), (16 + c * c) / (2 * c)]
    said = np.asarray(losses.berhu(found, target, mask))[mask]
    np.testing.assert_allclose(said, wanted, rtol=1e-6)


def target_of(labels, mask, weights=None):
    if weights is not None:
        weights = np.tile(np.float32(weights), (len(labels), 1))
    return LabelMap(labels.astype(np.uint8), mask, weights)


def test_means_of_pixels_are_torchs_and_caffes():
    logits, labels, mask = drawn()
    own = np.float32([1.0, 2.0, 0.5, 3.0])
    each = np.asarray(losses.softmax_cross_entropy(logits, labels))[mask]
    counted = own[labels][mask]
    n, images = mask.sum(), 2
    for target, weights in ((None, np.ones(n)), (own, counted)):
        total = (each * weights).sum()
        for over, by in {
            "weights": weights.sum(),
            "pixels": n,
            "images": images,
            "pixels_and_images": n * images,
        }.items():
            found = Loss(mean_over=over)(logits, target_of(labels, mask, target), 2)
            assert found == pytest.approx(total / by, rel=1e-5), over


def test_terms_are_added():
    logits, labels, mask = drawn()
    target = target_of(labels, mask)
    whole = Loss(dice=0.5, lovasz=2.0)(logits, target, 2)
    wanted = (
        Loss()(logits, target, 2)
        + 0.5 * slow_dice(logits, labels, mask)
        + 2 * slow_lovasz(logits, labels, mask)
    )
    assert whole == pytest.approx(float(wanted), rel=1e-5)
    assert Loss(pixels=None, dice=1.0)(logits, target, 2) == pytest.approx(
        slow_dice(logits, labels, mask), rel=1e-5
    )
    hard = Loss(pixels="ohem", threshold=0.0, least=0.25)(logits, target, 2)
    each = np.sort(np.asarray(losses.softmax_cross_entropy(logits, labels))[mask])
    count = int(np.ceil(0.25 * mask.sum()))
    assert hard == pytest.approx(each[-count:].mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "l2", "berhu", "scale_invariant_log"])
def test_unknown_values_do_not_count(kind):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 4, 5, 1)).astype(np.float32)
    values = rng.uniform(1, 5, (2, 4, 5)).astype(np.float32)
    valid = rng.random((2, 4, 5)) < 0.5
    loss = ValueLoss(kind, start=2.0)

    @jax.value_and_grad
    def call(x, values):
        return loss(loss.values(x), ValueMap(values, valid))

    junk = np.where(valid, values, 1e9)
    (a, da), (b, db) = call(x, values), call(x, junk)
    assert a == b
    np.testing.assert_array_equal(da, db)
    assert not np.asarray(da)[~valid].any()
    if kind == "l1":
        found = np.log1p(np.exp(x[..., 0] + 2))
        assert a == pytest.approx(np.abs(found - values)[valid].mean(), rel=1e-5)
