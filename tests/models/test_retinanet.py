"""RetinaNet's own rules; the whole is checked by the parity suite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import RETINANET, batch, key, objects

from detjax import models
from detjax.errors import UserError
from detjax.models import retinanet
from detjax.models.retinanet import Loss, Match, Priors
from detjax.ops import anchors, boxes
from detjax.types import Inputs
from tests import reference

COUNTS = {
    "retinanet_resnet50_fpn": 34_068_119,
    "retinanet_resnet50_fpn_v2": 38_198_935,
}
TORCHVISION = {
    "first": [[-23, -11, 23, 11], [-28, -14, 28, 14], [-35, -18, 35, 18]],
    "last": [[155, -150, 517, 574], [108, -244, 564, 668], [49, -362, 623, 786]],
    "sums": [5026705, 3306409, 6702383, 4982087],
}
PRIORS = anchors.rcnn([(8, 8), (4, 4)], [8, 16], [[12], [24]], [1.0])


@pytest.mark.parametrize("name", retinanet.ORIGINALS)
def test_originals_have_their_parameters(name):
    model, images = models.make(name), np.zeros((1, 320, 448, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]
    found = jax.eval_shape(model.predict, params, state, Inputs(images))
    assert found.boxes.shape == (1, 300, 4)


def test_priors_are_torchvisions():
    """Recorded from its AnchorGenerator, for inputs of 320 x 448: first, last, sums."""
    shapes = [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4)]
    placed = anchors.placed(Priors().levels(shapes, (320, 448)))
    assert placed.shape == (26_883, 4)
    np.testing.assert_array_equal(placed[:3], TORCHVISION["first"])
    np.testing.assert_array_equal(placed[-3:], TORCHVISION["last"])
    np.testing.assert_allclose(
        placed.astype(np.float64).sum(axis=0), TORCHVISION["sums"], rtol=1e-7
    )


def test_an_untrained_head_believes_in_nothing():
    for prior in (0.01, 0.3):
        made = models.make(**{**RETINANET, "head": {"depth": 1, "prior": prior}})
        params, state = jax.jit(made.init)(key(), batch().inputs.images)
        outputs = made.net.apply({"params": params, **state}, batch().inputs.images)
        assert float(jax.nn.sigmoid(outputs.logits).mean()) == pytest.approx(
            prior, rel=0.1
        )


def test_targets_are_those_of_a_loop():
    truth = objects((3, 2, 18, 17), (30, 30, 52, 55), (60, 1, 63, 4), crowd=())
    target = Match().targets(truth, PRIORS, 3)
    iou = np.stack([reference.iou_row(box, PRIORS) for box in truth.boxes])
    for p in range(len(PRIORS)):
        own = iou[:, p].argmax()
        best = [n for n in range(3) if iou[n, p] == iou[n].max() > 0]
        assert bool(target.positive[p]) == (iou[own, p] >= 0.5 or bool(best))
        assert bool(target.negative[p]) == (iou[own, p] < 0.4 and not best)
        wanted = np.eye(3)[own] * bool(target.positive[p])
        np.testing.assert_array_equal(target.labels[p], wanted)


@pytest.mark.parametrize("kind", ["l1", "giou"])
def test_losses_are_over_an_images_positives(kind):
    rng = np.random.default_rng(0)
    truth = objects((3, 2, 18, 17), (30, 30, 52, 55))
    target = Match().targets(truth, PRIORS, 3)
    logits = rng.normal(0, 1, (len(PRIORS), 3)).astype("f")
    deltas = rng.normal(0, 0.2, (len(PRIORS), 4)).astype("f")
    parts, count = Loss(box=kind).parts(logits, deltas, PRIORS, target)
    positive = np.flatnonzero(target.positive)
    assert int(count) == len(positive) > 0
    p, t = 1 / (1 + np.exp(-logits)), np.asarray(target.labels)
    focal = np.where(
        t > 0, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)
    )
    learnt = np.asarray(target.positive | target.negative)
    assert float(parts["class"]) == pytest.approx(
        focal[learnt].sum() / len(positive), rel=1e-4
    )
    found = np.asarray(boxes.decode_rcnn(deltas, PRIORS))
    if kind == "giou":
        giou = boxes.giou(found, np.asarray(target.boxes))
        expected = np.mean([1 - giou[i, i] for i in positive])
    else:
        aim = boxes.encode_rcnn(np.asarray(target.boxes), PRIORS)
        expected = np.abs(deltas - aim)[positive].sum() / len(positive)
    assert float(parts["box"]) == pytest.approx(float(expected), rel=1e-4)


def test_priors_on_crowds_are_not_learnt():
    target = Match().targets(objects((0, 0, 32, 64), crowd=(0,)), PRIORS, 3)
    assert not target.positive.any()
    inside = (PRIORS[:, 2] <= 32) & (PRIORS >= 0).all(axis=1)
    assert inside.any()
    assert not target.negative[inside].any()
    assert target.negative[PRIORS[:, 0] >= 32].all()


def test_fitted_priors_are_settings():
    made = models.make(**RETINANET)
    placed = made.priors((64, 64))
    low = np.random.default_rng(0).uniform(0, 40, (50, 2))
    held = placed.fitted(
        np.concatenate([low, low + np.array([9, 20])], axis=1).astype("f")
    )
    again = models.make(
        **{
            **RETINANET,
            "priors": {k.removeprefix("priors."): v for k, v in held.items()},
        }
    )
    assert [len(level.boxes) for level in again.priors((64, 64)).levels] == [3] * 3
    assert jnp.isfinite(placed.levels[0].boxes).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"priors": {"sizes": ((12,), (24,))}}, r"2 levels and 1 extra levels"),
        ({"backbone": {"levels": (2, 4)}}, "must follow one another"),
        ({"head": {"prior": 1.0}}, r"model\.head\.prior"),
        ({"detect": {"nms": "none"}}, r"model\.detect\.nms"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, told):
    with pytest.raises(UserError, match=told):
        models.make(**{**RETINANET, **changes})
