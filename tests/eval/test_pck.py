"""The percentage of correct keypoints, against loops and by hand."""

import numpy as np
import pytest
from eval_cases import posed

from detjax.eval import pck
from detjax.eval.columns import Results, Truths


def looked_for(truths, results, by):
    """An object after the other."""
    hits, counts = [], []
    for m in range(len(truths.labels)):
        box = truths.boxes[m]
        best, points = 0.0, None
        order = np.argsort(-np.asarray(results.scores), kind="stable")
        for n in order:
            same = results.image_ids[n] == truths.image_ids[m]
            if not same or results.labels[n] != truths.labels[m]:
                continue
            x, y, w, h = results.boxes[n]
            across = min(x + w, box[0] + box[2]) - max(x, box[0])
            down = min(y + h, box[1] + box[3]) - max(y, box[1])
            inner = max(across, 0) * max(down, 0)
            iou = inner / (w * h + box[2] * box[3] - inner)
            if iou > best + 1e-12:
                best, points = iou, results.keypoints[n]
        true = truths.keypoints[m]
        length = max(box[2:])
        if by.pair is not None:
            one, other = true[by.pair[0]], true[by.pair[1]]
            length = np.hypot(*(one - other)[:2]) if one[2] and other[2] else 0
        skip = truths.crowd[m] or (truths.ignore is not None and truths.ignore[m])
        for k, (x, y, seen) in enumerate(true):
            if not seen or length <= 0 or skip:
                continue
            counts.append(k)
            if points is None:
                continue
            if np.hypot(points[k][0] - x, points[k][1] - y) <= by.reach * length:
                hits.append(k)
    return np.bincount(hits, minlength=5), np.bincount(counts, minlength=5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", [pck.Scale(0.2), pck.Scale(0.5, (0, 1))])
def test_it_is_that_of_a_loop(seed, by):
    truths, results, image_ids = posed(np.random.default_rng(seed), 5)
    found, counts = pck.evaluate(
        truths, results, image_ids=image_ids, num_classes=2, by=by
    )
    hits, number = looked_for(truths, results, by)
    assert number.sum() > 20
    np.testing.assert_array_equal(found.sum(axis=0), hits)
    np.testing.assert_array_equal(counts.sum(axis=0), number)


def one(points, images=(1, 2)):
    """Objects of 10 x 20 pixels, whose first keypoint is (5, 5) and second (5, 9)."""
    m = len(images)
    place = np.tile([[5.0, 5.0, 2], [5.0, 9.0, 1]], (m, 1, 1))
    truths = Truths(
        image_ids=np.array(images),
        labels=np.zeros(m, int),
        boxes=np.tile([0.0, 0, 10, 20], (m, 1)),
        areas=np.full(m, 200.0),
        crowd=np.zeros(m, bool),
        keypoints=place,
    )
    n = len(points)
    results = Results(
        image_ids=np.ones(n, int),
        labels=np.zeros(n, int),
        scores=np.linspace(0.9, 0.1, n),
        boxes=np.tile([0.0, 0, 10, 20], (n, 1)),
        keypoints=np.array(points, float).reshape(n, 2, 2),
    )
    return {
        "truths": truths,
        "results": results,
        "image_ids": np.array([1, 2]),
        "num_classes": 1,
    }


def test_rates_by_hand():
    """Of two objects the second is not found: half of everything is right at most."""
    case = one([[[5, 5], [5, 12]], [[5, 5], [5, 9]]])
    names = ["head", "neck"]
    # A fifth of 20 pixels is 4: both are near enough.
    assert pck.rates(*pck.evaluate(**case, by=pck.Scale(0.2)), names) == {
        "PCK": 0.5,
        "PCK/head": 0.5,
        "PCK/neck": 0.5,
    }
    # Half of the segment is 2: the second, 3 away, is not; the better detection counts.
    found = pck.evaluate(**case, by=pck.Scale(0.5, (0, 1)))
    assert pck.rates(*found, names)["PCK/neck"] == 0
    nothing = one([], images=())
    found = pck.evaluate(**nothing, by=pck.Scale(0.2))
    assert set(pck.rates(*found, names).values()) == {-1.0}
