"""Classification from a record to metrics and drawings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infos import info
from tensorflow_datasets.core import example_serializer

from detjax.data import features
from detjax.data.example import Prepare
from detjax.data.features import Schema
from detjax.data.frames import Seen
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.eval import classification as metrics
from detjax.tasks import classification
from detjax.tasks.classification import Found
from detjax.types import Scores

TASK = classification.TASK


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
    steps = Prepare((12, 16), TASK.targets(info()))
    batch = steps(record(2))
    assert batch.target.weights.tolist() == [0, 0, 1]
    assert batch.inputs.images.shape == (12, 16, 3)
    assert steps(record(0, 2)).target.weights.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"1\.png \(image 1\): the image has no class"):
        steps(record())


def test_the_most_probable_classes_leave_the_device():
    scores = jnp.float32([[0.1, 0.2, 0.05, 0.3, 0.15, 0.2], [1, 0, 0, 0, 0, 0]])
    answer = TASK.shrink(Scores(scores))
    assert answer.labels.shape == (2, 6)
    assert answer.labels[0].tolist() == [3, 1, 5, 4, 0, 2]
    many = TASK.shrink(Scores(jnp.zeros((1, 1000))))
    assert many.labels.shape == (1, 100)
    one = Found(answer.labels[0], answer.scores[0])
    found = TASK.restore(one, None, (6, 8), (12, 16), min_score=0.18)
    assert found.labels.tolist() == [3, 1, 5]
    assert TASK.restore(one, None, (6, 8), (12, 16), 0.9).labels.tolist() == [3]


def judged(found, truths):
    """The metrics and files of the labels `found` in images of the labels `truths`."""
    records = [record(*labels, number=i + 1) for i, labels in enumerate(truths)]
    meter = TASK.meter(records, info(), [r.id for r in records])
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


def test_rates_are_those_of_scikit_learn():
    """Figures of sklearn.metrics.precision_recall_fscore_support, zero_division=0."""
    truth, found = np.array([0, 1, 2, 2, 1, 0, 2]), np.array([0, 2, 2, 2, 1, 1, 0])
    one = np.eye(4, dtype=bool)
    macro, micro = (of(one[found], one[truth]) for of in (metrics.macro, metrics.micro))
    np.testing.assert_allclose(macro, [0.5555556, 0.5555556, 0.5555556], rtol=1e-6)
    np.testing.assert_allclose(micro, [4 / 7] * 3)
    truth, found = np.array([0, 0, 0, 1]), np.array([0, 2, 2, 0])
    macro = metrics.macro(one[found], one[truth])
    np.testing.assert_allclose(macro, [1 / 6, 1 / 9, 2 / 15], rtol=1e-6)
    several = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]], bool)
    said = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0]], bool)
    np.testing.assert_allclose(metrics.micro(said, several), [0.8, 0.8, 0.8])
    each = metrics.rates(said, several)
    np.testing.assert_allclose(each.precision, [1, 0.5, 1])
    np.testing.assert_allclose(each.recall, [1, 0.5, 1])


def test_rates_of_random_decisions_are_those_of_a_loop():
    rng = np.random.default_rng(4)
    found, truth = rng.random((2, 50, 6)) < 0.3
    got = metrics.rates(found, truth)
    for c in range(6):
        tp = sum(f and t for f, t in zip(found[:, c], truth[:, c], strict=True))
        assert got.precision[c] == tp / found[:, c].sum()
        assert got.recall[c] == tp / truth[:, c].sum()
        p, r = got.precision[c], got.recall[c]
        assert got.f1[c] == pytest.approx(2 * p * r / (p + r))


def test_several_classes_of_an_image_are_found_from_a_half_on():
    got, _ = judged([[0, 1, 2], [1, 0, 2]], [(0, 1), (0,)])
    # Scores are .9, .5, .1: both say a and b.
    assert got["precision_micro"] == 3 / 4 and got["recall_micro"] == 1
    assert got["ece"] == -1
    assert judged([], [])[0]["f1_macro"] == -1


def test_the_calibration_error_is_what_a_loop_finds():
    rng = np.random.default_rng(3)
    confidence = np.append(rng.random(400), [0.0, 1.0, 1 / 15, 0.2])
    right = rng.random(404) < confidence**2
    expected = 0.0
    for b in range(15):
        some = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        some |= (confidence == 0) & (b == 0)
        if some.any():
            gap = abs(confidence[some].mean() - right[some].mean())
            expected += gap * some.mean()
    assert metrics.calibration_error(confidence, right) == pytest.approx(expected)
    assert metrics.calibration_error(np.ones(9), np.ones(9, bool)) == 0
    assert np.isnan(metrics.calibration_error(np.zeros(0), np.zeros(0)))


def test_images_of_many_classes_are_judged_and_written_whole():
    """Eight classes of .9, and of one class the five most probable."""
    labels, ids = np.arange(12), [*range(12)]
    some = Found(labels, np.where(labels < 8, 0.9, 0.1))
    assert len(TASK.entries(some, 1, ids)) == 8
    assert len(TASK.entries(Found(labels, np.full(12, 0.05)), 1, ids)) == 5
    truth = np.zeros((1, 12), bool)
    truth[0, :8] = True
    said = metrics.decided(labels[None], some.scores[None], truth)
    assert metrics.micro(said, truth) == (1, 1, 1)
    drawn = TASK.draw(np.zeros((100, 200, 3), np.uint8), some, ["x"] * 12, least_side=9)
    assert drawn.shape[0] == 100 + 8 * 18


def test_class_weights_follow_the_labels():
    weighted = classification.targets.targets(info(), class_weights=(1.0, 3.0, 0.5))
    target, _ = weighted.empty(2, (8, 8))
    rows = [jax.tree.map(lambda x, i=i: x[i], target) for i in range(2)]
    size, middle = (8, 8), np.array([0, 0, 8, 8])

    def seen(label, share=None):
        one = classification.targets.Truth((label,), size)
        return Seen(one, np.eye(3), middle, share)

    weighted.fill(rows[0], [seen(1)], size)
    weighted.fill(rows[1], [seen(1, 0.75), seen(2, 0.25)], size)
    assert target.importance[:, 0].tolist() == [3.0, 0.75 * 3 + 0.25 * 0.5]
    with pytest.raises(UserError, match="has 2 numbers, and the data set 3 classes"):
        classification.targets.targets(info(), class_weights=(1.0, 2.0))


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
    meter = TASK.meter(records, info(), [r.id for r in records])
    for place, labels in enumerate(([0, 1], [1, 0], [1, 2])):
        meter.add(place, Found(np.array(labels), np.array([0.7, 0.3])))
    found = meter.table(meter.parts)
    rates = ("precision", "recall", "f1")
    assert found.columns == ("class", "images", "top1", "top5", *rates)
    assert found.rows[0] == ("a", 2, 0.5, 1.0, 1.0, 0.5, 2 / 3)
    assert found.rows[1] == ("b", 1, 1.0, 1.0, 0.5, 1.0, 2 / 3)
    name, count, *numbers = found.rows[2]
    assert (name, count) == ("c", 0) and np.isnan(numbers).all()
    made = meter.plots(meter.parts)
    assert [*made] == ["confusion.png", "calibration.png"]
    assert "66.7% of 3 are right" in made["confusion.png"]().get_suptitle()
    upper, _ = made["calibration.png"]().axes
    assert upper.get_title() == "Expected calibration error 0.033"  # .7 for 2 of 3


def test_several_labels_and_no_image_at_all_have_a_table_too():
    records = [record(0, 2), record(1, number=2)]
    meter = classification.TASK.meter(records, info(), [1, 2])
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

    records = [Record(i, f"{i}.png", 4, 4, truth=(0,)) for i in range(2)]
    meter = classification.TASK.meter(records, info("ab"), [1, 2])
    meter.add(0, Found(np.array([0, 1]), np.array([0.9, 0.1])))
    assert meter.result(meter.parts)["top1"] == 1
    meter.add(1, Found(np.array([1, 0]), np.array([0.8, 0.2])))
    assert meter.result(meter.parts)["top1"] == 0.5
    assert meter.files(meter.parts)["confusion.json"]["matrix"] == [[1, 1], [0, 0]]
