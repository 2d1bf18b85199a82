"""The synthetic set: what is annotated is what can be seen."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detjax.data.formats import shapes


@pytest.fixture(scope="module")
def records():
    return shapes.records("train", 100)


def masks(record):
    size = [record.height, record.width]
    return [coco_mask.decode({"size": size, "counts": a.rle}) for a in record.truth]


def test_a_picture_depends_on_seed_split_and_number_alone(records):
    def images(*args):
        return [r.image for r in shapes.records(*args)]

    first = [r.image for r in records[:3]]
    assert images("train", 3) == first
    assert images("train", 3, 128, 1)[0] != first[0]
    assert images("val", 3)[0] != first[0]
    assert len(set(first)) == 3


def test_masks_do_not_overlap_and_fit_their_boxes(records):
    for record in records:
        found = masks(record)
        assert np.sum(found, axis=0).max() <= 1
        for annotation, mask in zip(record.truth, found, strict=True):
            ys, xs = np.nonzero(mask)
            tight = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert annotation.box == tight
            assert annotation.area == mask.sum() >= 40


def test_numbers_and_sizes(records):
    counts = [len(r.truth) for r in records]
    assert min(counts) >= 1
    assert max(counts) == shapes.MAX_OBJECTS
    labels = [a.label for r in records for a in r.truth]
    assert (np.bincount(labels, minlength=4) > len(labels) / 8).all()
    sides = [
        max(a.box[2] - a.box[0], a.box[3] - a.box[1]) for r in records for a in r.truth
    ]
    assert max(sides) <= 72
    ids = [a.id for r in records for a in r.truth]
    assert len(set(ids)) == len(ids)


def test_some_objects_cover_others(records):
    def covered(record):
        boxes = [a.box for a in record.truth]
        return any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
            for i, a in enumerate(boxes)
            for b in boxes[:i]
        )

    assert sum(map(covered, records)) > 20


def test_objects_stand_out(records):
    differences = []
    for record in records:
        image = cv2.imdecode(np.frombuffer(record.image, np.uint8), 1).astype(float)
        for mask in masks(record):
            rim = cv2.dilate(mask, np.ones((9, 9))) - mask
            inside, outside = image[mask > 0].mean(0), image[rim > 0].mean(0)
            differences.append(np.abs(inside - outside).max())
    assert np.median(differences) > 50


def test_all_but_hidden_objects_are_left_out(monkeypatch):
    # Every shape is the same square, so that only the last is seen.
    whole = np.zeros((64, 64), bool)
    whole[10:30, 10:30] = True
    monkeypatch.setattr(shapes, "outline", lambda rng, kind, size, *_: whole)
    for record in shapes.records("train", 5, 64):
        assert [a.area for a in record.truth] == [400]


def test_splits_and_digests_go_together():
    splits = shapes.read_splits(num_train=3, num_val=2, size=48, seed=5)
    assert [len(d.records) for d in splits.values()] == [3, 2]
    assert splits["val"].records[0].height == 48
    digests = shapes.digests(num_train=3, num_val=2, size=48, seed=5)
    assert list(digests) == list(splits)
    assert digests != shapes.digests(num_train=3, num_val=2, size=48, seed=6)
