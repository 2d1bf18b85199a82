"""From records and results entries to flat metrics: keypoints beside boxes."""

import numpy as np
import pytest

from detjax import evaluate
from detjax.data.records import Annotation, Record

SIGMAS = (0.05, 0.1)
POINTS = np.float32([[10, 10, 2], [50, 50, 1]])


def records(*keypoints):
    """One image; an object of 60 x 60 pixels for each of `keypoints`."""
    record = Record(3, "a.png", 100, 200)
    for i, points in enumerate(keypoints):
        box = (70.0 * i, 0.0, 70.0 * i + 60, 60.0)
        record.annotations.append(Annotation(i, box, 0, 3600.0, keypoints=points))
    return [record]


def row(shift=0.0, **more):
    points = POINTS + np.float32([shift, 0, 0])
    return {
        "image_id": 3,
        "category_id": 7,
        "bbox": [0.0, 0.0, 60.0, 60.0],
        "score": 0.9,
        "keypoints": points.ravel().tolist(),
        **more,
    }


def metrics(rows, truth, **kwargs):
    return evaluate.evaluate(
        rows, truth, classes=("a",), category_ids=(7,), sigmas=SIGMAS, **kwargs
    )


def test_keypoints_are_evaluated_where_both_sides_have_them():
    both = metrics([row()], records(POINTS))
    assert both["keypoints/AP"] == both["keypoints/ARm"] == both["bbox/AP"] == 1
    bare = row()
    del bare["keypoints"]
    for rows, truth in (([bare], records(POINTS)), ([row()], records(None))):
        assert not any(name.startswith("keypoints") for name in metrics(rows, truth))


def test_keypoints_have_a_limit_and_a_similarity_of_their_own():
    # Twenty wrong poses in front of the right one: it counts for the box alone.
    rows = [row(500.0, score=0.95)] * 20 + [row()]
    found = metrics(rows, records(POINTS), max_detections=(1, 100))
    assert found["bbox/AP"] == 1
    assert found["keypoints/AP"] == 0


def test_an_object_without_keypoints_is_not_missed():
    found = metrics([row()], records(POINTS, None))
    assert found["keypoints/AP"] == 1
    assert found["bbox/AR100"] == 0.5


def test_sigmas_must_fit():
    with pytest.raises(ValueError, match=r"2 keypoints, .* 17 sigmas"):
        evaluate.evaluate([row()], records(POINTS), classes=("a",), category_ids=(7,))
