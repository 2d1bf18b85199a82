"""Localisation from a record to metrics and drawings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infos import info

from detjax.data.frames import Seen
from detjax.data.records import Annotation, Record
from detjax.tasks import TASKS, localisation
from detjax.tasks.detection.restore import Found
from detjax.types import Located

TASK = TASKS["localisation"]


def record(number, *objects):
    """A record of objects (label, box)."""
    made = Record(number, f"{number}.png", 40, 60)
    made.truth = [
        Annotation(i, box, label, 1.0) for i, (label, box) in enumerate(objects)
    ]
    return made


def found(*rows):
    """What is found in an image: (label, score, box) by falling score."""
    labels, scores, boxes = zip(*rows, strict=True)
    return Found(np.float64(boxes), np.float64(scores), np.array(labels), None)


def test_it_reads_data_sets_of_detection():
    assert TASK.stored == "detection" and TASKS["detection"].stored == "detection"
    targets = TASK.targets(info())
    assert targets.max_objects == 1 and targets.mask_stride is None


def test_the_main_object_is_the_largest():
    several = record(1, (0, (0, 0, 9, 9)), (2, (5, 5, 40, 30)), (1, (0, 0, 10, 30)))
    label, box = localisation.main_object(several)
    assert label == 2 and box.tolist() == [5, 5, 40, 30]
    several.truth[1].crowd = True
    assert localisation.main_object(several)[0] == 1
    assert localisation.main_object(record(2)) is None
    drawn = TASK.truth(several)
    assert drawn.labels.tolist() == [1] and np.isnan(drawn.scores).all()
    assert len(TASK.truth(record(2)).boxes) == 0


def test_the_most_probable_classes_leave_with_their_boxes():
    scores = jnp.float32([[0.1, 0.6, 0.3]])
    boxes = jnp.arange(12, dtype=jnp.float32).reshape(1, 3, 4)
    left = TASK.shrink(Located(scores, boxes))
    assert left.labels.tolist() == [[1, 2, 0]]
    assert left.boxes[0, 0].tolist() == [4, 5, 6, 7]
    assert left.valid.all()


def test_mirrored_and_resized_answers_come_back():
    answer = Located(jnp.float32([[1.0]]), jnp.float32([[[4, 5, 10, 20]]]))
    mirrored = TASK.mirror(answer, (32, 64), ())
    assert mirrored.boxes[0, 0].tolist() == [54, 5, 60, 20]
    larger = TASK.rescale(answer, (2.0, 3.0))
    assert larger.boxes[0, 0].tolist() == [12, 10, 30, 40]
    mean = TASK.merge([answer, larger], 0.5)
    assert mean.boxes[0, 0].tolist() == [8, 7.5, 20, 30]
    assert mean.scores.tolist() == [[1.0]]


def judged(records, answers):
    meter = TASK.meter(records, info(), [r.id for r in records])
    for place, answer in enumerate(answers):
        meter.add(place, answer)
    return meter


def test_metrics_by_hand():
    whole, half = (0, 0, 40, 40), (0, 0, 40, 20)
    records = [record(i, (i % 2, whole)) for i in range(4)] + [record(9)]
    answers = [
        found((0, 0.9, whole), (1, 0.1, whole)),  # all is right
        found((0, 0.9, whole), (1, 0.1, whole)),  # the second class is
        found((0, 0.9, half), (1, 0.1, whole)),  # the box has an IoU of .5, no more
        found((1, 0.9, (0, 0, 40, 30)), (0, 0.1, half)),  # .75 is enough
        found((1, 0.9, whole), (0, 0.1, half)),  # there is nothing: not judged
    ]
    meter = judged(records, answers)
    got = meter.result(meter.parts)
    assert got == {
        "top1": 3 / 4,
        "top5": 1.0,
        "localised_top1": 2 / 4,
        "localised_top5": 3 / 4,
        "box": 3 / 4,
        "iou": pytest.approx((1 + 1 + 0.5 + 0.75) / 4),
    }
    assert meter.names() == [*got]
    table = meter.table(meter.parts)
    assert table.rows[0] == ("a", 2, 1.0, 0.5, 0.75)
    assert table.rows[1] == ("b", 2, 0.5, 0.5, 0.875)
    assert np.isnan(table.rows[2][2:]).all()
    rows = [*meter.files(meter.parts)["results.json"]()]
    assert len(rows) == 10
    assert rows[6] == {
        "image_id": 3,
        "category_id": 2,
        "bbox": [0, 0, 40, 30],
        "score": 0.9,
    }
    title = meter.plots(meter.parts)["confusion.png"]().get_suptitle()
    assert "75.0% right" in title


def test_nothing_found_is_undefined():
    meter = judged([record(1, (0, (0, 0, 9, 9)))], [])
    assert set(meter.result({}).values()) == {-1.0}
    assert not meter.plots({})
    assert meter.again().parts == {} or not len(meter.again().parts)


def test_overlaps_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (20, 3, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 30, low.shape)], axis=-1)
    records = [record(i, (0, tuple(boxes[i, 0]))) for i in range(20)]
    answers = [found((0, 0.9, boxes[i, 1]), (1, 0.1, boxes[i, 2])) for i in range(20)]
    meter = judged(records, answers)

    def iou(a, b):
        w = min(a[2], b[2]) - max(a[0], b[0])
        h = min(a[3], b[3]) - max(a[1], b[1])
        inner = max(w, 0) * max(h, 0)
        area = lambda x: (x[2] - x[0]) * (x[3] - x[1])  # noqa: E731
        return inner / (area(a) + area(b) - inner)

    each = [iou(boxes[i, 0], boxes[i, 1]) for i in range(20)]
    got = meter.result(meter.parts)
    assert got["iou"] == pytest.approx(np.mean(each))
    assert got["localised_top1"] == np.mean(np.array(each) > 0.5)


def test_the_first_box_is_drawn():
    image = np.full((100, 100, 3), 90, np.uint8)
    one, two = (10, 10, 60, 60), (70, 70, 95, 95)
    drawn = TASK.draw(
        image, found((0, 0.9, one), (1, 0.1, two)), ["a", "b"], least_side=100
    )
    assert (drawn[75:] == 90).all() and (drawn[:65, :65] != 90).any()


def test_pictures_of_several_objects_are_a_warning():
    assert not TASK.warnings({"objects": 9, "objects cut": 3, "objects too small": 0})
    said = TASK.warnings({"objects": 9, "objects cut": 30, "objects too small": 0})
    assert "take a detector" in said["cut"]


def test_a_crowd_is_no_main_object_of_training_either():
    one = record(1, (2, (0, 0, 40, 40)), (1, (10, 10, 30, 30)))
    one.truth[0].crowd = True
    targets = TASK.targets(info())
    target, _ = targets.empty(1, (40, 60))
    row = jax.tree.map(lambda x: x[0], target)
    seen = Seen(targets.read(one), np.eye(3), np.array([0, 0, 60, 40]))
    targets.fill(row, [seen], (40, 60))
    assert row.labels.tolist() == [1] and not row.crowd[0]
    assert row.boxes[0].tolist() == [10, 10, 30, 30]
