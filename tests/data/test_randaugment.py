"""RandAugment and random erasing: what moves takes boxes along, what recolours not."""

import numpy as np
import pytest

from detjax.data import augment, colours, frames, randaugment, views
from detjax.data.colours import Colours
from detjax.data.frames import Frame

SIZE = (80, 100)


def frame():
    return Frame(np.eye(3), SIZE)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y"])
def test_the_middle_stays_where_it_is(name):
    matrix = randaugment.moved(frame(), name, 0.7).matrix
    assert matrix @ (50, 40, 1) == pytest.approx((50, 40, 1))
    assert not np.allclose(matrix, np.eye(3))
    back = randaugment.moved(Frame(matrix, SIZE), name, -0.7).matrix
    assert np.allclose(back, np.eye(3), atol=0.05 if name == "rotate" else 1e-9)


def test_the_most_of_each_movement():
    turned = randaugment.moved(frame(), "rotate", 1).matrix
    assert np.degrees(np.arctan2(turned[1, 0], turned[0, 0])) == pytest.approx(30)
    assert randaugment.moved(frame(), "shear_x", 1).matrix[0, 1] == pytest.approx(0.3)
    assert randaugment.moved(frame(), "shear_y", -1).matrix[1, 0] == pytest.approx(-0.3)
    shifted = randaugment.moved(frame(), "translate_x", 1).matrix
    assert shifted[:2, 2] == pytest.approx((100 * 150 / 331, 0))
    shifted = randaugment.moved(frame(), "translate_y", -1).matrix
    assert shifted[:2, 2] == pytest.approx((0, -80 * 150 / 331))


def test_a_sheared_object_stays_under_its_box():
    image = np.zeros((*SIZE, 3), np.uint8)
    image[30:50, 20:40] = 255
    for name in ("shear_x", "shear_y", "rotate"):
        seen = randaugment.moved(frame(), name, 0.8)
        out = np.empty_like(image)
        views.place(out, image, seen, Colours(), (0, 0, 0))
        y, x = np.nonzero(out[..., 0] > 127)
        [box] = frames.move_boxes(np.array([[20.0, 30, 40, 50]]), seen.matrix)
        found = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert np.abs(box - found).max() <= 1.5, name


def test_operations_are_equally_likely_and_of_both_signs():
    rng = np.random.default_rng(0)
    names, signs = [], set()
    for _ in range(2800):
        moved, operations = randaugment.randaugment(rng, frame(), 1, 15)
        if operations:
            [(name, strength)] = operations
            names.append(name)
            if name == "contrast":
                signs.add(strength > 1)
        elif not np.array_equal(moved.matrix, np.eye(3)):
            names.append("moved")
    counts = {name: names.count(name) for name in set(names)}
    moved = counts.pop("moved")
    assert 900 < moved < 1100  # five of fourteen
    assert len(counts) == 8 and min(counts.values()) > 140  # identity leaves no trace
    assert max(counts.values()) < 260
    assert signs == {True, False}


def test_operations_do_what_they_say():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 2 + 60

    def done(name, parameter=0.0):
        return colours.operated(image, [(name, parameter)]).astype(int)

    assert np.array_equal(done("posterize", 4), image & 0xF0)
    assert np.array_equal(
        done("solarize", 100), np.where(image < 100, image, 255 - image)
    )
    assert done("autocontrast").min() == 0 and done("autocontrast").max() == 255
    assert np.abs(done("brightness", 0.5) - image / 2).max() <= 1
    assert np.ptp(done("colour", 0.0), axis=-1).max() == 0  # grey
    assert np.ptp(done("contrast", 1.5)) > np.ptp(image.astype(int))
    assert np.array_equal(done("sharpness", 1.0), image)
    assert np.array_equal(colours.recolour(image, Colours()), image)
    narrow = np.random.default_rng(0).integers(90, 110, (64, 64, 3), np.uint8)
    spread = colours.operated(narrow, [("equalize", 0.0)])
    assert np.ptp(spread) > 230 and 100 < spread.mean() < 155
    both = Colours(operations=(("posterize", 4), ("solarize", 100)))
    first = image & 0xF0
    wanted = np.where(first < 100, first, 255 - first)
    assert np.array_equal(colours.recolour(image, both), wanted)


def test_nothing_is_drawn_at_magnitude_zero():
    rng = np.random.default_rng(1)
    for _ in range(50):
        moved, operations = randaugment.randaugment(rng, frame(), 2, 0)
        assert np.allclose(moved.matrix, np.eye(3))
        for name, strength in operations:
            neutral = {"posterize": 8, "solarize": 256}
            if name not in ("autocontrast", "equalize"):
                assert strength == neutral.get(name, 1)


def test_an_erased_rectangle_has_its_share_and_lies_inside():
    rng = np.random.default_rng(2)
    clean = np.full((*SIZE, 3), 7, np.uint8)
    areas = []
    for _ in range(200):
        made = colours.erasing(rng, Colours(), 1.0, (0.05, 0.2), SIZE)
        out = clean.copy()
        views.place(out, clean, frame(), made, (0, 0, 0))
        y, x = np.nonzero((out != 7).any(axis=-1))
        sides = np.ptp(y) + 1, np.ptp(x) + 1
        assert len(y) >= 0.97 * sides[0] * sides[1]  # one rectangle, of noise
        areas.append(sides[0] * sides[1] / clean[..., 0].size)
        assert 0.2 < sides[0] / sides[1] < 5
    assert min(areas) > 0.04 and max(areas) < 0.21 and np.ptp(areas) > 0.1
    again = clean.copy()
    views.place(again, clean, frame(), made, (0, 0, 0))
    assert np.array_equal(out, again)
    drawn = [colours.erasing(rng, Colours(), 0.3, (0.1, 0.2), SIZE) for _ in range(300)]
    assert 60 < sum(one.erased is not None for one in drawn) < 120


def test_what_was_drawn_before_stays_what_it_was():
    plain, both = (
        augment.augment(np.random.default_rng(5), SIZE, np.zeros((0, 4)), **settings)
        for settings in (
            {"mirror": True, "colour": True, "rotate": 10.0},
            {"mirror": True, "colour": True, "rotate": 10.0, "erase": 1.0},
        )
    )
    assert both[0].erased is not None
    assert both[0]._replace(erased=None) == plain[0]
    assert np.array_equal(both[1].matrix, plain[1].matrix)
    assert augment.turns({"randaugment_count": 2}) and augment.turns({"rotate": 5})
    assert not augment.turns({"mirror": True})
