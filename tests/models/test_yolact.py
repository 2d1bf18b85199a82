"""YOLACT's own rules, one at a time; the whole is checked by the parity suite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import YOLACT, batch, key

from detjax import models
from detjax.models import yolact
from detjax.models.yolact import Outputs, Targets
from detjax.nn.images import normalize
from detjax.ops import anchors
from detjax.types import Detections, Objects

COUNTS = {
    "yolact_resnet50": 31_164_943,
    "yolact_base": 50_157_071,
    "yolact_darknet53": 47_783_087,
    "yolact_plus_resnet50": 33_766_460,
}
SIZED = {
    "yolact_im400": [17, 34, 69, 139, 279],
    "yolact_im700": [30, 61, 122, 244, 488],
}
PRIORS = anchors.grid([(8, 8), (4, 4)], (64, 64), ((12,), (24,)), (1.0,))
RULES = {
    "num_classes": 3,
    "positive": 0.5,
    "negative": 0.4,
    "crowd_threshold": 0.7,
}


@pytest.mark.parametrize("name", yolact.ORIGINALS)
def test_originals_have_their_parameters(name):
    model, side = models.make(name), models.SIDES[name]
    images = np.zeros((1, side, side, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    if name in COUNTS:
        assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]
    found = jax.eval_shape(model.predict, params, state, images)
    assert found.boxes.shape == (1, 100, 4)
    assert (found.mask_scores is not None) == ("plus" in name)


def test_other_inputs_have_priors_of_whole_pixels():
    sides = {n: [s for (s,) in yolact.ORIGINALS[n]["sizes"]] for n in SIZED}
    assert sides == SIZED
    assert yolact.ORIGINALS["yolact_im700"]["masks_to_train"] == 300


def test_darknets_pixels_are_in_0_to_1():
    assert yolact.ORIGINALS["yolact_darknet53"]["pixels"] == "unit"
    image = np.full((1, 2, 2, 3), 51, np.uint8)
    np.testing.assert_allclose(normalize(image, "unit"), 0.2, rtol=1e-6)


def objects(*boxes, crowd=()):
    n = len(boxes)
    return Objects(
        boxes=np.float32(boxes),
        labels=np.arange(n, dtype=np.int32),
        valid=np.ones(n, bool),
        crowd=np.isin(np.arange(n), crowd),
        masks=np.ones((n, 16, 16), np.uint8),
    )


def test_every_object_gets_a_prior_however_bad_the_match():
    target = yolact.targets(objects((0, 0, 5, 64), (30, 30, 35, 35)), PRIORS, **RULES)
    assert set(np.asarray(target.labels)[np.asarray(target.positive)]) == {0, 1}
    assert (np.asarray(target.labels)[~np.asarray(target.positive)] == 3).all()


def test_objects_without_an_area_are_not_learnt():
    target = yolact.targets(objects((10, 10, 10, 40)), PRIORS, **RULES)
    assert not target.positive.any()
    assert target.negative.all()


def test_priors_on_crowds_are_neutral():
    target = yolact.targets(objects((0, 0, 32, 64), crowd=(0,)), PRIORS, **RULES)
    assert not target.positive.any()
    centre = (PRIORS[:, 0] + PRIORS[:, 2]) / 2
    inside = (PRIORS[:, 2] <= 32) & (PRIORS[:, 0] >= 0)
    # Most of a prior lies in the crowd, or it does not.
    assert not target.negative[inside & (centre < 20)].any()
    assert target.negative[PRIORS[:, 0] >= 32].all()


def test_class_loss_takes_three_of_the_hardest_negatives_for_a_positive():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((20, 4)).astype("f")
    positive, negative = np.arange(20) < 2, np.arange(20) >= 5
    labels = np.where(positive, 1, 3).astype(np.int32)
    target = Targets(np.zeros(20, np.int32), labels, None, positive, negative)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    hard = np.argsort(np.where(negative, log_probs[:, 3], np.inf))[:6]
    expected = -log_probs[:2, 1].sum() - log_probs[hard, 3].sum()
    got = yolact.class_loss(logits, target, 3)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def outputs_of(p, q=3, side=16, seed=0):
    rng = np.random.default_rng(seed)
    return Outputs(
        deltas=np.zeros((p, 4), np.float32),
        logits=np.zeros((p, 4), np.float32),
        priors=PRIORS[:p],
        coefficients=jnp.tanh(rng.standard_normal((p, q)).astype("f")),
        prototypes=jnp.asarray(rng.random((side, side, q)).astype("f")),
    )


def positives_of(p, chosen):
    positive = np.isin(np.arange(p), chosen)
    return Targets(
        np.zeros(p, np.int32), np.zeros(p, np.int32), None, positive, ~positive
    )


def test_mask_loss_is_its_definition():
    """BCE inside the box and a cell around it, over the box's part of the image."""
    things, out = objects((16, 8, 48, 40)), outputs_of(20)
    things.masks[0, :, 8:] = 0
    target = positives_of(20, [3, 7])
    sample = yolact.sample_masks(out, things, target, key(), size=(64, 64), limit=10)
    got = yolact.mask_loss(sample, jnp.sum(target.positive))
    expected = 0.0
    for p in (3, 7):
        m = 1 / (1 + np.exp(-np.asarray(out.prototypes) @ out.coefficients[p]))
        truth = things.masks[0].astype(float)
        loss = -truth * np.log(m) - (1 - truth) * np.log(1 - m)
        window = np.zeros((16, 16), bool)
        window[1:11, 3:13] = True  # cells 2..10 and 4..12, one more on each side
        loss = np.where(window, loss, 100 * truth)
        expected += loss.sum() / (8 * 8)
    assert float(got) == pytest.approx(expected, rel=1e-4)


def test_a_drawn_sample_pays_for_all_positives():
    things, out = objects((0, 0, 64, 64)), outputs_of(40)
    same = out._replace(coefficients=jnp.ones_like(out.coefficients) * 0.3)
    target = positives_of(40, range(20))
    losses = [
        yolact.mask_loss(
            yolact.sample_masks(same, things, target, key(), size=(64, 64), limit=n),
            jnp.sum(target.positive),
        )
        for n in (5, 40)
    ]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)


def test_semantic_loss_is_over_the_union_of_a_classs_masks():
    things = objects((0, 0, 32, 64), (32, 0, 64, 64))
    things.masks[:] = 0
    things.masks[0, :, :8] = 1
    things.masks[1, :, 8:] = 1
    logits = np.zeros((16, 16, 3), np.float32)
    logits[..., 2] = -50
    got = yolact.semantic_loss(jnp.asarray(logits), things)
    assert float(got) == pytest.approx(2 * np.log(2), rel=1e-5)
    logits[:, :8, 0], logits[:, 8:, 0] = 50, -50
    logits[:, :8, 1], logits[:, 8:, 1] = -50, 50
    assert float(yolact.semantic_loss(jnp.asarray(logits), things)) < 1e-5


def test_rescoring_keeps_the_two_scores_apart():
    found = Detections(
        boxes=np.zeros((2, 4), np.float32),
        scores=np.float32([0.9, 0.8]),
        labels=np.int32([1, 0]),
        valid=np.ones(2, bool),
    )
    scored = yolact.rescore(found, np.float32([[0.1, 0.5], [0.25, 1]]))
    np.testing.assert_allclose(scored.scores, [0.9, 0.8])
    np.testing.assert_allclose(scored.mask_scores, [0.45, 0.2])


def test_rescoring_learns_at_a_grid_that_it_fits():
    made = models.make(**{**YOLACT, "levels": (2, 3), "rescoring": True})
    data = batch()
    # Prototypes need 63 cells a side: twice the picture.
    data = data.replace(
        images=data.images.repeat(2, axis=1).repeat(2, axis=2),
        objects=data.objects.replace(boxes=2 * data.objects.boxes),
    )
    # Most seeds leave the last ReLU open somewhere, not all of them.
    params, state = jax.jit(made.init)(jax.random.key(1), data.images)
    (_, (_, metrics)), gradients = jax.jit(jax.value_and_grad(made.loss, has_aux=True))(
        params, state, data, key()
    )
    assert metrics["rescore"] > 0
    assert all(
        jnp.any(g != 0)
        for g in jax.tree.leaves(gradients["maskiou_net"]["maskiou_net.10"])
    )


def test_rescoring_says_what_it_needs():
    made = models.make(**{**YOLACT, "rescoring": True})
    with pytest.raises(ValueError, match="63"):
        jax.eval_shape(made.init, key(), batch().images)


def test_wrong_sizes_are_told():
    with pytest.raises(ValueError, match="2 levels and 1 extra levels"):
        models.make(**{**YOLACT, "sizes": ((12,), (24,))})


def test_masks_asked_of_data_without_them_are_an_error():
    made = models.make(**YOLACT)
    params, state = jax.eval_shape(made.init, key(), batch().images)
    data = batch()
    data = data.replace(objects=data.objects.replace(masks=None))
    with pytest.raises(ValueError, match=r"set model\.masks=False"):
        jax.eval_shape(made.loss, params, state, data, key())
