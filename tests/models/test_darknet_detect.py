"""From what heads find to detections: thresholds, and suppression by class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import iou

from detjax.models.darknet.detect import Detect
from detjax.models.darknet.truths import Found


def drawn(seed, places=60, classes=4, signed=False):
    """Boxes in heaps, so that many overlap."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(20, 80, (6, 2))[rng.integers(0, 6, places)]
    centre = centre + rng.normal(0, 3, (places, 2))
    half = rng.uniform(6, 14, (places, 2))
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype("f")
    low = -0.3 if signed else 0.0
    objectness = rng.uniform(low, 1, places).astype("f")
    return Found(boxes, objectness, rng.uniform(low, 1, (places, classes)).astype("f"))


def darknets(found, threshold, overlap):
    """What darknet keeps, (class, place): do_nms_sort, class by class."""
    kept = []
    for label in range(found.classes.shape[1]):
        probs = found.objectness * found.classes[:, label]
        probs = np.where(probs > threshold, probs, 0)
        order = np.argsort(-probs, kind="stable")
        for rank, i in enumerate(order):
            if probs[i] == 0:
                continue
            kept.append((label, i, probs[i]))
            for j in order[rank + 1 :]:
                if iou(found.boxes[i : i + 1], found.boxes[j : j + 1])[0, 0] > overlap:
                    probs[j] = 0
    return sorted(kept, key=lambda one: -one[2])


@pytest.mark.parametrize("signed", [False, True], ids=["yolo", "YOLOv1"])
@pytest.mark.parametrize("seed", range(3))
def test_detections_are_darknets(seed, signed):
    found = drawn(seed, signed=signed)
    expected = darknets(found, 0.2, 0.45)
    some = jax.jit(Detect(0.2, 0.45, 300, 200))(found)
    count = int(some.valid.sum())
    assert count == len(expected) > 20
    assert not some.valid[count:].any()
    np.testing.assert_allclose(some.scores[:count], [p for *_, p in expected])
    assert some.labels[:count].tolist() == [label for label, *_ in expected]
    np.testing.assert_array_equal(
        some.boxes[:count], found.boxes[[i for _, i, _ in expected]]
    )


def test_a_place_may_be_of_several_classes():
    one = Found(
        jnp.array([[0.0, 0, 9, 9]]), jnp.array([0.9]), jnp.array([[0.8, 0.1, 0.7]])
    )
    detect = jax.jit(Detect(0.2, max_detections=5))
    some = detect(one)
    assert some.labels[some.valid].tolist() == [0, 2]
    np.testing.assert_allclose(some.scores, [0.72, 0.63, 0, 0, 0], rtol=1e-6)
    assert not detect(one._replace(objectness=jnp.array([0.1]))).valid.any()


def test_few_candidates_are_the_best_and_numbers_that_are_none_are_left_out():
    found = drawn(7)
    found.classes[3] = np.nan
    found.boxes[5] = np.inf
    whole = jax.jit(Detect(0.1, 0.45, 300, 50))(found)
    few = jax.jit(Detect(0.1, 0.45, 40, 50))(found)
    assert np.isfinite(whole.boxes).all() and np.isfinite(whole.scores).all()
    count = int(few.valid.sum())
    assert 0 < count < int(whole.valid.sum())
    np.testing.assert_array_equal(few.scores[:count], whole.scores[:count])
