"""Pictures of detections: of every size, under any name, and within bounds."""

import resource
import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest

from detjax import draw
from detjax.data.records import Annotation, Record
from detjax.ops import masks
from detjax.predict import Found


def picture(h, w):
    return np.full((h, w, 3), 255, np.uint8)


def found(h, w, *drawn, **more):
    """Detections of the masks `drawn` in a picture of h x w."""
    boxes = []
    for mask in drawn:
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    n = len(drawn)
    return Found(
        np.float32(boxes).reshape(-1, 4),
        np.linspace(0.9, 0.5, n),
        np.arange(n) % 2,
        [masks.encode_rle(mask) for mask in drawn],
        size=(h, w),
        **more,
    )


def block(h, w, y, x):
    mask = np.zeros((h, w), bool)
    mask[y, x] = True
    return mask


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((2, 3000), (2, 3000)),
        ((2, 60), (67, 2000)),
        ((1, 1), (480, 480)),
        ((100, 200), (480, 960)),
        ((3000, 2000), (3000, 2000)),
    ],
)
def test_pictures_are_enlarged_within_bounds(size, drawn):
    assert draw.detections(picture(*size), found(*size), ["a"]).shape[:2] == drawn


def test_large_pictures_are_shrunk_for_a_panel():
    one = found(6000, 4, block(6000, 4, slice(0, 3000), slice(0, 4)))
    drawn = draw.detections(picture(6000, 4), one, ["a"], most_side=720)
    assert drawn.shape == (720, 1, 3)
    assert (drawn[:300] != 255).any()


@pytest.mark.parametrize("size", [(600, 500), (60, 48)])
def test_masks_are_blended_where_they_are(size):
    h, w = size
    large = block(h, w, slice(h // 5, h), slice(w // 5, w))
    small = block(h, w, slice(h // 2, h // 5 * 4), slice(w // 2, w // 5 * 4))
    canvas = draw.detections(picture(h, w), found(h, w), ["a", "b"])
    got = draw.blended(canvas, found(h, w, small, large), [0, 1])
    scale = got.shape[0] // h
    colours = [
        [0.45 * c + 0.55 * 255 for c in draw.sv.ColorPalette.DEFAULT.by_idx(i).as_bgr()]
        for i in range(2)
    ]
    expected = np.full(got.shape, 255.0)
    # The small one comes first and lies on top all the same.
    for mask, colour in ((large, colours[1]), (small, colours[0])):
        expected[mask.repeat(scale, 0).repeat(scale, 1)] = colour
    np.testing.assert_allclose(got, expected, atol=1)


def test_an_empty_mask_is_drawn_as_nothing():
    nothing = found(50, 60)._replace(rles=[masks.encode_rle(np.zeros((50, 60)))])
    assert (draw.blended(picture(50, 60), nothing, [0]) == 255).all()


def test_memory_of_many_masks_is_not_theirs():
    h, w = 1500, 2000
    mask = block(h, w, slice(0, h), slice(0, w))
    many = found(h, w, *[mask] * 20)
    image = picture(h, w)
    tracemalloc.start()
    draw.detections(image, many, ["a", "b"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * mask.size  # 20 masks alone would be 20


def test_keypoints_far_outside_are_left_out():
    one = found(480, 500, block(480, 500, slice(9, 400), slice(9, 400)))._replace(
        rles=None
    )
    points = [
        [100, 200, 3],
        [1e30, 5, 2],
        [-1e30, 5, 2],
        [np.nan, 4, 2],
        [np.inf, 1, 1],
    ]
    drawn = draw.detections(
        picture(480, 500), one._replace(keypoints=np.float32([points])), ["a"]
    )
    without = draw.detections(picture(480, 500), one, ["a"])
    y, x = np.nonzero((drawn != without).any(axis=-1))
    assert (y.min(), y.max(), x.min(), x.max()) == (197, 203, 97, 103)


NAMES = ["price_$5_$x^^.png", "a\nb\x07.png", "\udcff.png", "日本.png", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_names_do_not_break_the_figure(name, tmp_path):
    encoded = cv2.imencode(".png", picture(40, 60))[1].tobytes()
    thing = Annotation(1, (5, 5, 30, 30), 0, 625.0)
    record = Record(1, name, 40, 60, image=encoded, annotations=[thing])
    path = tmp_path / "predictions.png"
    draw.comparison(path, [record], [found(40, 60)], [name, "b"])
    assert cv2.imread(str(path)).shape[1] == 1872


def test_a_broken_picture_is_told_of_and_the_rest_is_drawn(tmp_path, capsys):
    encoded = cv2.imencode(".png", picture(40, 60))[1].tobytes()
    records = [
        Record(1, "whole.png", 40, 60, image=encoded),
        Record(2, "broken.png", 40, 60, image=b"no picture"),
        Record(3, "strip.png", 9000, 1, image=encoded),
    ]
    path = tmp_path / "predictions.png"
    draw.comparison(path, records, [found(40, 60)] * 3, ["a"])
    assert cv2.imread(str(path)).shape[0] < 1000
    said = capsys.readouterr().err
    assert "broken.png is not drawn" in said
    assert "whole.png" not in said


CELLS = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (7 << 30, 7 << 30))
import cv2, numpy as np
from detjax import draw
from detjax.data import rle
from detjax.data.records import Annotation, Record

labels = np.zeros((1200, 1200), np.int32)
for i in range(3025):
    y, x = i // 55 * 21, i % 55 * 21
    labels[y : y + 18, x : x + 18] = i + 1
things = [
    Annotation(i, one.box, 0, one.area, rle=one.rle)
    for i, one in rle.instances(labels).items()
]
image = cv2.imencode(".png", np.zeros((1200, 1200, 3), np.uint8))[1].tobytes()
record = Record(1, "cells.png", 1200, 1200, image=image, annotations=things)
draw.comparison("{}", [record], [draw.truth(record)], ["cell"])
"""


def test_thousands_of_cells_are_drawn_in_7_gb(tmp_path):
    path = tmp_path / "predictions.png"
    done = subprocess.run(
        [sys.executable, "-c", CELLS.format(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 << 20
    assert "not drawn" not in done.stderr
    assert (cv2.imread(str(path))[100:300, 200:300] != 255).any()


def test_drawings_say_so_and_other_pictures_do_not(tmp_path):
    draw.save(tmp_path / "a.png", np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    back = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    assert back.ravel().tolist() == list(range(60))
    cv2.imwrite(str(tmp_path / "b.png"), back)
    assert draw.is_drawing(tmp_path / "a.png")
    assert not draw.is_drawing(tmp_path / "b.png")
    assert not draw.is_drawing(tmp_path / "absent.png")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.png", "b.png"]
    with pytest.raises(OSError, match=r"a\.xyz cannot be written"):
        draw.save(tmp_path / "a.xyz", back)
