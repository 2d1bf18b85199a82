"""Boxes at an angle, against a clipper of polygons in float64 and OpenCV."""

import cv2
import jax
import numpy as np
import pytest

from detjax.data import rectangles
from detjax.ops import boxes as upright_boxes
from detjax.ops import rotated


def clipped(subject, clip):
    """Sutherland and Hodgman's: the part of a polygon inside a convex one."""
    found = [np.array(p) for p in subject]
    for a, b in zip(clip, np.roll(clip, -1, axis=0), strict=True):
        edge, before, found = b - a, found, []

        def side(p, a=a, edge=edge):
            return edge[0] * (p[1] - a[1]) - edge[1] * (p[0] - a[0])

        for p, q in zip(before, before[1:] + before[:1], strict=True):
            if side(p) >= 0:
                found.append(p)
            if side(p) * side(q) < 0:
                found.append(p + (q - p) * side(p) / (side(p) - side(q)))
    return found


def shoelace(points):
    x, y = np.array(points).T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


def oracle(a, b):
    one, two = (rectangles.corners(x[None].astype(np.float64))[0] for x in (a, b))
    common = clipped(one, two)
    shared = shoelace(common) if len(common) > 2 else 0.0
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def drawn(seed, n, spread=30):
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.uniform(0, spread, (n, 2)) + 500,
            rng.uniform(2, 40, (n, 2)),
            rng.uniform(-np.pi, np.pi, n),
        ]
    ).astype(np.float32)


def test_overlaps_are_those_of_clipped_polygons():
    a, b = drawn(0, 40), drawn(1, 50)
    found = np.asarray(jax.jit(rotated.iou)(a, b))
    expected = np.array([[oracle(x, y) for y in b] for x in a])
    assert (expected > 0.05).sum() > 500
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(
        rotated.paired_iou(a, b[:40]), np.diag(expected), atol=1e-4
    )


def test_overlaps_are_opencvs():
    a, b = drawn(2, 60), drawn(3, 60)
    for x, y, iou in zip(a, b, np.asarray(rotated.paired_iou(a, b)), strict=True):
        one, two = (
            (
                (float(z[0]), float(z[1])),
                (float(z[2]), float(z[3])),
                np.degrees(float(z[4])),
            )
            for z in (x, y)
        )
        _, ring = cv2.rotatedRectangleIntersection(one, two)
        shared = 0.0 if ring is None else cv2.contourArea(cv2.convexHull(ring))
        assert iou == pytest.approx(
            shared / (x[2] * x[3] + y[2] * y[3] - shared), abs=2e-3
        )


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # Equal, also as another reading of the same rectangle.
        ((5, 5, 8, 4, 0.3), (5, 5, 8, 4, 0.3), 1),
        ((5, 5, 8, 4, 0.3), (5, 5, 4, 8, 0.3 + np.pi / 2), 1),
        ((5, 5, 8, 4, 0.3), (5, 5, 8, 4, 0.3 + np.pi), 1),
        # One inside the other, touching along an edge, far apart.
        ((5, 5, 8, 8, 0.7), (5, 5, 4, 4, 0.7), 0.25),
        ((0, 0, 4, 4, 0), (4, 0, 4, 4, 0), 0),
        ((0, 0, 4, 4, 0), (1e4, 0, 4, 4, 1), 0),
        # A square and itself turned by 45 degrees share an octagon.
        (
            (0, 0, 2, 2, 0),
            (0, 0, 2, 2, np.pi / 4),
            (8 * np.sqrt(2) - 8) / (16 - 8 * np.sqrt(2)),
        ),
        # Crossed bars.
        ((0, 0, 100, 1, 0), (0, 0, 100, 1, np.pi / 2), 1 / 199),
        # Without an area.
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), 0),
        ((0, 0, 4, 0, 0), (0, 0, 4, 4, 0), 0),
    ],
)
def test_overlaps_by_hand(a, b, expected):
    found = rotated.iou(np.float32([a]), np.float32([b]))
    assert float(found[0, 0]) == pytest.approx(expected, abs=1e-4)


def test_upright_boxes_overlap_as_they_do():
    rng = np.random.default_rng(4)
    low = rng.uniform(0, 30, (20, 2))
    plain = np.concatenate([low, low + rng.uniform(1, 20, (20, 2))], 1).astype(
        np.float32
    )
    turned = rotated.upright(plain)
    np.testing.assert_allclose(
        rotated.iou(turned, turned), upright_boxes.iou(plain, plain), atol=1e-4
    )
    np.testing.assert_allclose(rotated.hull(turned), plain, atol=1e-4)
    np.testing.assert_allclose(
        rotated.area(turned), upright_boxes.area(plain), rtol=1e-5
    )


def sorted_corners(boxes):
    places = np.asarray(rotated.corners(boxes))
    return np.array([p[np.lexsort(p.T.round(2))] for p in places])


def test_the_canonical_form_is_the_same_rectangle():
    boxes = drawn(5, 30)
    found = np.asarray(rotated.canonical(boxes))
    assert (found[:, 2] >= found[:, 3]).all()
    assert (np.abs(found[:, 4]) <= np.pi / 2 + 1e-6).all()
    np.testing.assert_allclose(sorted_corners(found), sorted_corners(boxes), atol=1e-3)
    np.testing.assert_allclose(found, rectangles.canonical(boxes), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        rotated.corners(boxes), rectangles.corners(boxes), atol=1e-3
    )


def test_mirrored_and_enlarged_corners_are_those_of_the_boxes():
    boxes = drawn(6, 20)
    flipped = np.asarray(rotated.corners(boxes)) * [-1, 1] + [640, 0]
    expected = np.array([p[np.lexsort(p.T.round(2))] for p in flipped])
    np.testing.assert_allclose(
        sorted_corners(rotated.mirror(boxes, 640)), expected, atol=1e-3
    )
    larger = np.asarray(rotated.corners(boxes)) * 2
    expected = np.array([p[np.lexsort(p.T.round(2))] for p in larger])
    np.testing.assert_allclose(
        sorted_corners(rotated.rescale(boxes, (2.0, 2.0))), expected, atol=2e-3
    )
    stretched = rotated.rescale(np.float32([[1, 2, 6, 4, 0]]), (2.0, 3.0))
    np.testing.assert_allclose(stretched, [[3, 4, 18, 8, 0]], atol=1e-5)


def test_suppression_keeps_the_best_of_those_that_overlap():
    boxes = np.float32(
        [
            [10, 10, 20, 4, 0.5],
            [10, 10, 20, 4, 0.45],
            # Its upright box is the first one's, and itself across it.
            [10, 10, 20, 4, -0.5],
            [60, 60, 8, 8, 0],
            [60, 60, 8, 8, np.pi / 2],
        ]
    )
    scores = np.float32([0.8, 0.9, 0.7, 0.6, 0.5])
    kept = rotated.nms(boxes, scores, 0.5)
    assert kept.tolist() == [False, True, True, True, False]
    labels = np.array([0, 1, 0, 0, 1])
    assert rotated.nms(boxes, scores, 0.5, labels=labels).all()
    valid = np.array([True, False, True, True, True])
    assert rotated.nms(boxes, scores, 0.5, valid).tolist() == [
        True,
        False,
        True,
        True,
        False,
    ]
