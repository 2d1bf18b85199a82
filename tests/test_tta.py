"""Test-time augmentation: what is seen otherwise comes back to its place and merges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import SIDE, TINY, batch, equations, model, variables, with_view
from infos import info

from configs import quickstart, sign_digits
from detjax import evaluate, experiment, models, predict, tta
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.ops import boxes as box_ops
from detjax.tasks import TASKS
from detjax.types import Detections, Inputs, Model, Proposals, Scores, Spec, View

TASK = TASKS["detection"]
NAMES = ("left_end", "right_end")


def test_without_settings_it_is_the_model():
    some = model("yolact")
    plain = tta.augmented(some, TASK, precision="default")
    assert plain.predict is some.predict
    plain = tta.augmented(
        some, TASK, NAMES, flip=False, scales=(1,), precision="default"
    )
    assert plain.predict is some.predict


@pytest.mark.parametrize("flip", [False, True])
def test_evaluations_are_in_all_of_float32(flip):
    """Every product, whatever accelerators take by themselves."""

    def precisions(precision):
        made = tta.augmented(
            model("yolact-boxes"), TASK, flip=flip, precision=precision
        )
        args = *variables("yolact-boxes"), batch().inputs
        return [
            equation.params["precision"]
            for equation in equations(jax.make_jaxpr(made.predict)(*args).jaxpr)
            if "precision" in equation.params
        ]

    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert len(precisions("highest")) > 10
    assert set(precisions("highest")) == {highest}
    assert None in precisions("default")


def test_it_is_compiled_once():
    first, second = (
        tta.augmented(model("yolact"), TASK, flip=True, scales=[1.0, 0.5]).predict
        for _ in range(2)
    )
    assert first is second


def test_boxes_are_mirrored_about_the_middle():
    got = box_ops.mirror(np.float32([[1, 2, 5, 7], [0, 0, 20, 3]]), 20)
    np.testing.assert_array_equal(got, [[15, 2, 19, 7], [0, 0, 20, 3]])


def seen_inputs():
    """Pictures of which the affine says where the original's pixels are."""
    images = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3)).astype(np.uint8)
    affine = np.tile(np.float32([[0.5, 0, 3], [0, 0.5, 1]]), (2, 1, 1))
    view = View(affine, np.full((2, 2), 24, np.int32), np.ones(2, bool))
    found = np.float32([[[1, 2, 5, 7], [0, 0, 30, 20]]] * 2)
    return Inputs(images, view, Proposals(found, np.ones((2, 2), bool)))


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.34])
@pytest.mark.parametrize("flip", [False, True])
def test_pictures_affines_and_proposals_move_together(scale, flip):
    inputs = seen_inputs()
    got = tta.resized(inputs, scale)
    size = round(20 * scale), round(30 * scale)
    got = tta.mirrored(got) if flip else got
    assert got.images.shape == (2, *size, 3)
    assert got.images.dtype == np.uint8
    # A point of the input, by its original pixel, and the same by itself.
    place = np.array([[4.0, 6], [9, 14]])
    pixel = (place - [3, 1]) / 0.5
    expected = place * [size[1] / 30, size[0] / 20]
    if flip:
        expected[:, 0] = size[1] - expected[:, 0]
    moved = pixel @ got.view.affine[0, :, :2].T + got.view.affine[0, :, 2]
    np.testing.assert_allclose(moved, expected, rtol=1e-5)
    corners = np.sort(expected[:, 0]), expected[:, 1]
    boxes = np.float32([[place[0, 0], place[0, 1], place[1, 0], place[1, 1]]])
    one = inputs.replace(
        proposals=Proposals(np.tile(boxes, (2, 1, 1)), np.ones((2, 1), bool))
    )
    one = tta.resized(one, scale)
    one = tta.mirrored(one) if flip else one
    box = one.proposals.boxes[0, 0]
    np.testing.assert_allclose(box[::2], corners[0], rtol=1e-5)
    np.testing.assert_allclose(box[1::2], corners[1], rtol=1e-5)
    if scale == 1:
        wanted = inputs.images[:, :, ::-1] if flip else inputs.images
        np.testing.assert_array_equal(got.images, wanted)


def bright(params, state, inputs):
    """A detector without weights: the box of the bright pixels of each image.

    With its mask, of the whole input and of the box, and as keypoints its left and
    right ends at the height of its upper edge. The score falls with the size.
    """
    h, w = inputs.images.shape[1:3]
    mask = inputs.images[..., 0] > 127
    rows, columns = mask.any(2), mask.any(1)
    y1, x1 = rows.argmax(1), columns.argmax(1)
    y2, x2 = h - rows[:, ::-1].argmax(1), w - columns[:, ::-1].argmax(1)
    boxes = jnp.stack([x1, y1, x2, y2], 1)[:, None].astype(jnp.float32)
    at = jnp.linspace(0.0, 1.0, 9)[:-1] + 1 / 16
    cells = jax.vmap(
        lambda m, b: m[
            (b[1] + at * (b[3] - b[1])).astype(int)[:, None],
            (b[0] + at * (b[2] - b[0])).astype(int),
        ]
    )(mask, boxes[:, 0])
    ends = jnp.stack([boxes[..., [0, 1]], boxes[..., [2, 1]]], axis=2)
    ones = jnp.ones((*ends.shape[:3], 1))
    pad = [(0, 0), (0, 2), (0, 0)]
    count = len(mask)
    return Detections(
        boxes=jnp.pad(boxes, pad),
        scores=jnp.tile(jnp.float32([1.0 - w / 1000, 0, 0]), (count, 1)),
        labels=jnp.zeros((count, 3), jnp.int32),
        valid=jnp.tile(jnp.array([True, False, False]), (count, 1)),
        masks=jnp.pad(mask[:, None].astype(jnp.float32), [*pad, (0, 0)]),
        box_masks=jnp.pad(cells[:, None].astype(jnp.float32), [*pad, (0, 0)]),
        keypoints=jnp.pad(jnp.concatenate([ends, ones], -1), [*pad, (0, 0)]),
    )


BRIGHT = Model(Spec("detection", 1), None, None, bright, None)


@pytest.mark.parametrize("scales", [(1.0,), (2.0,), (0.5,), (1.5, 1.0, 2.0)])
@pytest.mark.parametrize("flip", [False, True])
def test_an_object_comes_back_to_its_place(scales, flip):
    images = np.zeros((2, 40, 64, 3), np.uint8)
    images[0, 8:24, 4:20] = 255
    images[0, 8:16, 20:36] = 255  # taller on the left
    images[1, 0:40, 32:48] = 255
    seeing = tta.augmented(BRIGHT, TASK, NAMES, flip=flip, scales=scales)
    found = jax.jit(seeing.predict)({}, {}, Inputs(images))
    alone = bright({}, {}, Inputs(images))
    # The twins of each are one.
    assert found.valid.tolist() == [[True, False, False]] * 2
    np.testing.assert_allclose(found.boxes[:, 0], alone.boxes[:, 0], atol=1)
    np.testing.assert_allclose(found.keypoints[:, 0], alone.keypoints[:, 0], atol=1)
    grid = found.masks.shape[-2:]
    assert grid == tuple(round(s * max(scales)) for s in (40, 64))
    size = np.array(grid)
    rows, columns = (
        (np.arange(n) + 0.5) * s / n for n, s in zip(size, (40, 64), strict=True)
    )
    wanted = images[:, rows.astype(int)][:, :, columns.astype(int), 0] > 0
    assert ((found.masks[:, 0] > 0.5) != wanted).mean() < 0.04
    apart = (found.box_masks[:, 0] > 0.5) != (alone.box_masks[:, 0] > 0.5)
    assert apart.mean() < 0.05
    assert found.scores[0, 0] == pytest.approx(1 - 64 * np.mean(scales) / 1000)


def test_keypoints_without_names_are_a_sentence():
    seeing = tta.augmented(BRIGHT, TASK, (), flip=True)
    with pytest.raises(UserError, match=r"eval\.flip=True .* 2 keypoints .* 0 names"):
        seeing.predict({}, {}, Inputs(np.zeros((1, 8, 8, 3), np.uint8)))


def merged(boxes, scores, labels, lists, iou):
    """The boxes and scores of what is kept, best first, by the rule's own words."""
    kept, found = [], []
    overlaps = np.asarray(box_ops.iou(boxes, boxes)) > iou
    near = overlaps & (labels[:, None] == labels)
    for i in np.argsort(-scores, kind="stable"):
        if not near[i, kept].any():
            kept.append(i)
            box = np.average(boxes[near[i]], axis=0, weights=scores[near[i]])
            best = [max([0, *scores[near[i] & (lists == n)]]) for n in range(3)]
            found.append((np.mean(best), box, i))
    return sorted(found, key=lambda row: -row[0])


def random_detections(rng, count=12):
    low = rng.uniform(0, 40, (1, count, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 25, low.shape)], -1)
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=-np.sort(-rng.random((1, count))).astype(np.float32),
        labels=rng.integers(0, 2, (1, count)).astype(np.int32),
        valid=np.arange(count)[None] < rng.integers(4, count),
        mask_scores=rng.random((1, count)).astype(np.float32),
    )


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.7])
def test_merging_suppresses_class_by_class_and_averages(iou):
    merge = jax.jit(TASK.merge)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        answers = [random_detections(rng) for _ in range(3)]
        got = jax.tree.map(lambda x: x[0], merge(answers, iou))
        each = [jax.tree.map(lambda x, a=a: x[0][a.valid[0]], a) for a in answers]
        every = jax.tree.map(lambda *x: np.concatenate(x), *each)
        lists = np.repeat(np.arange(3), [len(a.scores) for a in each])
        rows = merged(every.boxes, every.scores, every.labels, lists, iou)[:12]
        assert got.valid.sum() == len(rows)
        for n, (score, box, i) in enumerate(rows):
            assert got.scores[n] == pytest.approx(score, rel=1e-5)
            np.testing.assert_allclose(got.boxes[n], box, rtol=1e-5)
            assert got.labels[n] == every.labels[i]
            rated = every.mask_scores[i] * score / every.scores[i]
            assert got.mask_scores[n] == pytest.approx(rated, rel=1e-4)


def test_masks_stay_where_they_were_when_their_box_is_averaged():
    cells = np.zeros((2, 1, 1, 40, 40), np.float32)
    cells[0, ..., 10:30, 10:30] = 1  # pixels 20 to 40 of a box from 10 to 50
    box = np.float32([[[[10, 10, 50, 50]]], [[[10, 10, 60, 50]]]])
    answers = [
        Detections(
            boxes=box[i],
            scores=np.float32([[0.9 - 0.3 * i]]),
            labels=np.zeros((1, 1), np.int32),
            valid=np.ones((1, 1), bool),
            box_masks=cells[i],
        )
        for i in (0, 1)
    ]
    got = jax.tree.map(lambda x: x[0], TASK.merge(answers, 0.5))
    np.testing.assert_allclose(got.boxes[0], [10, 10, 54, 50], rtol=1e-6)
    y, x = np.nonzero(got.box_masks[0] > 0.5)
    assert (y.min(), y.max() + 1) == (10, 30)
    pixels = 10 + np.array([x.min(), x.max() + 1]) * 44 / 40
    np.testing.assert_allclose(pixels, [20, 40], atol=1)


# Of each way to answer one; what they are made of is tried above.
@pytest.mark.parametrize(
    "name",
    [
        "yolact",
        "fast_rcnn",
        pytest.param("keypoint_rcnn", marks=pytest.mark.slow),
        pytest.param("ms_rcnn", marks=pytest.mark.slow),
        pytest.param("rcnn", marks=pytest.mark.slow),
    ],
)
def test_a_mirrored_picture_has_the_mirrored_answer(name):
    """Which no network alone gives: all that is seen otherwise comes back rightly."""
    params, state = variables(name)
    affine = np.tile(np.float32([[1, 0, 4], [0, 1, 2]]), (2, 1, 1))
    data = with_view(batch(), affine=affine, sizes=np.full((2, 2), 56, np.int32))
    seeing = tta.augmented(
        model(name), TASK, NAMES, flip=True, scales=(1.0, 1.25), merge_iou=0.5
    )
    predict = jax.jit(seeing.predict)
    plain = predict(params, state, data.inputs)
    turned = predict(params, state, tta.mirrored(data.inputs))
    back = TASK.mirror(turned, (SIDE, SIDE), NAMES)
    assert plain.boxes.shape == back.boxes.shape == (2, 10, 4)
    assert plain.valid.any()
    np.testing.assert_array_equal(plain.valid, back.valid)
    np.testing.assert_allclose(plain.scores, back.scores, atol=1e-4)
    # Equal scores may change places.
    some = np.asarray(plain.valid)
    clear = np.abs(np.diff(plain.scores, append=-1, axis=1)) > 1e-3
    clear &= np.abs(np.diff(plain.scores, prepend=2, axis=1)) > 1e-3
    chosen = some & clear
    for field in ("boxes", "keypoints", "masks", "box_masks"):
        one, other = getattr(plain, field), getattr(back, field)
        if one is not None:
            np.testing.assert_allclose(one[chosen], other[chosen], atol=2e-2)


def test_classifiers_average_their_probabilities():
    made = models.make(
        "classifier", num_classes=3, backbone={"name": "resnet10", "width": 8}
    )
    images = batch().inputs.images
    params, state = jax.jit(made.init)(jax.random.key(0), images)
    seeing = tta.augmented(made, TASKS["classification"], flip=True, scales=(1.0, 0.75))
    got = jax.jit(seeing.predict)(params, state, Inputs(images))
    views = [
        flip(tta.resized(Inputs(images), scale))
        for scale in (1.0, 0.75)
        for flip in (lambda x: x, tta.mirrored)
    ]
    predict = jax.jit(made.predict)
    expected = np.mean([predict(params, state, v).scores for v in views], axis=0)
    assert isinstance(got, Scores)
    # A pixel halfway between two bytes may be either.
    np.testing.assert_allclose(got.scores, expected, atol=2e-4)
    np.testing.assert_allclose(got.scores.sum(axis=1), 1, rtol=1e-5)


def test_a_network_of_one_size_says_so():
    made = models.make(
        "classifier", num_classes=3, backbone={"name": "alexnet", "width": 4}
    )
    inputs = Inputs(np.zeros((1, 64, 64, 3), np.uint8))
    params, state = jax.eval_shape(made.init, jax.random.key(0), inputs.images)
    task = TASKS["classification"]
    whole = tta.augmented(made, task, flip=True)
    assert jax.eval_shape(whole.predict, params, state, inputs).scores.shape == (1, 3)
    seeing = tta.augmented(made, task, scales=(1.0, 2.0))
    with pytest.raises(UserError, match=r"one size only; set eval\.scales=\(1\.0,\)"):
        jax.eval_shape(seeing.predict, params, state, inputs)


@pytest.mark.parametrize("config", [quickstart, sign_digits])
def test_any_config_can_set_it(config):
    held = config.get_config()
    held.eval = {"flip": True, "scales": [0.5, 1]}
    found = experiment.resolve(held)["eval"]
    assert found == {"flip": True, "scales": (0.5, 1)}
    own, others = tta.split_settings({**found, "merge_iou": 0.4, "sigmas": (1,)})
    assert own == {**found, "merge_iou": 0.4}
    assert others == {"sigmas": (1,)}
    for wrong in ([], [0], [1, -1], "all"):
        held.eval.scales = wrong
        with pytest.raises(UserError, match=r"eval\.scales="):
            experiment.resolve(held)


def trained(testing):
    """A run of the tiny YOLACT, from its config.json and weights."""
    described = {
        "model": {k: v for k, v in TINY["yolact"].items()},
        "data": {"size": [SIDE, SIDE], "prepare": None},
        "eval": testing,
        "classes": ["a", "b", "c"],
        "category_ids": [1, 2, 3],
        "keypoints": list(NAMES),
    }
    return predict.assemble(described, *variables("yolact"), 5)


def test_a_runs_pictures_are_seen_as_its_config_says():
    image = batch().inputs.images[0]
    testing = {"flip": True, "scales": [1.0, 1.25], "max_detections": [1, 10, 100]}
    told = trained(testing)
    assert told.keypoints == NAMES
    found = told(image)
    asked = trained({}).predictor(flip=True, scales=(1.0, 1.25))(image)
    for one, other in zip(found, asked, strict=True):
        np.testing.assert_array_equal(one, other)
    alone = trained({})(image)
    assert len(alone.scores) != len(found.scores) or (
        np.abs(alone.scores - found.scores).max() > 1e-4
    )


def test_an_evaluation_sees_pictures_as_its_settings_say():
    seen = []

    def watched(params, state, inputs):
        seen.append(inputs.images.shape[1:3])
        return bright(params, state, inputs)

    class Data:
        truth, info = [Record(1, "1.png", SIDE, SIDE)], info(("a",), keypoints=NAMES)
        image_ids, skip = [1], False

        @staticmethod
        def evaluation():
            data = batch()
            return [data.replace(index=np.zeros(2, np.int32))]

    given = {"flip": True, "scales": (0.5, 1.0)}
    metrics, _ = evaluate.measure(
        BRIGHT._replace(predict=watched), TASK, {}, {}, Data(), progress=False, **given
    )
    assert seen == [(32, 32)] * 2 + [(64, 64)] * 2
    assert "bbox/AP" in metrics
    assert "bbox/AP" in evaluate.names(TASK, Data(), **given)
