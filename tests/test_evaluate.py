"""From records and results entries to flat metrics: keypoints beside boxes."""

import jax.numpy as jnp
import numpy as np
import pytest

from detjax import compilation, evaluate, sharding
from detjax.data import example
from detjax.data.records import Annotation, Record
from detjax.types import Detections, Model

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


def test_nothing_detected_has_the_metrics_that_detections_would_have():
    found = metrics([], records(POINTS))
    assert found.keys() == metrics([row()], records(POINTS)).keys()
    assert found["keypoints/AP"] == found["bbox/AP"] == 0


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


def whole_image(params, state, images, windows, proposals):
    """A prediction for tests: each image is one object, as sure as a parameter says."""
    count, h, w, _ = images.shape
    return Detections(
        boxes=jnp.tile(jnp.array([0.0, 0.0, w, h]), (count, 1, 1)),
        scores=jnp.full((count, 1), params),
        labels=jnp.zeros((count, 1), jnp.int32),
        valid=jnp.ones((count, 1), bool),
    )


def filled(size, count=3):
    batch = example.empty(count, size, 1, None)
    batch.images[:], batch.valid[:], batch.sizes[:] = 0, True, size
    return batch


def test_only_the_first_evaluation_compiles():
    """Also where its layout is made anew, as for a run that goes on."""
    model = Model(init=None, loss=None, predict=whole_image, net=None)
    batches = [filled((32, 48)), filled((48, 32)), filled((32, 48), 2)]

    def detect(score):
        before = compilation.count()
        rows = evaluate.detect_all(
            model,
            jnp.float32(score),
            {},
            batches,
            category_ids=(7,),
            layout=sharding.make(),
            progress=False,
        )
        assert [row["score"] for row in rows] == [score] * 8
        return compilation.count() - before

    assert detect(0.5) >= 2  # one a bucket
    assert detect(0.25) == 0
