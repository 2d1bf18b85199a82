"""What of each picture is explained, by hand, and methods compared on it."""

import jax
import numpy as np
import pytest
from families import batch, model, task_of, variables

from detjax import predict, tasks
from detjax.errors import UserError
from detjax.explain import splits
from detjax.explain.views import compare
from detjax.types import (
    Batch,
    Detections,
    Inputs,
    LabelMap,
    LabelScores,
    Objects,
    View,
)


def shown(target, size=(8, 8)):
    b = 1
    view = View(
        np.tile(np.eye(2, 3, dtype=np.float32), (b, 1, 1)),
        np.tile(np.int32(size), (b, 1)),
        np.ones(b, bool),
    )
    inputs = Inputs(np.zeros((b, *size, 3), np.uint8), view)
    return Batch(inputs, target, np.arange(b, dtype=np.int32))


def held(made, params, state):
    described = {"data": {"name": "absent"}, "model": {}}
    return predict.TrainedModel(
        described, ["a", "b", "c"], [1, 2, 3], made, params, state, 0
    )


def test_the_best_detection_that_is_true_is_explained():
    """The better one is of no object, the next has another's class."""
    found = Detections(
        np.float32([[[5, 5, 8, 8], [0, 0, 4, 4], [0, 0, 4, 3]]]),
        np.float32([[0.9, 0.8, 0.7]]),
        np.int32([[0, 1, 0]]),
        np.array([[True, True, True]]),
    )
    target = Objects(
        np.float32([[[0, 0, 4, 4], [5, 5, 8, 8]]]),
        np.int32([[0, 0]]),
        np.array([[True, True]]),
        np.array([[False, True]]),
    )
    of = tasks.TASKS["detection"].explained.of
    one = of(shown(target), found, [])
    assert one.counts.tolist() == [True]
    np.testing.assert_array_equal(one.which[0], [[[0, 0, 4, 3]]])
    np.testing.assert_array_equal(one.which[1], [[0]])
    assert one.truth.sum() == 16
    assert one.truth[0, :4, :4].all()
    nothing = target.replace(labels=np.int32([[1, 1]]), crowd=np.ones((1, 2), bool))
    assert of(shown(nothing), found, []).counts.tolist() == [False]


def test_the_region_of_the_commonest_class_is_explained():
    logits = np.zeros((1, 4, 4, 3), np.float32)
    logits[..., 0] = 1
    logits[0, :2, :2, 2], logits[0, 3, 3, 1] = 2, 2
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, :3, :4] = 2
    target = LabelMap(labels, labels < 9)
    explained = tasks.TASKS["segmentation"].explained
    answers = LabelScores(logits, (8, 8))
    one = explained.of(shown(target), answers, ["background", "x", "y"])
    assert one.which[0].tolist() == [[2]]
    assert one.which[1].sum() == 4
    assert one.truth.sum() == 12
    assert one.counts.tolist() == [True]
    assert float(explained.score(answers, one.which)[0, 0]) == 2
    odds = np.exp(2) / (np.exp(2) + np.exp(1) + 1)
    assert float(explained.probability(answers, one.which)[0, 0]) == pytest.approx(
        odds, 1e-5
    )


@pytest.mark.parametrize(
    "name", ["fcn_vgg", pytest.param("ssd", marks=pytest.mark.slow)]
)
def test_methods_are_compared_on_every_task(name, monkeypatch, tmp_path):
    """A table of them, with curves, of pictures whose answers are their own truth."""
    made, weights, data = model(name), variables(name), batch(name=name)
    run = held(made, *weights)
    answers = jax.device_get(jax.jit(made.predict)(*weights, data.inputs))
    target = data.target
    if task_of(name) == "detection":
        n = target.boxes.shape[1]
        target = target.replace(
            boxes=answers.boxes[:, :n],
            labels=answers.labels[:, :n],
            valid=answers.valid[:, :n],
            crowd=np.zeros_like(answers.valid[:, :n]),
        )
    elif task_of(name) == "segmentation":
        won = answers.logits.argmax(axis=-1)
        scale = target.labels.shape[1] // won.shape[1]
        wide = won.repeat(scale, 1).repeat(scale, 2).astype(target.labels.dtype)
        target = target.replace(labels=wide, valid=wide < 99)
    monkeypatch.setattr(
        splits, "batches", lambda *_: (one for one in [data.replace(target=target)])
    )
    assert run.task is tasks.TASKS[task_of(name)]
    paths = compare.view(
        run, [], tmp_path, methods=("gradient", "chance"), layers=1, steps=3
    )
    assert [path.name for path in paths] == [
        "compare.csv",
        "compare.json",
        "compare.png",
    ]
    text = paths[0].read_text().splitlines()
    assert text[0].startswith("method,insertion,deletion,pointing,inside")
    assert [line.split(",")[0] for line in text[1:]] == ["gradient", "chance"]


def test_answers_without_a_subject_are_said_so(tmp_path):
    with pytest.raises(UserError, match="methods cannot be compared on models"):
        compare.view(held(model("dense_fpn"), {}, {}), [], tmp_path)
