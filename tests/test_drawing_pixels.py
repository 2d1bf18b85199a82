"""Drawings, pixel by pixel: masks, lines and names where they belong, nothing else."""

import cv2
import numpy as np
import pytest

from detjax import draw
from detjax.data.records import Annotation, Record
from detjax.tasks import detection
from detjax.tasks.detection import drawing
from detjax.tasks.detection.restore import Found
from tests import reference

H, W = 500, 620  # large enough to be drawn as it is
GREY = 200
BOX = (180, 200, 420, 380)
CLASSES = ["cell", "nucleus"]


def shade(label):
    """The colour of a class, as it is drawn."""
    return np.uint8([int(drawing.PALETTE[label][i : i + 2], 16) for i in (1, 3, 5)])


def disc():
    """The mask of a disc well inside `BOX`."""
    x1, y1, x2, y2 = BOX
    y, x = np.mgrid[:H, :W] + 0.5
    return (x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2 < 60**2


def found(label=1, masks=True):
    return Found(
        np.float32([BOX]),
        np.array([0.87]),
        np.array([label]),
        [reference.rle(disc())] if masks else None,
        size=(H, W),
    )


def drawn(what):
    return drawing.draw(np.full((H, W, 3), GREY, np.uint8), what, CLASSES)


def near_lines(reach):
    """Pixels that are no further than `reach` from the lines of `BOX`."""
    x1, y1, x2, y2 = BOX
    y, x = np.mgrid[:H, :W]
    outer = (
        (x >= x1 - reach) & (x <= x2 + reach) & (y >= y1 - reach) & (y <= y2 + reach)
    )
    inner = (x > x1 + reach) & (x < x2 - reach) & (y > y1 + reach) & (y < y2 - reach)
    return outer & ~inner


def test_a_mask_takes_its_classes_colour_and_nothing_else_does():
    got = drawn(found())
    mask = disc()
    expected = 0.45 * shade(1).astype(float) + 0.55 * GREY
    # All but the outline, which is as wide as lines are.
    inner = cv2.erode(mask.astype(np.uint8), np.ones((7, 7))) > 0
    np.testing.assert_allclose(got[inner], np.tile(expected, (inner.sum(), 1)), atol=1)
    reach = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7))) > 0
    x1, y1, x2, y2 = BOX
    inside = np.zeros((H, W), bool)
    inside[y1 + 4 : y2 - 3, x1 + 4 : x2 - 3] = True
    assert (got[inside & ~reach] == GREY).all()


@pytest.mark.parametrize("label", [0, 1])
def test_lines_run_along_the_box_in_its_classes_colour(label):
    got = drawn(found(label, masks=False))
    x1, y1, x2, y2 = BOX
    # A line of two pixels lies on the bound and beside it.
    for x in range(x1, x2 + 1):
        assert (got[[y1, y2], x] == shade(label)).all()
    for y in range(y1, y2 + 1):
        assert (got[y, [x1, x2]] == shade(label)).all()
    changed = (got != GREY).any(axis=-1)
    below = np.mgrid[:H, :W][0] > y1 + 1
    assert not (changed & below & ~near_lines(1)).any()


def test_a_name_stands_on_the_box_in_its_classes_colour():
    got = drawn(found(masks=False))
    rest = (got != GREY).any(axis=-1) & ~near_lines(1)
    y, x = np.nonzero(rest)
    x1, y1, x2, _ = BOX
    # A filled rectangle that begins at the box's corner and ends above its line.
    assert abs(x.min() - x1) <= 1 and y1 - 4 <= y.max() < y1
    assert 40 < x.max() - x.min() < x2 - x1 and 8 < y.max() - y.min() < 40
    assert rest[y.min() : y.max() + 1, x.min() : x.max() + 1].mean() > 0.99
    label = got[y.min() : y.max() + 1, x.min() : x.max() + 1].reshape(-1, 3)
    filled = (label == shade(1)).all(axis=1)
    # The rest of it is letters.
    assert 0.4 < filled.mean() < 0.95
    # Another score gives other letters in the same place.
    other = drawn(found(masks=False)._replace(scores=np.array([0.13])))
    y, x = np.nonzero((other != got).any(axis=-1))
    assert len(y) and rest[y, x].all()


def test_small_pictures_are_drawn_larger_with_all_in_its_place():
    y, x = np.mgrid[:50, :60]
    mask = (y >= 20) & (y < 30) & (x >= 15) & (x < 45)
    small = Found(
        np.float32([[10, 10, 50, 40]]),
        np.array([0.5]),
        np.array([0]),
        [reference.rle(mask)],
        size=(50, 60),
    )
    got = drawing.draw(np.full((50, 60, 3), GREY, np.uint8), small, CLASSES)
    assert got.shape == (480, 576, 3)
    scale = 9.6
    expected = 0.45 * shade(0).astype(float) + 0.55 * GREY
    middle = got[int(25 * scale), int(30 * scale)]
    np.testing.assert_allclose(middle, expected, atol=1)
    assert (got[int(35 * scale), int(30 * scale)] == GREY).all()
    assert (got[int(25 * scale), round(10 * scale)] == shade(0)).all()
    assert (got[round(40 * scale), int(30 * scale)] == shade(0)).all()


def test_a_comparison_has_the_truth_and_beside_it_the_prediction(tmp_path):
    picture = np.full((H, W, 3), GREY, np.uint8)
    code = reference.rle(disc())["counts"].encode()
    thing = Annotation(1, BOX, 0, float(disc().sum()), rle=code)
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    record = Record(1, "one.png", H, W, image=encoded, truth=[thing])
    path = tmp_path / "predictions.png"
    draw.comparison(path, [record], [found(1)], CLASSES, detection.TASK, columns=1)
    grid = cv2.imread(str(path))[..., ::-1].astype(int)
    truth, prediction = np.split(grid, [grid.shape[1] // 2], axis=1)
    colours = [np.rint(0.45 * shade(label) + 0.55 * GREY) for label in (0, 1)]

    def share(panel, colour):
        return (np.abs(panel - colour).max(axis=-1) <= 2).mean()

    # Either panel shows its own mask only, about as large as it is in the picture.
    for panel, own, other in ((truth, 0, 1), (prediction, 1, 0)):
        grey = (np.abs(panel - GREY).max(axis=-1) <= 1).mean()
        part = share(panel, colours[own])
        assert grey > 0.4
        assert part / (grey + part) == pytest.approx(disc().mean(), rel=0.25)
        assert share(panel, colours[other]) < 0.001
