"""Classification from a record to metrics and drawings."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from tensorflow_datasets.core import example_serializer

from detjax.data import features
from detjax.data.example import Prepare
from detjax.data.features import Schema
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.eval import classification as metrics
from detjax.tasks import classification
from detjax.tasks.classification import Found
from detjax.types import Scores

TASK = classification.TASK


class Info(NamedTuple):
    """What the task reads of a data set's information."""

    name: str = "s"
    classes: tuple[str, ...] = ("a", "b", "c")
    category_ids: tuple[int, ...] = (1, 2, 3)


def record(*labels, number=1):
    import cv2

    image = np.full((6, 8, 3), 100, np.uint8)
    png = cv2.imencode(".png", image)[1].tobytes()
    return Record(number, f"{number}.png", 6, 8, image=png, truth=labels)


@pytest.mark.parametrize("labels", [(), (2,), (0, 2)])
def test_examples_are_those_of_tfds_and_come_back(labels):
    import io

    schema = Schema(("a", "b", "c"))
    one = record(*labels)
    ours = features.encode(one, one.image, schema, TASK)
    assert features.decode(ours, TASK).truth == labels
    named = features.features(schema, TASK)
    held = {
        "image": io.BytesIO(one.image),
        "image_id": 1,
        "file_name": "1.png",
        "height": 6,
        "width": 8,
        "labels": list(labels),
    }
    serializer = example_serializer.ExampleSerializer(named.get_serialized_info())
    theirs = serializer.serialize_example(named.encode_example(held))
    assert features.decode(theirs, TASK).truth == labels


def test_labels_beyond_the_classes_are_a_fault():
    assert TASK.fault((0, 2), 3) is None
    assert TASK.fault((0, 3), 3) == "the image has label 3"


def test_targets_are_weights_and_an_image_without_a_class_is_a_sentence():
    steps = Prepare((12, 16), TASK.targets(Info()))
    batch = steps(record(2))
    assert batch.target.weights.tolist() == [0, 0, 1]
    assert batch.inputs.images.shape == (12, 16, 3)
    assert steps(record(0, 2)).target.weights.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"1\.png \(image 1\): the image has no class"):
        steps(record())


def test_the_most_probable_classes_leave_the_device():
    scores = jnp.float32([[0.1, 0.2, 0.05, 0.3, 0.15, 0.2], [1, 0, 0, 0, 0, 0]])
    answer = TASK.shrink(Scores(scores))
    assert answer.labels.shape == (2, 5)
    assert answer.labels[0].tolist() == [3, 1, 5, 4, 0]
    one = Found(answer.labels[0], answer.scores[0])
    found = TASK.restore(one, None, (6, 8), (12, 16), min_score=0.18)
    assert found.labels.tolist() == [3, 1, 5]
    assert TASK.restore(one, None, (6, 8), (12, 16), 0.9).labels.tolist() == [3]


def judged(found, truths):
    """The metrics and files of the labels `found` in images of the labels `truths`."""
    records = [record(*labels, number=i + 1) for i, labels in enumerate(truths)]
    meter = TASK.meter(records, Info(), [r.id for r in records])
    for place, labels in enumerate(found):
        meter.add(place, Found(np.array(labels), np.linspace(0.9, 0.1, len(labels))))
    return meter.result(meter.parts), meter.files(meter.parts)


def test_metrics_by_hand():
    found = [[0, 1, 2], [1, 0, 2], [0, 1, 2], [2, 1, 0]]
    got, files = judged(found, [(0,), (1,), (1,), (2,)])
    assert got["top1"] == 3 / 4
    assert got["top5"] == 1
    assert (got["top1/a"], got["top1/b"], got["top1/c"]) == (1, 0.5, 1)
    assert files["confusion.json"] == {
        "classes": ["a", "b", "c"],
        "matrix": [[1, 0, 0], [1, 1, 0], [0, 0, 1]],
    }
    rows = [*files["results.json"]()]
    assert len(rows) == 12
    assert rows[3] == {"image_id": 2, "category_id": 2, "score": 0.9}


def test_a_class_without_an_image_is_undefined_and_several_classes_have_no_matrix():
    got, files = judged([[0, 1, 2], [1, 0, 2]], [(0, 1), (0,)])
    assert got["top1"] == 0.5
    assert got["top1/c"] == -1
    assert "confusion.json" not in files
    assert judged([], [])[0]["top1"] == -1


def test_metrics_are_what_a_loop_finds():
    rng = np.random.default_rng(0)
    n, c = 200, 20
    ranked = np.stack([rng.permutation(c) for _ in range(n)])
    truth = rng.random((n, c)) < 0.1
    for k in (1, 5):
        expected = [any(truth[i, label] for label in ranked[i, :k]) for i in range(n)]
        assert metrics.top_k(ranked, truth, k).tolist() == expected
    labels, found = rng.integers(0, c, (2, n))
    matrix = np.zeros((c, c), int)
    for a, b in zip(labels, found, strict=True):
        matrix[a, b] += 1
    np.testing.assert_array_equal(metrics.confusion(found, labels, c), matrix)


def test_a_drawing_has_the_picture_and_a_bar_as_long_as_the_score():
    image = np.full((100, 200, 3), 77, np.uint8)
    found = Found(np.array([1, 0]), np.array([0.75, 0.25]))
    drawn = TASK.draw(image, found, ["cat", "dög 日本"], least_side=100)
    assert (drawn[:100] == 77).all()
    assert drawn.shape == (136, 200, 3)
    for top, score in ((100, 0.75), (118, 0.25)):
        # Above the text, in the first row of the bar.
        row = drawn[top]
        blue = (row == (173, 216, 230)).all(axis=-1)
        assert abs(blue.sum() - 200 * score) <= 2
        assert (row[round(200 * score) + 3 :] == 255).all()
    assert (drawn[100:118] == 0).all(axis=-1).any()  # letters


def test_the_truth_is_drawn_without_a_score():
    drawn = TASK.draw(
        np.full((100, 200, 3), 77, np.uint8),
        TASK.truth(record(2)),
        ["a", "b", "c"],
        least_side=100,
    )
    assert drawn.shape == (118, 200, 3)
    assert not (drawn[100:] == (173, 216, 230)).all(axis=-1).any()


def test_the_table_by_hand_and_the_plot_of_single_labels():
    records = [record(label, number=i + 1) for i, label in enumerate((0, 0, 1))]
    meter = TASK.meter(records, Info(), [r.id for r in records])
    for place, labels in enumerate(([0, 1], [1, 0], [1, 2])):
        meter.add(place, Found(np.array(labels), np.array([0.7, 0.3])))
    found = meter.table(meter.parts)
    assert found.columns == ("class", "images", "top1", "top5", "precision")
    assert found.rows[0] == ("a", 2, 0.5, 1.0, 1.0)
    assert found.rows[1] == ("b", 1, 1.0, 1.0, 0.5)
    name, count, *numbers = found.rows[2]
    assert (name, count) == ("c", 0) and np.isnan(numbers).all()
    (make,) = meter.plots(meter.parts).values()
    assert "66.7% of 3 are right" in make().get_suptitle()


def test_several_labels_and_no_image_at_all_have_a_table_too():
    records = [record(0, 2), record(1, number=2)]
    meter = classification.TASK.meter(records, Info(), [1, 2])
    assert not np.nansum([row[2:] for row in meter.table({}).rows])
    for place, label in enumerate((2, 0)):
        meter.add(place, Found(np.array([label]), np.array([0.7])))
    rows = meter.table(meter.parts).rows
    assert [row[1] for row in rows] == [1, 1, 1]
    # As the metrics have it: an image is right by any of its classes.
    assert [row[2] for row in rows] == [1, 0, 1]
    assert not meter.plots(meter.parts)


def test_regions_are_whole_pictures():
    labels, boxes = TASK.regions(record(0, 2))
    assert labels.tolist() == [0, 2] and boxes.tolist() == [[0, 0, 8, 6]] * 2
    assert TASK.regions(record())[1].shape == (0, 4)


def test_pictures_of_pil_are_drawn_too():
    pil = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    found = Found(np.array([1]), np.array([0.5]))
    expected = TASK.draw(noise, found, ["a", "b"])
    got = TASK.draw(pil.fromarray(noise), found, ["a", "b"])
    np.testing.assert_array_equal(got, expected)


def test_a_meter_that_goes_on_counts_what_was_added():
    """What is found of its parts is kept, and found anew when there are more."""

    class Info(NamedTuple):
        classes: tuple[str, ...] = ("a", "b")
        category_ids: tuple[int, ...] = (1, 2)

    records = [Record(i, f"{i}.png", 4, 4, truth=(0,)) for i in range(2)]
    meter = classification.TASK.meter(records, Info(), [1, 2])
    meter.add(0, Found(np.array([0, 1]), np.array([0.9, 0.1])))
    assert meter.result(meter.parts)["top1"] == 1
    meter.add(1, Found(np.array([1, 0]), np.array([0.8, 0.2])))
    assert meter.result(meter.parts)["top1"] == 0.5
    assert meter.files(meter.parts)["confusion.json"]["matrix"] == [[1, 1], [0, 0]]
