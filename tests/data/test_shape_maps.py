"""Synthetic label maps and depths, crops of a size, and weights of classes."""

import cv2
import numpy as np
import pytest

from detjax.data import label_maps, repeats, rle, value_maps
from detjax.data.augment import augment, sized_crop
from detjax.data.formats import depth_shapes, scene_shapes, semantic_shapes, shapes
from detjax.data.frames import Frame
from detjax.data.records import Unreadable

SIZES = {"num_train": 3, "num_val": 2, "size": 64}


@pytest.mark.parametrize("module", [semantic_shapes, depth_shapes, scene_shapes])
def test_pictures_depend_on_seed_and_number_only(module):
    first, second = (module.read_splits(**SIZES) for _ in range(2))
    assert {s: len(d.records) for s, d in first.items()} == {"train": 3, "val": 2}
    for split in first:
        for a, b in zip(first[split].records, second[split].records, strict=True):
            assert a.image == b.image
            assert a.truth == b.truth
    other = module.read_splits(**SIZES, seed=1)
    assert other["train"].records[0].image != first["train"].records[0].image
    assert module.digests(**SIZES) != module.digests(**SIZES, seed=1)


def test_label_maps_are_of_the_pictures_of_shapes():
    ours = semantic_shapes.read_splits(**SIZES)["train"].records
    theirs = shapes.read_splits(**SIZES)["train"].records
    for one, other in zip(ours, theirs, strict=True):
        assert one.image == other.image
        labels, valid = label_maps.decode(one.truth, (64, 64))
        assert valid.all()
        for thing in other.truth:
            mask = rle.decode({"size": [64, 64], "counts": thing.rle})
            assert (labels[mask] == thing.label + 1).all()


def test_near_objects_hide_far_ones_and_depth_is_known():
    for record in scene_shapes.read_splits(**SIZES)["train"].records:
        labels, _ = label_maps.decode(record.truth["segmentation"], (64, 64))
        depth, known = value_maps.decode(record.truth["dense"], (64, 64))
        assert known.all()
        np.testing.assert_array_equal(depth == scene_shapes.WALL, labels == 0)
        inside = depth[labels > 0]
        assert inside.min() >= scene_shapes.NEAR
        assert inside.max() <= scene_shapes.FAR


def test_the_nearest_of_a_scene_is_whole():
    rng = np.random.default_rng(3)
    for _ in range(5):
        _, owner, kinds, depth = scene_shapes.scene(rng, 64)
        seen = [depth[owner == i + 1] for i in range(len(kinds))]
        metres = [float(d[0]) for d in seen if d.size]
        assert metres == sorted(metres, reverse=True)


def test_depth_is_that_of_the_scene():
    depth = depth_shapes.read_splits(**SIZES)["train"].records
    scene = scene_shapes.read_splits(**SIZES)["train"].records
    for a, b in zip(depth, scene, strict=True):
        assert a.truth == b.truth["dense"]
        assert a.image == b.image


def test_maps_of_another_size_or_kind_are_refused():
    labels, valid = np.zeros((5, 7), int), np.ones((5, 7), bool)
    with pytest.raises(Unreadable, match="of 5 x 7, not 7 x 5"):
        label_maps.decode(label_maps.encode(labels, valid, 3), (7, 5))
    with pytest.raises(Unreadable, match="no PNG"):
        label_maps.decode(b"junk", (7, 5))
    file = value_maps.encode(labels + 0.5, valid)
    with pytest.raises(Unreadable, match="of 5 x 7, not 7 x 5"):
        value_maps.decode(file, (7, 5))
    png = cv2.imencode(".png", np.zeros((7, 5), np.uint8))[1].tobytes()
    with pytest.raises(Unreadable, match="not 7 x 5"):
        value_maps.decode(png, (7, 5))


@pytest.mark.parametrize("classes", [3, 255, 256, 1000])
def test_maps_keep_labels_and_what_is_ignored(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, (9, 11))
    valid = rng.random((9, 11)) < 0.7
    held, known = label_maps.decode(label_maps.encode(labels, valid, classes), (9, 11))
    assert held.dtype == label_maps.dtype(classes)
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_array_equal(held, np.where(valid, labels, 0))


def corners(frame):
    """The window of a frame in pixels of the picture."""
    h, w = frame.size
    points = np.array([[0, 0, 1], [w, h, 1]]) @ np.linalg.inv(frame.matrix).T
    return points[:, :2].ravel()


def test_sized_crops_lie_inside_or_hold_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(50):
        whole = rng.uniform(20, 200, 2)
        zoom = rng.uniform(0.5, 2)
        frame = sized_crop(rng, Frame(np.eye(3), whole), (64, 96), (zoom, zoom))
        np.testing.assert_allclose(frame.size, (64 / zoom, 96 / zoom))
        x1, y1, x2, y2 = corners(frame)
        for low, high, side in ((y1, y2, whole[0]), (x1, x2, whole[1])):
            if high - low <= side:
                assert low >= -1e-6
                assert high <= side + 1e-6
            else:
                assert low <= 1e-6
                assert high >= side - 1e-6


def test_crops_of_a_size_show_pixels_as_large_as_the_scale_says():
    rng = np.random.default_rng(0)
    boxes = np.zeros((0, 4))
    for _ in range(20):
        _, frame = augment(
            rng, (300, 400), boxes, crop_size=(128, 128), scale=(2.0, 2.0), mirror=True
        )
        assert tuple(frame.size) == (64, 64)
        assert abs(np.linalg.det(frame.matrix[:2, :2])) == pytest.approx(1)


def test_median_frequency_is_that_of_the_paper():
    # Shares of the pixels of images that have the class: 1/2, 1/4, 1/8.
    pixels = [[50, 100, 25, 0], [100, 400, 200, 0]]
    weights = repeats.median_frequency(pixels)
    np.testing.assert_allclose(weights, [0.5, 1.0, 2.0, 1.0])
    np.testing.assert_allclose(
        repeats.equal(pixels[0]), [175 / 150, 175 / 300, 175 / 75, 1.0]
    )
