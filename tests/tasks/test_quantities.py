"""What can be explained of answers, by hand; every model's have a gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import batch, model, parameters, task_of, variables

from detjax import tasks
from detjax.errors import UserError
from detjax.explain import layers
from detjax.tasks.classification import quantities as classification
from detjax.tasks.dense import quantities as dense
from detjax.tasks.detection import quantities as detection
from detjax.tasks.localisation import box as located_box
from detjax.tasks.segmentation import quantities as segmentation
from detjax.types import Detections, LabelScores, Located, Scores, ValueMap

# The answers of which there is no such thing.
LACK = {"mask": "have no masks", "keypoint": "have no keypoints"}


def found(**more):
    """Three detections of one image, the last of which only pads."""
    boxes = jnp.float32([[[0, 0, 4, 2], [2, 2, 6, 8], [0, 0, 0, 0]]])
    return Detections(
        boxes=boxes,
        scores=jnp.float32([[0.9, 0.4, 0.7]]),
        labels=jnp.int32([[1, 0, 1]]),
        valid=jnp.array([[True, True, False]]),
        **more,
    )


def test_scores_and_boxes_of_detections():
    np.testing.assert_allclose(detection.score(found()), [[0.9, 0.4, 0]])
    np.testing.assert_allclose(detection.score(found(), np.array([1, 0])), [[0.4, 0.9]])
    np.testing.assert_allclose(detection.score(found(), np.array([0, 3])), [[0.9, 0]])
    area = detection.box(found(), np.array([[0, 1]]))
    np.testing.assert_allclose(area, np.log([[8, 24]]), rtol=1e-6)
    np.testing.assert_allclose(detection.box(found(), side=3), [[2, 8, 0]])


def test_masks_count_where_they_are_and_keypoints_by_number():
    probs = np.full((1, 3, 2, 2), 0.1)
    probs[0, 0, 0] = 0.8, 0.6
    probs[0, 1] = 1.0
    odds = detection.mask(found(box_masks=jnp.float32(probs)))
    first = (np.log(0.8 / 0.2) + np.log(0.6 / 0.4)) / 2
    np.testing.assert_allclose(odds[0, 0], first, rtol=1e-5)
    assert np.isfinite(odds).all()
    points = np.zeros((1, 3, 2, 3), np.float32)
    points[0, 0, :, 2] = 3, 5
    given = found(keypoints=jnp.asarray(points))
    np.testing.assert_allclose(detection.keypoint(given), [[4, 0, 0]])
    np.testing.assert_allclose(detection.keypoint(given, point=1), [[5, 0, 0]])
    with pytest.raises(UserError, match="no keypoint 2"):
        detection.keypoint(given, point=2)


def test_detections_like_others_are_of_their_class_and_place():
    """The first has an IoU of .5 with the box, and its class; what pads counts not."""
    objects = jnp.float32([[[0, 0, 2, 2], [0, 0, 2, 2]]])
    got = detection.alike(found(), objects, jnp.int32([[1, 0]]))
    np.testing.assert_allclose(got, [[0.45, 0]], rtol=1e-5)


def test_classes_of_images_and_their_boxes():
    logits = jnp.float32([[1, 3], [2, 0]])
    answers = Scores(jax.nn.softmax(logits), logits)
    np.testing.assert_allclose(classification.score(answers), [[3], [2]])
    labels = np.array([[0, 1], [1, 1]])
    np.testing.assert_allclose(classification.score(answers, labels), [[1, 3], [0, 0]])
    boxes = jnp.float32([[[0, 0, 1, 1], [0, 1, 2, 5]], [[0, 0, 3, 3], [0, 0, 1, 1]]])
    located = Located(answers.scores, boxes)
    np.testing.assert_allclose(located_box(located, side=3), [[5], [3]])
    np.testing.assert_allclose(located_box(located, labels[:, :1]), [[0], [0]])


def test_a_class_is_scored_where_it_wins_or_in_a_region():
    logits = np.zeros((1, 2, 2, 3), np.float32)
    logits[0, ..., 0] = [[4, 6], [0, 0]]
    logits[0, ..., 1] = [[1, 1], [9, -1]]
    logits[0, ..., 2] = -2
    answers = LabelScores(jnp.asarray(logits), (4, 4))
    # Class 0 wins two cells, and the last by coming first.
    np.testing.assert_allclose(segmentation.score(answers), [[10 / 3]], rtol=1e-6)
    labels = np.array([0, 1, 2])
    np.testing.assert_allclose(
        segmentation.score(answers, labels), [[10 / 3, 9, -2]], rtol=1e-6
    )
    lower = np.array([[False, False], [True, True]])
    got = segmentation.score(answers, labels, lower)
    np.testing.assert_allclose(got, [[0, 4, -2]], atol=1e-6)
    corner = np.zeros((4, 4))
    corner[0, 0] = 1  # of the input's pixels
    got = segmentation.score(answers, labels, corner)
    np.testing.assert_allclose(got, [[4, 1, -2]], atol=1e-6)


def test_values_are_averaged_where_they_are_known():
    values = jnp.float32([[[1, 2], [3, 100]]])
    known = jnp.array([[[True, True], [True, False]]])
    np.testing.assert_allclose(dense.value(ValueMap(values, known)), [[2]])
    np.testing.assert_allclose(
        dense.value(ValueMap(values), np.array([[0, 1], [1, 0]], bool)), [[2.5]]
    )


# What does not depend on the pixels: boxes that are given, and, before anything has
# been learnt, boxes without an area and scores below 0 that are cut off.
FLAT = {
    "rcnn": ("box",),
    "sliding_window": ("box",),
    "centernet": ("box",),
    "centernet_dla": ("box",),
    # Places of maxima have no slope at all.
    "hourglass_pose": ("score", "box", "keypoint", "alike"),
}


def quick(*names):
    """Models, of which these are quick."""
    for one in parameters():
        marks = list(one.marks)
        if one.id not in names and not marks:
            marks = [pytest.mark.slow]
        yield pytest.param(*one.values, id=one.id, marks=marks)


@pytest.mark.parametrize("name", [*quick("ssd", "fcn_vgg")])
def test_what_can_be_explained_of_every_model_has_a_finite_gradient(name):
    """With respect to pixels, and not zero for any image."""
    made, weights, data = model(name), variables(name), batch(name=name)
    task = tasks.TASKS[task_of(name)]
    first = jax.jit(made.predict)(*weights, data.inputs)
    known = dict(task.quantities)
    if task.name == "detection":
        which = {"objects": first.boxes[:, :2], "labels": first.labels[:, :2]}
        known["alike"] = functools.partial(detection.alike, **which)
    for of, quantity in known.items():
        if of != "alike" and task.name == "detection":
            index = np.arange(min(2, first.boxes.shape[1]))
            quantity = functools.partial(quantity, index=index)
        slopes = jax.jit(layers.slopes(made.predict, [layers.IMAGES], quantity))
        try:
            got = slopes(*weights, data.inputs).gradients[layers.IMAGES]
        except UserError as error:
            assert LACK[of] in str(error)
            continue
        assert np.isfinite(got).all(), of
        if of not in FLAT.get(name.partition("-")[0], ()):
            assert (np.abs(got).sum(axis=(0, 2, 3, 4)) > 0).all(), of
