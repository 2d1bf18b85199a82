"""YOLACT's own rules, one at a time; the whole is checked by the parity suite."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import YOLACT, batch, key, objects

from detjax import models
from detjax.errors import UserError
from detjax.models import yolact
from detjax.models.yolact.mask import Mask, mask_loss, semantic_loss
from detjax.models.yolact.match import Match, Targets
from detjax.models.yolact.net import Outputs
from detjax.models.yolact.rescore import rescored
from detjax.nn.images import normalize
from detjax.ops import anchors
from detjax.optim import names
from detjax.types import Detections, Inputs

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
MATCH = Match()


@pytest.mark.parametrize("name", yolact.ORIGINALS)
def test_originals_have_their_parameters(name):
    model, side = models.make(name), models.SIDES[name]
    images = np.zeros((1, side, side, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    if name in COUNTS:
        assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]
    found = jax.eval_shape(model.predict, params, state, Inputs(images))
    assert found.boxes.shape == (1, 100, 4)
    assert (found.mask_scores is not None) == ("plus" in name)


def test_other_inputs_have_priors_of_whole_pixels():
    sides = {n: [s for (s,) in yolact.ORIGINALS[n]["priors"].sizes] for n in SIZED}
    assert sides == SIZED
    assert yolact.ORIGINALS["yolact_im700"]["mask"].to_train == 300


def test_darknets_pixels_are_in_0_to_1():
    assert yolact.ORIGINALS["yolact_darknet53"]["pixels"] == "unit"
    image = np.full((1, 2, 2, 3), 51, np.uint8)
    np.testing.assert_allclose(normalize(image, "unit"), 0.2, rtol=1e-6)


def test_every_object_gets_a_prior_however_bad_the_match():
    target = MATCH.targets(objects((0, 0, 5, 64), (30, 30, 35, 35)), PRIORS, 3)
    assert set(np.asarray(target.labels)[np.asarray(target.positive)]) == {0, 1}
    assert (np.asarray(target.labels)[~np.asarray(target.positive)] == 3).all()


def test_objects_without_an_area_are_not_learnt():
    target = MATCH.targets(objects((10, 10, 10, 40)), PRIORS, 3)
    assert not target.positive.any()
    assert target.negative.all()


def test_priors_on_crowds_are_neutral():
    target = MATCH.targets(objects((0, 0, 32, 64), crowd=(0,)), PRIORS, 3)
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
    got = MATCH.class_loss(logits, target)
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
    sample = Mask(to_train=10).sample(out, things, target, key(), (64, 64))
    got = mask_loss(sample, jnp.sum(target.positive))
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
        mask_loss(
            Mask(to_train=n).sample(same, things, target, key(), (64, 64)),
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
    got = semantic_loss(jnp.asarray(logits), things)
    assert float(got) == pytest.approx(2 * np.log(2), rel=1e-5)
    logits[:, :8, 0], logits[:, 8:, 0] = 50, -50
    logits[:, :8, 1], logits[:, 8:, 1] = -50, 50
    assert float(semantic_loss(jnp.asarray(logits), things)) < 1e-5


def test_rescoring_keeps_the_two_scores_apart():
    found = Detections(
        boxes=np.zeros((2, 4), np.float32),
        scores=np.float32([0.9, 0.8]),
        labels=np.int32([1, 0]),
        valid=np.ones(2, bool),
    )
    scored = rescored(found, np.float32([[0.1, 0.5], [0.25, 1]]))
    np.testing.assert_allclose(scored.scores, [0.9, 0.8])
    np.testing.assert_allclose(scored.mask_scores, [0.45, 0.2])


def test_rescoring_learns_at_a_grid_that_it_fits():
    backbone = {**YOLACT["backbone"], "levels": (2, 3)}
    made = models.make(**{**YOLACT, "backbone": backbone, "rescore": True})
    data = batch()
    # Prototypes need 63 cells a side: twice the picture.
    images = data.inputs.images.repeat(2, axis=1).repeat(2, axis=2)
    data = data.replace(
        inputs=data.inputs.replace(images=images),
        target=data.target.replace(boxes=2 * data.target.boxes),
    )
    # Most seeds leave the last ReLU open somewhere, not all of them.
    params, state = jax.jit(made.init)(jax.random.key(1), images)
    (_, (_, metrics)), gradients = jax.jit(jax.value_and_grad(made.loss, has_aux=True))(
        params, state, data, key()
    )
    assert metrics["rescore"] > 0
    assert all(
        jnp.any(g != 0)
        for g in jax.tree.leaves(gradients["maskiou_net"]["maskiou_net.10"])
    )


def test_rescoring_says_what_it_needs():
    made = models.make(**{**YOLACT, "rescore": {"weight": 20.0}})
    with pytest.raises(UserError, match="63"):
        jax.eval_shape(made.init, key(), batch().inputs.images)


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"priors": {"sizes": ((12,), (24,))}},
            r"priors\.sizes=.* 2 levels and 1 extra levels",
        ),
        ({"priors": {"sizes": ((12,), (24, 3), (4,))}}, r"priors\.sizes="),
        ({"backbone": {"levels": (4, 3)}}, r"backbone\.levels=\(4, 3\) must rise"),
        ({"backbone": {"levels": (3, 9)}}, r"backbone\.levels=\(3, 9\) is not"),
        ({"mask": None, "rescore": True}, r"set model\.mask too"),
        ({"mask": {"prototypes": 0}}, r"model\.mask\.prototypes=0"),
    ],
)
def test_stages_that_do_not_fit_are_a_sentence(changes, words):
    with pytest.raises(UserError, match=words):
        models.make(**{**YOLACT, **changes})


def test_masks_wanted_of_data_without_them_are_an_error():
    made = models.make(**YOLACT)
    data = batch()
    params, state = jax.eval_shape(made.init, key(), data.inputs.images)
    data = data.replace(target=data.target.replace(masks=None))
    with pytest.raises(UserError, match=r"set model\.mask=None"):
        jax.eval_shape(made.loss, params, state, data, key())


def test_groups_are_parts_of_the_parameters():
    backbone = {**YOLACT["backbone"], "levels": (2, 3)}
    made = models.make(**{**YOLACT, "backbone": backbone, "rescore": True})
    images = np.zeros((1, 128, 128, 3), np.uint8)
    params, _ = jax.eval_shape(made.init, key(), images)
    groups = made.spec.groups
    assert list(groups) == ["backbone", "fpn", "box", "mask", "rescore"]
    known = jax.tree.leaves(names(params))
    hits = {g: {n for n in known if re.search(p, n)} for g, p in groups.items()}
    assert all(hits.values())
    # Each parameter is of one.
    assert (
        sum(map(len, hits.values())) == len(known) == len(set().union(*hits.values()))
    )
    assert list(models.make(**{**YOLACT, "mask": None}).spec.groups) == list(groups)[:3]


def test_earlier_names_are_those_of_stages():
    before = {
        "num_classes": 3,
        "backbone": "resnet10",
        "backbone_width": 8,
        "levels": (3, 4),
        "extra_levels": 1,
        "sizes": ((12,), (24,), (48,)),
        "features": 8,
        "num_prototypes": 4,
        "masks_to_train": 16,
        "top_k": 20,
        "max_detections": 10,
        "score_threshold": 0.01,
    }
    now = models.current("yolact", before)
    assert now == {
        "num_classes": 3,
        **{k: v for k, v in YOLACT.items() if k not in ("name", "num_classes")},
    }
    assert models.make("yolact", **now).net == models.make(**YOLACT).net
    # What was set of a branch that is off counts for nothing.
    off = models.current("yolact", {**before, "masks": False, "rescore_weight": 3.0})
    assert not off["mask"]
    assert "rescore" not in off
    on = models.current("yolact", {"rescoring": True, "min_mask_area": 9})
    assert on == {"rescore": {"min_area": 9}}


def test_both_names_of_a_setting_are_an_error():
    with pytest.raises(UserError, match=r"model\.features=8 .* model\.fpn\.features"):
        models.current("yolact", {"features": 8, "fpn": {"features": 16}})
