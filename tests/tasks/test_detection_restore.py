"""Detections back in the original's pixels, and as COCO's results."""

import jax
import numpy as np

from detjax.data import rle
from detjax.tasks.detection.restore import entries, restore, shrink
from detjax.types import Detections

AFFINE = np.float32([[2, 0, 4], [0, 0.5, 1]])


def detections(**extra):
    return Detections(
        boxes=np.float32([[4, 1, 24, 6], [0, 0, 9, 9], [14, 3.5, 34, 8.5]]),
        scores=np.float32([0.9, 0.8, 0.7]),
        labels=np.int32([1, 0, 0]),
        valid=np.array([True, False, True]),
        **extra,
    )


def test_masks_on_boxes_and_keypoints_come_back():
    found = restore(
        detections(
            box_masks=np.ones((3, 28, 28), np.float32),
            keypoints=np.tile(np.float32([[[14, 3.5, 7], [4, 1, -2]]]), (3, 1, 1)),
        ),
        AFFINE,
        (30, 40),
        (64, 64),
    )
    np.testing.assert_allclose(found.boxes, [[0, 0, 10, 10], [5, 5, 15, 15]])
    np.testing.assert_allclose(found.keypoints[1], [[5, 5, 7], [0, 0, -2]])
    assert found.masks.shape == (2, 30, 40)
    # The mask is full: it covers its box and half a cell of the grid around it.
    assert found.masks[1, 5:15, 5:15].all()
    assert found.masks[1].sum() <= 12 * 12
    rows = entries(found, 7, [10, 20])
    assert [row["category_id"] for row in rows] == [20, 10]
    assert rows[1]["keypoints"] == [5, 5, 7, 0, 0, -2]
    drawn = rle.decode(rows[1]["segmentation"])
    np.testing.assert_array_equal(drawn, found.masks[1])


def test_boxes_alone_have_neither():
    (row, _) = entries(restore(detections(), AFFINE, (30, 40), (64, 64)), 7, [10, 20])
    assert sorted(row) == ["bbox", "category_id", "image_id", "score"]


def test_masks_leave_the_device_in_eight_bits():
    """Drawn four times as large, hardly a pixel of their edges is another one."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:138, :138]
    blobs = [
        np.hypot((x - cx) / rx, (y - cy) / ry)
        for cx, cy, rx, ry in rng.uniform([40, 40, 8, 8], [100, 100, 40, 40], (3, 4))
    ]
    masks = (1 / (1 + np.exp(6 * (np.stack(blobs) - 1)))).astype("f")
    whole = Detections(
        boxes=np.tile(np.float32([0, 0, 550, 550]), (3, 1)),
        scores=np.ones(3, "f"),
        labels=np.zeros(3, np.int32),
        valid=np.ones(3, bool),
        masks=masks,
    )
    small = jax.device_get(jax.jit(shrink)(whole))
    assert small.masks.dtype == np.uint8
    identity = np.eye(2, 3, dtype="f")
    drawn, exact = (
        restore(each, identity, (550, 550), (550, 550)).masks for each in (small, whole)
    )
    assert (drawn & exact).sum() > 0.999 * (drawn | exact).sum() > 10_000
