"""Two-stage detectors' own rules, one at a time; parity checks the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import (
    C4,
    KEYPOINT,
    MASK,
    TINY,
    TWO_STAGE,
    batch,
    key,
    objects,
    with_inputs,
    with_stages,
    with_target,
)

from detjax import models, settings
from detjax.models import earlier, two_stage
from detjax.models.two_stage import RPN, Box, Detect, RoI, mask, mask_iou
from detjax.models.two_stage.roi import Regions
from detjax.models.two_stage.rpn import Priors
from detjax.ops.anchors import strides
from detjax.types import Inputs, Proposals
from tests import reference

WINDOW = np.float32([0, 0, 64, 64])


@pytest.mark.parametrize("name", two_stage.ORIGINALS)
def test_originals_predict_at_full_size(name):
    model = models.make(name)
    images = np.zeros((1, 800, 1088, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    found = jax.eval_shape(model.predict, params, state, Inputs(images))
    assert found.boxes.shape == (1, 100, 4)
    assert (found.box_masks is not None) == ("mask" in name)
    assert (found.keypoints is not None) == ("keypoint" in name)


@pytest.mark.parametrize("backbone", ["resnet101", "resnext50_32x4d"])
def test_other_backbones_fit(backbone):
    model = models.make("mask_rcnn", num_classes=2, backbone=backbone)
    images = np.zeros((1, 64, 64, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    found = jax.eval_shape(model.predict, params, state, Inputs(images))
    assert found.box_masks.shape == (1, 100, 28, 28)


@pytest.mark.parametrize("name", ["fast_rcnn", "faster_rcnn_vgg16", "faster_rcnn_c4"])
def test_the_first_papers_models_fit(name):
    model, data = models.make(name, num_classes=20), batch()
    params, state = jax.eval_shape(model.init, key(), data.inputs.images)
    loss = jax.eval_shape(model.loss, params, state, data, key())[0]
    assert loss.shape == ()


def propose(logits, deltas, priors, counts, pre_nms=10, min_size=1.0):
    stage = RPN(pre_nms=(pre_nms, 1), post_nms=(4, 1), min_size=min_size)
    found = stage.propose(
        np.float32(logits),
        np.float32(deltas),
        Priors(np.float32(priors), counts),
        WINDOW,
        train=True,
    )
    return np.asarray(found.boxes)[np.asarray(found.valid)].tolist()


def test_proposals_are_suppressed_within_their_level_only():
    priors = [[0, 0, 20, 20], [0, 0, 20, 21], [0, 0, 20, 22], [40, 40, 80, 60]]
    still = np.zeros((4, 4))
    assert propose([1, 3, 2, 0], still, priors, (4,)) == [
        [0, 0, 20, 21],
        [40, 40, 64, 60],
    ]
    assert propose([1, 3, 2, 0], still, priors, (2, 2)) == [
        [0, 0, 20, 21],
        [0, 0, 20, 22],
        [40, 40, 64, 60],
    ]
    assert propose([1, 3, 2, 9], still, priors, (4,), pre_nms=1) == [[40, 40, 64, 60]]
    assert propose([1, 3, 2, 9], still, priors, (4,), min_size=22) == []


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("post_nms", [5, 40, 200])
def test_proposals_are_the_best_that_suppression_leaves_of_all_levels(post_nms, tied):
    """Levels are suppressed side by side and not beyond what can be proposed."""
    rng, counts, pre_nms = np.random.default_rng(post_nms), (70, 40, 12, 1), 50
    low = rng.integers(0, 50, (sum(counts), 2))
    priors = np.concatenate([low, low + rng.integers(0, 14, low.shape)], 1)
    priors = priors.astype(np.float32)
    logits = rng.normal(0, 9, len(priors)).astype(np.float32)
    if tied:  # also where the probability is 1, which different logits are
        logits = np.float32(rng.integers(-2, 3, len(priors)) * 20 + rng.random())
    deltas = np.zeros((len(priors), 4), np.float32)
    stage = RPN(pre_nms=(pre_nms, 1), post_nms=(post_nms, 1), nms_threshold=0.3)
    placed = Priors(priors, counts)
    found = jax.jit(lambda x: stage.propose(x, deltas, placed, WINDOW, True))(logits)
    ends = np.cumsum(counts)
    best = np.concatenate(
        [
            start + np.argsort(-logits[start:end], kind="stable")[:pre_nms]
            for start, end in zip(ends - counts, ends, strict=True)
        ]
    )
    scores = np.asarray(jax.nn.sigmoid(logits[best]))
    level = np.searchsorted(ends, best, side="right")
    sound = (priors[best, 2:] - priors[best, :2] >= stage.min_size).all(axis=1)
    keep = reference.greedy_nms(priors[best], scores, 0.3, sound, level)
    order = sorted(np.flatnonzero(keep), key=lambda i: (-scores[i], i))[:post_nms]
    assert found.valid.tolist() == [i < len(order) for i in range(post_nms)]
    np.testing.assert_array_equal(found.boxes[: len(order)], priors[best[order]])
    assert not np.any(found.boxes[len(order) :])


def test_training_and_prediction_have_their_own_numbers_of_proposals():
    stage = RPN(pre_nms=(3, 2), post_nms=(3, 1), nms_threshold=0.9)
    boxes = np.float32([[0, 0, 20, 20], [30, 0, 50, 20], [0, 30, 20, 50]])
    given = np.float32([1, 3, 2]), np.zeros((3, 4), np.float32), Priors(boxes, (3,))
    learnt, found = (stage.propose(*given, WINDOW, train=t) for t in (True, False))
    np.testing.assert_allclose(learnt.boxes, boxes[[1, 2, 0]])
    np.testing.assert_allclose(found.boxes, boxes[[1]])


def drawn(proposals, things, **settings):
    boxes = np.float32(proposals).reshape(-1, 4)
    return RoI(**{"samples": 100, **settings}).sample(
        Proposals(boxes, np.ones(len(boxes), bool)), things, key(), num_classes=3
    )


def test_regions_are_positive_negative_or_left_out_by_their_overlap():
    things = objects((0, 0, 20, 20))
    # Overlaps of 0.8, 0.4 and 0.2 beside the object's own box.
    given = [[0, 0, 20, 16], [0, 0, 20, 8], [0, 0, 20, 4]]
    found = drawn(given, things, positive=0.5, negative=0.3)
    boxes = np.asarray(found.boxes)[np.asarray(found.chosen)].tolist()
    assert sorted(boxes) == [[0, 0, 20, 4], [0, 0, 20, 16], [0, 0, 20, 20]]
    assert np.asarray(found.labels)[np.asarray(found.positive)].tolist() == [0, 0]
    assert (np.asarray(found.labels)[~np.asarray(found.positive)] == 3).all()
    assert np.sum(drawn(given, things).chosen) == 4
    near = drawn(given, things, negative=0.5, background=0.3)
    assert np.sum(near.chosen) == 3
    none = things.replace(valid=np.array([False]))
    assert not drawn(given, none, background=0.3).chosen.any()


def test_regions_on_crowds_are_left_out():
    found = drawn(
        [[0, 0, 10, 10], [40, 40, 50, 50]], objects((0, 0, 30, 30), crowd=[0])
    )
    chosen = np.asarray(found.chosen)
    assert np.asarray(found.boxes)[chosen].tolist() == [[40, 40, 50, 50]]
    assert not found.positive.any()


def regions(boxes, positive, labels):
    n = len(boxes)
    return Regions(
        np.float32(boxes),
        np.ones(n, bool),
        np.array(positive),
        np.zeros(n, np.int32),
        np.int32(labels),
        np.ones((n, 4), np.float32),
    )


def test_box_losses_are_their_definitions():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 4)).astype("f")
    deltas = rng.standard_normal((3, 4, 4)).astype("f")
    found = regions(np.zeros((3, 4)), [True, False, True], [1, 3, 0])
    entropy, distance, count = Box().losses(logits, deltas, found)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(entropy) == pytest.approx(-log_probs[[0, 1, 2], [1, 3, 0]].sum(), 1e-5)
    apart = np.abs(np.stack([deltas[0, 1], deltas[2, 0]]) - 1)
    smooth = np.where(apart < 1 / 9, 4.5 * apart**2, apart - 1 / 18)
    assert float(distance) == pytest.approx(smooth.sum(), rel=1e-5)
    assert int(count) == 3
    _, plain, _ = Box(beta=1.0).losses(logits, deltas, found)
    round_ = np.where(apart < 1, apart**2 / 2, apart - 0.5)
    assert float(plain) == pytest.approx(round_.sum(), rel=1e-5)


def test_a_predicted_iou_is_learnt_where_the_mask_overlaps():
    found = regions(np.zeros((3, 4)), [True, True, False], [1, 0, 3])
    predicted = np.float32([[0.1, 0.8], [0.3, 0.2], [0.9, 0.9]])
    loss, count = mask_iou.loss(predicted, np.float32([0.5, 0, 0.7]), found)
    assert float(loss) == pytest.approx(0.3**2 / 2, rel=1e-5)
    assert int(count) == 1


@pytest.mark.parametrize("window", [(0, 0, 64, 64), (60, 60, 64, 64)])
def test_priors_that_leave_the_image_can_be_left_out(window):
    priors = np.float32([[-4, 0, 16, 20], [2, 0, 20, 20], [44, 50, 60, 64]])
    things = objects((0, 0, 16, 20))
    stage = RPN(positive=0.95, negative=0.3, inside=True)
    match = stage.match(things, priors, np.float32(window), crowd_threshold=0.7)
    if window[0]:
        assert not match.positive.any() and not match.negative.any()
    else:
        # The first overlaps more; the second is the best of those inside.
        assert match.positive.tolist() == [False, True, False]
        assert match.negative.tolist() == [False, False, True]


def test_batch_norm_in_the_heads_stands_a_batch_without_objects():
    """Its statistics are those of the regions that are learnt; there are none."""
    made = models.make(
        name="mask_rcnn",
        **with_stages(
            box={"head": "convs", "norm": "batch"}, mask={**MASK, "norm": "batch"}
        ),
    )
    data = batch(objects=0)
    params, state = jax.jit(made.init)(key(), data.inputs.images)
    step = jax.jit(jax.value_and_grad(made.loss, has_aux=True))
    (loss, (after, _)), gradients = step(params, state, data, key())
    for tree in (loss, after, gradients):
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(tree))
    mask_head = state["batch_stats"]["roi_heads"]["mask_head"]
    kept = after["batch_stats"]["roi_heads"]["mask_head"]
    jax.tree.map(np.testing.assert_array_equal, mask_head, kept)
    (_, (after, _)), _ = step(params, state, batch(), key())
    moved = after["batch_stats"]["roi_heads"]["mask_head"]
    assert all(
        (a != b).any()
        for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(kept), strict=True)
    )


def test_masks_that_leave_their_region_fit_less():
    """An object half inside its region, found there pixel by pixel: IoU one half."""
    things = objects((0, 0, 64, 64))
    found = regions([[0, 0, 32, 64]], [True], [0])
    truth = mask.targets(found, things, cells=8, size=(64, 64))
    np.testing.assert_allclose(truth, 1)
    probs = np.ones((1, 8, 8), "f")
    fit = mask_iou.targets(probs, truth, found, things, size=(64, 64))
    assert float(fit[0]) == pytest.approx(0.5)


def test_detections_are_suppressed_by_class():
    proposals = Proposals(
        np.float32([[0, 0, 20, 20], [0, 0, 20, 21], [30, 30, 50, 50]]),
        np.array([True, True, False]),
    )
    logits = np.log(np.float32([[0.5, 0.3, 0.2], [0.6, 0.02, 0.38], [1, 0.1, 0.1]]))
    stage = Detect(pre_nms_top_k=100, max_detections=5)
    deltas = np.zeros((3, 3, 4), np.float32)
    found = stage.detections(logits, deltas, proposals, WINDOW)
    assert found.valid.tolist() == [True, True, False, False, False]
    np.testing.assert_allclose(found.scores[:2], [0.6, 0.3], rtol=1e-5)
    assert found.labels[:2].tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes[0], [0, 0, 20, 21])


def test_cells_are_as_far_apart_as_torchvisions():
    assert strides([(112, 104), (7, 7)], (448, 416)) == [(4, 4), (64, 59)]
    assert strides([(138, 138), (9, 9)], (550, 550)) == [(4, 4), (64, 64)]


def test_a_sample_that_cannot_hold_all_still_learns():
    made = models.make(
        name="ms_rcnn",
        **with_stages(rpn={"samples": 8}, roi={"samples": 8}, mask=MASK),
    )
    params, state = jax.jit(made.init)(key(), batch().inputs.images)
    loss, (_, metrics) = jax.jit(made.loss)(params, state, batch(), key())
    assert jnp.isfinite(loss)
    assert 0 < metrics["positives"] <= 4


LAST_STAGE = {"box": {"head": "last_stage"}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (with_stages(rpn={"sizes": ((12,), (24,))}), "the 3 levels"),
        (with_stages(box={"head": "svm"}), "box.head='svm'"),
        (with_stages(roi={"pooling": "mean"}), "roi.pooling='mean'"),
        (with_stages(roi={"pooling": "max"}), "one level"),
        (
            with_stages(**LAST_STAGE, backbone={"levels": (4, 5)}),
            "last stage of a ResNet",
        ),
        (with_stages(mask_iou={}), "set mask=True"),
        (with_stages(backbone={"levels": (3, 5)}), "follow one another"),
        ({**C4, **LAST_STAGE, "backbone": {"levels": (4,), "norm": "batch"}}, "statis"),
        ({**TWO_STAGE, "samples": 8}, "samples"),
        (with_stages(rpn={"positiv": 0.8}), "rpn.positiv.*positive"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, told):
    with pytest.raises(ValueError, match=told):
        models.make("faster_rcnn", **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"roi": RoI(pooling="mean")}, "roi.pooling='mean'"),
        ({"box": Box("svm")}, "box.head='svm'"),
    ],
)
def test_stages_made_by_hand_are_checked_too(changes, told):
    with pytest.raises(ValueError, match=told):
        two_stage.two_stage(num_classes=3, **changes)


def test_a_masks_scorer_is_as_wide_as_its_neighbours_or_as_it_is_set():
    widths = []
    for changes in ({}, {"features": 4, "hidden": 6}):
        stages = with_stages(mask={**MASK, "features": 16}, mask_iou=changes)
        made = models.make("ms_rcnn", **stages)
        params, _ = jax.eval_shape(made.init, key(), batch().inputs.images)
        head = params["roi_heads"]["mask_iou"]
        layers = "maskiou_fcn1", "maskiou_fc1"
        widths.append(tuple(head[layer]["kernel"].shape[-1] for layer in layers))
    assert widths == [(16, 16), (4, 6)]


def test_masks_and_keypoints_may_be_learnt_together():
    made = models.make("mask_rcnn", **with_stages(mask=MASK, keypoint=KEYPOINT))
    params, state = jax.eval_shape(made.init, key(), batch().inputs.images)
    _, (_, metrics) = jax.eval_shape(made.loss, params, state, batch(), key())
    assert {"mask", "keypoint"} < metrics.keys()
    found = jax.eval_shape(made.predict, params, state, batch().inputs)
    assert found.box_masks.shape == (2, 10, 12, 12)
    assert found.keypoints.shape == (2, 10, 2, 3)


@pytest.mark.parametrize(
    ("name", "without", "told"),
    [
        ("ms_rcnn", {"masks": None}, "learns masks"),
        ("keypoint_rcnn", {"keypoints": None}, "2 keypoints but the batch has none"),
    ],
)
def test_what_the_batch_lacks_is_named(name, without, told):
    made, data = models.make(**TINY[name]), batch()
    params, state = jax.eval_shape(made.init, key(), data.inputs.images)
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(made.loss, params, state, with_target(data, **without), key())


def test_fast_rcnn_needs_proposals():
    made, data = models.make(**TINY["fast_rcnn"]), batch()
    assert made.spec.needs == ("proposals",)
    params, state = jax.eval_shape(made.init, key(), data.inputs.images)
    bare = with_inputs(data, proposals=None).inputs
    with pytest.raises(ValueError, match="makes no proposals"):
        jax.eval_shape(made.predict, params, state, bare)


EARLIER = {
    "num_classes": 3,
    "backbone": "resnet10",
    "backbone_width": 8,
    "levels": (3, 4),
    "features": 8,
    "fpn_norm": "group",
    "sizes": ((12,), (24,), (48,)),
    "rpn_depth": 2,
    "box_head": "convs",
    "hidden": 16,
    "head_norm": "group",
    "masks": True,
    "mask_bins": 6,
    "mask_features": 8,
    "mask_depth": 1,
    "keypoints": 0,
    "keypoint_features": 512,
}


def test_settings_of_earlier_versions_make_the_same_net():
    before, now = (
        models.make("mask_rcnn", **stages)
        for stages in (
            models.current("mask_rcnn", EARLIER),
            with_stages(
                fpn={"norm": "group"},
                rpn={"depth": 2},
                box={"head": "convs", "norm": "group"},
                mask={**MASK, "norm": "group"},
            ),
        )
    )
    images = batch().inputs.images
    one, other = (jax.eval_shape(m.init, key(), images) for m in (before, now))
    assert one == other


@pytest.mark.parametrize("model", ["mask_rcnn", "ms_rcnn", "keypoint_rcnn", "rcnn"])
def test_earlier_names_lead_to_settings(model):
    stages = settings.keywords(models.MODELS[model])
    for paths in models.EARLIER[model].values():
        for path in earlier.paths(paths):
            stage, _, name = path.partition(".")
            held = settings.stage_of(stages[stage].annotation)
            assert not name or name in settings.keywords(held), path
