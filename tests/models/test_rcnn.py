"""R-CNN (2014): its rules one at a time, and a small one learning shapes end to end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import CLASSES, SIDE, batch, with_inputs, with_target, with_view
from infos import info

from detjax import models
from detjax.data import loader
from detjax.data.formats import shapes
from detjax.models.rcnn import Detect, Sample, Warp
from detjax.models.rcnn.sample import candidates, overlaps
from detjax.models.rcnn.warp import stacked
from detjax.nn.images import windows
from detjax.ops.warp import warp
from detjax.tasks import detection
from detjax.types import Model, Objects, Proposals

TINY = {
    "name": "rcnn",
    "num_classes": CLASSES,
    "backbone": {"name": "resnet10", "width": 8},
    "warp": {"size": 32, "padding": 4, "chunk": 16},
    "sample": {"num_positives": 8, "num_background": 24},
    "detect": {"max_detections": 10},
}
KEY = jax.random.key(3)


def proposed(data, count=40, padding=5, seed=0):
    """`data` with proposals: its objects, jittered, then boxes at random, then junk."""
    rng = np.random.default_rng(seed)
    b, n = data.target.labels.shape
    low = rng.uniform(0, SIDE - 20, (b, count + padding, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 30, low.shape)], axis=-1)
    near = data.target.boxes[:, rng.integers(0, n, count // 2)]
    # Objects of the padding are no objects: their copies are boxes at random.
    boxes[:, : count // 2] = near + rng.normal(0, 1.5, near.shape)
    boxes = np.clip(boxes, 0, SIDE).astype(np.float32)
    valid = np.tile(np.arange(count + padding) < count, (b, 1))
    return with_inputs(data, proposals=Proposals(boxes, valid))


@pytest.fixture(scope="module")
def model() -> Model:
    return models.make(**TINY)


@pytest.fixture(scope="module")
def variables(model):
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    return jax.jit(model.init)(jax.random.key(0, impl="rbg"), images)


@pytest.fixture(scope="module")
def gradient(model):
    return jax.jit(jax.value_and_grad(model.loss, has_aux=True))


@pytest.fixture(scope="module")
def predict(model):
    return jax.jit(model.predict)


@pytest.fixture(scope="module")
def solved(model, variables):
    """Parameters that are solved for on four images, and those images."""
    data = proposed(batch(count=4))
    batches = [jax.tree.map(lambda x, i=i: x[i : i + 2], data) for i in (0, 2)]
    return model.solve(*variables, batches), data


def objects(boxes, labels=None, crowd=(), padding=2):
    """Objects with junk behind them."""
    n = len(boxes)
    boxes = np.concatenate([np.float32(boxes), np.full((padding, 4), 7, np.float32)])
    return Objects(
        boxes=boxes,
        labels=np.r_[np.arange(n) if labels is None else labels, [1] * padding],
        valid=np.arange(n + padding) < n,
        crowd=np.isin(np.arange(n + padding), crowd),
    )


def boxes(*rows):
    return Proposals(np.float32(rows), np.ones(len(rows), bool))


A, B = [0, 0, 20, 20], [40, 40, 60, 60]


def label(found, truth, **settings):
    return Sample(**settings).label(found, truth, num_classes=3)


def test_candidates_take_the_class_of_the_object_they_overlap_most():
    found = boxes(A, [0, 0, 20, 11], [0, 0, 20, 9], [38, 42, 58, 62], [20, 20, 40, 40])
    labels, usable = label(found, objects([A, B]))
    assert labels.tolist() == [0, 0, 3, 1, 3]
    assert usable.all()


def test_what_lies_between_the_thresholds_is_left_out():
    found = boxes(A, [0, 0, 20, 9], [0, 0, 20, 5])
    labels, usable = label(found, objects([A]), negative=0.3)
    assert labels.tolist() == [0, 3, 3]
    assert usable.tolist() == [True, False, True]


def test_crowds_and_padding_teach_nothing():
    found = boxes(A, [45, 45, 55, 55], [30, 30, 45, 45], [7, 7, 8, 8])
    found.valid[3] = False
    labels, usable = label(found, objects([A, B], crowd=[1]))
    assert labels.tolist() == [0, 3, 3, 3]
    assert usable.tolist() == [True, False, True, False]
    both = candidates(found, objects([A, B, [5, 5, 5, 30]], crowd=[1]))
    assert both.valid.tolist() == [True] * 3 + [False, True] + [False] * 4


def test_samples_are_of_their_kinds_without_repeats():
    labels = jnp.array([[0, 3, 3, 1], [3, 3, 2, 3]])
    usable = jnp.array([[True, True, False, True], [True, True, False, True]])
    stage, seen = Sample(num_positives=3, num_background=2), set()
    for seed in range(20):
        key = jax.random.key(seed)
        places, real = stage.draw(key, labels, usable, background=3)
        assert real.tolist() == [True, True, False, True, True]
        assert set(places[:3].tolist()) == {0, 3}
        drawn = places[3:].tolist()
        assert len(set(drawn)) == 2
        seen |= set(drawn)
    assert seen == {1, 4, 5, 7}


def test_chunks_give_what_all_at_once_gives():
    inputs = proposed(batch()).inputs
    found, images = inputs.proposals, inputs.images.astype(np.float32)
    index = jnp.repeat(jnp.arange(2), found.valid.shape[1])
    stack = stacked(images, found.boxes.reshape(-1, 4), windows(inputs), index)
    stage = Warp(size=8, padding=1, chunk=7)

    def more(valid):
        return stage.by_chunks(lambda crops: crops + 1, stack, valid)

    valid = found.valid.ravel()
    got = jax.jit(more)(valid)
    # Each image by itself: nothing of its neighbour on the tall picture shows.
    frame = jnp.float32([0, 0, SIDE, SIDE])
    alone = [
        warp(image, b, jnp.tile(frame, (len(b), 1)), size=8, padding=1)
        for image, b in zip(images, found.boxes, strict=True)
    ]
    expected = np.concatenate(alone) + 1
    np.testing.assert_allclose(got[valid], expected[valid], rtol=1e-3, atol=1e-2)
    assert not more(np.zeros_like(valid)).any()


def detect(scores, found, valid=None, top_k=10):
    stage = Detect(score_threshold=0.1, top_k=top_k, max_detections=6)
    scores, found = np.float32(scores), np.float32(found)
    valid = np.ones(len(scores), bool) if valid is None else valid
    return stage.detections(scores, found, valid, np.float32([0, 0, 50, 50]))


def test_suppression_is_by_class_with_boxes_of_each_class():
    # Two proposals; class 0 moves them onto each other, class 1 leaves them apart.
    found = [[A, A], [[1, 0, 20, 20], B]]
    got = detect([[0.9, 0.5], [0.8, 0.6]], found)
    assert got.valid.tolist() == [True] * 3 + [False] * 3
    assert got.labels[:3].tolist() == [0, 1, 1]
    np.testing.assert_allclose(got.scores[:3], [0.9, 0.6, 0.5])
    np.testing.assert_allclose(got.boxes[:3], [A, [40, 40, 50, 50], A])
    assert detect([[0.9, 0.5], [0.8, 0.6]], found, top_k=1).valid.sum() == 2
    assert detect([[0.9, 0.05], [0.8, 0.6]], found).valid.sum() == 2
    assert detect([[0.9, 0.5]] * 2, found, np.array([False] * 2)).valid.sum() == 0


def test_before_solving_softmax_ranks_and_boxes_are_proposals(variables, predict):
    inputs = proposed(batch()).inputs
    found = predict(*variables, inputs)
    assert found.boxes.shape == (2, 10, 4)
    assert found.valid.all()
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for i in range(2):
        boxes, valid = inputs.proposals.boxes[i], inputs.proposals.valid[i]
        given = {tuple(b) for b in boxes[valid]}
        apart = np.abs(found.boxes[i][:, None] - np.array([*given])).max(-1).min(1)
        assert (apart < 1e-3).all()


def test_windows_bound_what_is_seen_and_found(variables, predict):
    data = with_view(proposed(batch()), sizes=np.int32([[50, 40]] * 2))
    other = data.inputs.images.copy()
    other[:, :, 40:] = 255
    other[:, 50:] = 255
    found = predict(*variables, data.inputs)
    again = predict(*variables, with_inputs(data, images=other).inputs)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert (found.boxes <= np.array([40, 50, 40, 50])).all()


def loss_of(gradient, variables, data):
    (loss, (_, metrics)), gradients = gradient(*variables, data, KEY)
    return float(loss), metrics, gradients


def test_the_network_learns_and_the_fitted_parts_wait(gradient, variables):
    loss, metrics, gradients = loss_of(gradient, variables, proposed(batch()))
    assert metrics["positives"] == 8
    assert loss == pytest.approx(float(metrics["class"]))
    for name in ("svm", "ridge"):
        assert not any(x.any() for x in jax.tree.leaves(gradients.pop(name)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert all(x.any() for x in jax.tree.leaves(gradients))


def test_decay_leaves_what_is_not_fitted_at_zero(variables):
    waiting = {name: variables[0][name] for name in ("svm", "ridge")}
    optimizer = optax.adamw(0.1, weight_decay=0.5)

    @jax.jit
    def step(params):
        # The loss reaches none of them, so gradients are 0.
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    assert not any(x.any() for x in jax.tree.leaves(step(waiting)))


def test_padding_is_inert(gradient, variables):
    data = proposed(batch())
    rng = np.random.default_rng(5)

    def junk(x, real):
        noise = np.asarray(rng.standard_normal(x.shape) * 1e3).astype(x.dtype)
        return np.where(real.reshape(real.shape + (1,) * (x.ndim - 2)), x, noise)

    found, truth = data.inputs.proposals, data.target
    spoilt = with_target(
        with_inputs(
            data, proposals=found.replace(boxes=junk(found.boxes, found.valid))
        ),
        boxes=junk(truth.boxes, truth.valid),
        labels=np.where(truth.valid, truth.labels, 1),
        crowd=np.where(truth.valid, truth.crowd, rng.random(truth.valid.shape) < 0.5),
    )
    first, again = (loss_of(gradient, variables, d) for d in (data, spoilt))
    assert first[0] == again[0]
    jax.tree.map(np.testing.assert_array_equal, first[2], again[2])


@pytest.mark.parametrize("kind", ["no objects", "no proposals", "nothing", "no image"])
def test_extreme_batches_are_finite(gradient, variables, kind):
    data = proposed(batch(objects=0 if kind in ("no objects", "nothing") else 3))
    if kind in ("no proposals", "nothing"):
        found = data.inputs.proposals
        never = found.replace(valid=np.zeros_like(found.valid))
        data = with_inputs(data, proposals=never)
    if kind == "no image":
        data = with_view(data, valid=np.zeros(2, bool))
    loss, metrics, gradients = loss_of(gradient, variables, data)
    assert np.isfinite(loss)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    expected = {"no proposals": 6}.get(kind, 0)
    assert metrics["positives"] == expected


def test_solving_fits_svms_and_regressions(solved, variables, predict):
    params, data = solved
    _, state = variables
    for name in ("svm", "ridge"):
        for leaf, was in zip(
            jax.tree.leaves(params[name]),
            jax.tree.leaves(variables[0][name]),
            strict=True,
        ):
            assert leaf.shape == was.shape and leaf.dtype == was.dtype
            assert np.isfinite(leaf).all() and leaf.any()
    rest = {k: v for k, v in params.items() if k not in ("svm", "ridge")}
    jax.tree.map(
        np.testing.assert_array_equal, rest, {k: variables[0][k] for k in rest}
    )
    found = predict(params, state, data.inputs)
    assert found.valid.any()
    given = data.inputs.proposals.boxes[:, None]
    apart = np.abs(found.boxes[:, :, None] - given).max(-1).min(-1)
    assert apart[found.valid].max() > 0.1


def test_images_that_fill_up_a_batch_are_not_fitted_to(model, variables, solved):
    params, data = solved
    other = batch(count=1, seed=9)
    four = jax.tree.map(lambda x: x[:4], data)
    tail = jax.tree.map(
        lambda a, b: np.concatenate([a[3:], b]), four, proposed(other, seed=9)
    )
    tail = with_view(tail, valid=np.array([True, False]))
    head = [jax.tree.map(lambda x, i=i: x[i : i + 1], four) for i in range(3)]
    again = model.solve(*variables, [*head, tail])
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3),
        again["svm"],
        params["svm"],
    )


def test_padding_is_inert_to_batch_statistics():
    changes = {"backbone": {**TINY["backbone"], "norm": "batch"}}
    sample = {"sample": {**TINY["sample"], "num_positives": 30}}
    model = models.make(**TINY | changes | sample)
    data = proposed(batch())
    params, state = jax.jit(model.init)(KEY, data.inputs.images)
    found = data.inputs.proposals
    never = found.replace(valid=found.valid & False)
    few = with_inputs(data, proposals=never)
    spoilt = with_inputs(data, proposals=never.replace(boxes=never.boxes * 0 + 3))
    loss = jax.jit(model.loss)
    after, again = (loss(params, state, d, KEY)[1][0] for d in (few, spoilt))
    jax.tree.map(np.testing.assert_array_equal, after, again)


def test_mistakes_are_named(model, variables):
    with pytest.raises(ValueError, match="leaves nothing of a crop of 32"):
        models.make(**TINY | {"warp": {"size": 32, "padding": 16}})
    bare = with_inputs(batch(), proposals=None)
    with pytest.raises(ValueError, match="something else proposes, and none are given"):
        model.predict(*variables, bare.inputs)
    with pytest.raises(ValueError, match="something else proposes"):
        model.loss(*variables, bare, KEY)
    with pytest.raises(ValueError, match="no proposal and no object to fit"):
        model.solve(*variables, [])


def test_regression_targets_are_those_of_the_nearest_object():
    found = boxes([2, 0, 22, 20], [41, 40, 61, 60], [10, 10, 50, 50])
    truth = objects([A, B], crowd=[])
    both = candidates(found, truth)
    known = overlaps(both, truth, num_classes=3)
    assert known.truth.tolist() == [-1] * 3 + [0, 1, 1, 1]
    assert known.labels[:2].tolist() == [0, 1]
    np.testing.assert_allclose(
        known.deltas[:2], [[-0.1, 0, 0, 0], [-0.05, 0, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(known.iou[0], 18 / 22, rtol=1e-5)
    np.testing.assert_allclose(known.overlap[0], [18 / 22, 0, 0], rtol=1e-5)
    blurred = overlaps(
        both, dataclasses.replace(truth, crowd=np.arange(4) == 1), num_classes=3
    )
    assert blurred.overlap[1, 1] == pytest.approx(19 * 20 / 400)
    assert blurred.iou[1] == 0


def pictures(split, count, size=96, p=60):
    """A batch of synthetic shapes; proposals are their boxes, jittered, and others."""
    rng = np.random.default_rng(len(split))
    made = shapes.records(split, count, size)
    data = batch(count=count, objects=0, padding=shapes.MAX_OBJECTS)
    images = np.stack([loader.decode(r.image) for r in made])
    found = rng.uniform(0, size - 16, (count, p, 4)).astype(np.float32)
    found[..., 2:] = np.minimum(
        found[..., :2] + rng.uniform(12, 50, (count, p, 2)), size
    )
    for i, record in enumerate(made):
        for j, a in enumerate(record.truth):
            data.target.boxes[i, j], data.target.labels[i, j] = a.box, a.label
            data.target.valid[i, j] = True
            near = np.array(a.box) + rng.normal(0, 2.5, (5, 4))
            found[i, 5 * j : 5 * j + 5] = np.clip(near, 0, size)
    valid = (found[..., 2:] > found[..., :2] + 4).all(-1)
    view = data.inputs.view.replace(sizes=np.full((count, 2), size, np.int32))
    proposals = Proposals(found, valid)
    return made, with_inputs(data, images=images, view=view, proposals=proposals)


def scored(predict, params, state, made, data):
    """COCO metrics of the predictions on the images of `pictures`."""
    found = jax.device_get(predict(params, state, data.inputs))
    size = data.inputs.images.shape[1:3]
    meter = detection.TASK.meter(
        made, info(shapes.CLASSES), [record.id for record in made]
    )
    for i in range(len(made)):
        one = jax.tree.map(lambda x, i=i: x[i], found)
        meter.add(i, detection.TASK.restore(one, np.eye(3)[:2], size, size))
    return meter.result(meter.parts)


@pytest.mark.long
def test_shapes_are_learnt_and_regression_sharpens_boxes():
    model = models.make(
        name="rcnn",
        num_classes=4,
        backbone={"name": "resnet10", "width": 16, "norm": "batch"},
        warp={"size": 32, "padding": 3},
        svm={"cost": 0.01},
    )
    _, train = pictures("train", 160)
    made, unseen = pictures("val", 40)
    params, state = jax.jit(model.init)(KEY, train.inputs.images)
    optimizer = optax.adam(2e-3)
    memory = optimizer.init(params)

    @jax.jit
    def step(params, state, memory, i):
        chosen = jax.random.permutation(jax.random.fold_in(KEY, i), 160)[:4]
        some = jax.tree.map(lambda x: jnp.asarray(x)[chosen], train)
        (_, (state, _)), gradients = jax.value_and_grad(model.loss, has_aux=True)(
            params, state, some, jax.random.fold_in(KEY, i)
        )
        updates, memory = optimizer.update(gradients, memory)
        return optax.apply_updates(params, updates), state, memory

    for i in range(250):
        params, state, memory = step(params, state, memory, i)
    parts = (jax.tree.map(lambda x, i=i: x[i : i + 8], train) for i in range(0, 160, 8))
    fitted = model.solve(params, state, parts)
    predict = jax.jit(model.predict)
    before, after = (scored(predict, p, state, made, unseen) for p in (params, fitted))
    assert before["bbox/AP50"] > 0.35
    assert after["bbox/AP50"] > before["bbox/AP50"]
    assert after["bbox/AP75"] > 1.5 * before["bbox/AP75"]
