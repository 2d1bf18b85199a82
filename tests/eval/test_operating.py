"""Precision, recall and F1 by confidence; the confusion of detections: by loops."""

import numpy as np
import pytest

from detjax.eval import confusion, matching, operating
from detjax.eval.columns import Results, Truths
from tests import reference

CLASSES = 3


def split(seed, images=6, ignored=True):
    """Objects, and detections near and far of them."""
    rng = np.random.default_rng(seed)
    m = 20
    boxes = np.concatenate([rng.uniform(0, 60, (m, 2)), rng.uniform(8, 30, (m, 2))], 1)
    ids, labels = rng.integers(0, images, m), rng.integers(0, CLASSES, m)
    crowd = rng.random(m) < 0.1 * ignored
    ignore = rng.random(m) < 0.1 * ignored
    truths = Truths(ids, labels, boxes, boxes[:, 2:].prod(1), crowd, ignore=ignore)
    again = rng.integers(0, m, 60)
    near = boxes[again] + rng.normal(0, 2.5, (60, 4))
    near[:, 2:] = np.maximum(near[:, 2:], 2)
    other = np.where(rng.random(60) < 0.3, rng.integers(0, CLASSES, 60), labels[again])
    results = Results(ids[again], other, rng.random(60).round(2), near)
    return truths, results, np.arange(images)


def corners(box):
    x, y, w, h = box
    return np.array([x, y, x + w, y + h])


def taken_by_loops(truths, results, label):
    """(score, right) of the detections of a class that count, at an IoU of .5."""
    order = np.argsort(-results.scores, kind="stable")
    free = np.ones(len(truths.labels), bool)
    out = truths.crowd | truths.ignore
    rows = []
    for d in order:
        if results.labels[d] != label:
            continue
        best, best_value = None, None
        for t in range(len(truths.labels)):
            if truths.labels[t] != label or not (free[t] or truths.crowd[t]):
                continue
            if truths.image_ids[t] != results.image_ids[d]:
                continue
            a, b = corners(results.boxes[d]), corners(truths.boxes[t])
            overlap = reference.iou([a], [b])[0][0]
            if truths.crowd[t]:
                low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
                overlap = np.maximum(high - low, 0).prod() / results.boxes[d, 2:].prod()
            if overlap < 0.5:
                continue
            value = (not out[t], overlap)
            if best is None or value > best_value:
                best, best_value = t, value
        if best is None:
            rows.append((results.scores[d], False))
        else:
            free[best] = False
            if not out[best]:
                rows.append((results.scores[d], True))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_precision_and_recall_by_confidence_are_the_loops(seed):
    truths, results, images = split(seed)
    found = operating.by_confidence(
        matching.matched(truths, results, image_ids=images, num_classes=CLASSES)
    )
    for label in range(CLASSES):
        counted = ~(truths.crowd | truths.ignore) & (truths.labels == label)
        assert found.counts[label] == counted.sum()
        rows = taken_by_loops(truths, results, label)
        for g in (0, 40, 77, 100, 150, 200):
            least = found.confidences[g]
            right = [hit for score, hit in rows if score >= least - 1e-12]
            f1 = 2 * sum(right) / (len(right) + counted.sum())
            assert found.f1[label, g] == pytest.approx(f1)
            assert found.recall[label, g] == pytest.approx(sum(right) / counted.sum())
            if right:
                assert found.precision[label, g] == pytest.approx(np.mean(right))
            else:
                assert np.isnan(found.precision[label, g])
    best = found.best()
    assert (found.f1[np.arange(CLASSES), best] == found.f1.max(axis=1)).all()
    mean = found.f1.mean(axis=0)
    assert found.confidence() == found.confidences[mean.argmax()]


def test_nothing_found_and_nothing_there_are_no_numbers():
    truths, results, images = split(0)
    none = results._replace(
        **{k: v[:0] for k, v in results._asdict().items() if v is not None}
    )
    found = operating.by_confidence(
        matching.matched(truths, none, image_ids=images, num_classes=CLASSES + 1)
    )
    assert (found.recall[:CLASSES] == 0).all() and (found.f1[:CLASSES] == 0).all()
    assert np.isnan(found.recall[CLASSES]).all() and np.isnan(found.precision).all()
    empty = truths._replace(
        **{k: v[:0] for k, v in truths._asdict().items() if v is not None}
    )
    found = operating.by_confidence(
        matching.matched(empty, results, image_ids=images, num_classes=CLASSES)
    )
    assert np.isnan(found.f1).all() and found.confidence() == 0


def confusion_by_loops(truths, results, min_score):
    """One pair after the other, the best of all that are left."""
    matrix = np.zeros((CLASSES + 1, CLASSES + 1), int)
    out = truths.crowd | truths.ignore
    pairs, void = [], set()
    for d in range(len(results.labels)):
        if results.scores[d] < min_score:
            continue
        for t in range(len(truths.labels)):
            if truths.image_ids[t] != results.image_ids[d]:
                continue
            a, b = corners(results.boxes[d]), corners(truths.boxes[t])
            overlap = reference.iou([a], [b])[0][0]
            if truths.crowd[t]:
                low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
                overlap = np.maximum(high - low, 0).prod() / results.boxes[d, 2:].prod()
            if overlap < 0.5:
                continue
            if out[t]:
                void.add(d)
            else:
                pairs.append((results.labels[d] == truths.labels[t], overlap, d, t))
    taken, met = set(), set()
    for _, _, d, t in sorted(pairs, key=lambda p: (not p[0], -p[1])):
        if d not in taken and t not in met:
            taken.add(d)
            met.add(t)
            matrix[truths.labels[t], results.labels[d]] += 1
    for t in range(len(truths.labels)):
        if t not in met and not out[t]:
            matrix[truths.labels[t], CLASSES] += 1
    for d in range(len(results.labels)):
        if results.scores[d] >= min_score and d not in taken | void:
            matrix[CLASSES, results.labels[d]] += 1
    return matrix


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_score", [0.0, 0.6])
def test_the_confusion_of_detections_is_the_loops(seed, min_score):
    truths, results, images = split(seed)
    got = confusion.detections(
        truths, results, image_ids=images, num_classes=CLASSES, min_score=min_score
    )
    np.testing.assert_array_equal(got, confusion_by_loops(truths, results, min_score))


def test_other_images_and_small_chunks_change_nothing(monkeypatch):
    truths, results, images = split(1)
    options = {"num_classes": CLASSES, "min_score": 0.1}
    whole = confusion.detections(truths, results, image_ids=images, **options)
    monkeypatch.setattr(matching, "CHUNK", 5)
    again = confusion.detections(truths, results, image_ids=images, **options)
    np.testing.assert_array_equal(whole, again)
    some = [
        confusion.detections(truths, results, image_ids=part, **options)
        for part in (images[:2], images[2:])
    ]
    np.testing.assert_array_equal(sum(some), whole)
