"""CenterNet's targets, losses and answers, against loops over objects and cells."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEYPOINTS, SIDE, batch, key, model, variables, with_target

from detjax.errors import UserError
from detjax.models import centernet
from detjax.models.centernet.parts import at_cells
from detjax.ops.peaks import Peaks
from detjax.types import Objects

CELLS = SIDE // 4


def objects(data, i):
    return jax.tree.map(lambda x: x[i], data.target)


def radius(w, h):
    """By the code of the authors: `gaussian_radius` of whole sides, at .7."""
    o = 0.7
    b1, c1 = h + w, w * h * (1 - o) / (1 + o)
    b2, c2 = 2 * (h + w), (1 - o) * w * h
    a3, b3, c3 = 4 * o, -2 * o * (h + w), (o - 1) * w * h
    one = (b1 + math.sqrt(b1**2 - 4 * c1)) / 2
    two = (b2 + math.sqrt(b2**2 - 16 * c2)) / 2
    three = (b3 + math.sqrt(b3**2 - 4 * a3 * c3)) / 2
    return max(0, int(min(one, two, three)))


def wanted(target, classes=3):
    """heat, and (cell, wh, reg, object) of each object of an image."""
    heat, rows = np.zeros((CELLS, CELLS, classes)), []
    for n in range(len(target.labels)):
        if not target.valid[n] or target.crowd[n]:
            continue
        x1, y1, x2, y2 = target.boxes[n] / 4
        w, h = x2 - x1, y2 - y1
        centre = (x1 + x2) / 2, (y1 + y2) / 2
        cell = int(centre[0]), int(centre[1])
        r = radius(math.ceil(h), math.ceil(w))
        for i in range(CELLS):
            for j in range(CELLS):
                if abs(i - cell[1]) <= r and abs(j - cell[0]) <= r:
                    far = (i - cell[1]) ** 2 + (j - cell[0]) ** 2
                    value = math.exp(-far / (2 * ((2 * r + 1) / 6) ** 2))
                    label = target.labels[n]
                    heat[i, j, label] = max(heat[i, j, label], value)
        offset = centre[0] - cell[0], centre[1] - cell[1]
        rows.append((cell, (w, h), offset, n))
    return heat, rows


def focal(logits, heat):
    p = np.clip(1 / (1 + np.exp(-np.float64(logits))), 1e-4, 1 - 1e-4)
    hit = np.log(p) * (1 - p) ** 2 * (heat == 1)
    miss = np.log(1 - p) * p**2 * (1 - heat) ** 4 * (heat < 1)
    return -(hit + miss).sum(), (heat == 1).sum()


def maps_of(name, data):
    params, state = variables(name)
    stacks, _ = model(name).net.apply(
        {"params": params, **state}, data.inputs.images, train=True, mutable=[*state]
    )
    return jax.tree.map(np.asarray, stacks)


def test_losses_are_those_of_loops():
    """Of padded objects and a crowd, whose cells learn nothing."""
    data = batch(objects=4)
    crowd = data.target.crowd.copy()
    crowd[0, 1] = True
    data = with_target(data, crowd=crowd)
    params, state = variables("centernet")
    _, (_, found) = jax.jit(model("centernet").loss)(params, state, data, key())
    [maps] = maps_of("centernet", data)
    total, positives, size, offset, count = 0.0, 0, 0.0, 0.0, 0
    for i in range(2):
        one = objects(data, i)
        heat, rows = wanted(one)
        logits = maps["hm"][i].copy()
        for n in np.flatnonzero(one.crowd):
            x1, y1, x2, y2 = one.boxes[n]
            inside = [
                [
                    x1 < 4 * (x + 0.5) < x2 and y1 < 4 * (y + 0.5) < y2
                    for x in range(CELLS)
                ]
                for y in range(CELLS)
            ]
            # An infinitely sure "nothing" has no loss.
            logits[np.array(inside)[..., None] & (heat < 1)] = -100.0
        loss, number = focal(logits, heat)
        spared = sum((np.float64(logits) == -100.0).ravel() * 1e-4**2 * 1e-4)
        total, positives = total + loss - spared, positives + number
        for (x, y), sides, far, _ in rows:
            size += np.abs(maps["wh"][i, y, x] - sides).sum()
            offset += np.abs(maps["reg"][i, y, x] - far).sum()
            count += 2
    assert float(found["heat"]) == pytest.approx(total / positives, rel=1e-3)
    assert float(found["size"]) == pytest.approx(0.1 * size / (count + 1e-4), rel=1e-4)
    assert float(found["offset"]) == pytest.approx(offset / (count + 1e-4), rel=1e-4)
    assert int(found["positives"]) == count // 2


def test_the_loss_of_keypoints_is_that_of_a_loop():
    data = batch()
    points = data.target.keypoints.copy()
    points[0, 0, 0, 2] = 0
    data = with_target(data, keypoints=points)
    params, state = variables("centernet-pose")
    made = model("centernet-pose")
    _, (_, found) = jax.jit(made.loss)(params, state, data, key())
    [maps] = maps_of("centernet-pose", data)
    told, spots, count, heats, positives = 0.0, 0.0, 0, 0.0, 0
    for i in range(2):
        one = objects(data, i)
        heat = np.zeros((CELLS, CELLS, KEYPOINTS))
        for (x, y), (w, h), _, n in wanted(one)[1]:
            r = radius(math.ceil(h), math.ceil(w))
            for k, (px, py, seen) in enumerate(one.keypoints[n]):
                if not seen:
                    continue
                at = np.array([px / 4, py / 4])
                cell = at.astype(int)
                hps = maps["hps"][i, y, x].reshape(KEYPOINTS, 2)[k]
                told += np.abs(hps - (at - [x, y])).sum()
                offset = maps["hp_offset"][i, cell[1], cell[0]]
                spots += np.abs(offset - (at - cell)).sum()
                count += 2
                for row in range(CELLS):
                    for column in range(CELLS):
                        a, b = abs(row - cell[1]), abs(column - cell[0])
                        if max(a, b) <= r:
                            v = math.exp(
                                -(a * a + b * b) / (2 * ((2 * r + 1) / 6) ** 2)
                            )
                            heat[row, column, k] = max(heat[row, column, k], v)
        loss, number = focal(maps["hm_hp"][i], heat)
        heats, positives = heats + loss, positives + number
    assert float(found["pose"]) == pytest.approx(told / (count + 1e-4), rel=1e-4)
    assert float(found["keypoint_offset"]) == pytest.approx(
        spots / (count + 1e-4), 1e-4
    )
    assert float(found["keypoint_heat"]) == pytest.approx(heats / positives, rel=1e-3)


def test_boxes_are_read_at_peaks():
    """Two peaks of different classes, and a lower neighbour that is none."""
    made = centernet.Detect(max_detections=3, score_threshold=0.3)
    parts = centernet.model.Parts(centernet.Box(), None, None, None)
    maps = {
        "hm": np.full((6, 8, 2), -9.0, np.float32),
        "wh": np.zeros((6, 8, 2), np.float32),
        "reg": np.zeros((6, 8, 2), np.float32),
    }
    maps["hm"][2, 3, 1], maps["hm"][2, 4, 1], maps["hm"][4, 6, 0] = 3, 2, 1
    maps["wh"][2, 3], maps["reg"][2, 3] = (4, 2), (0.5, 0.25)
    maps["wh"][4, 6] = (6, 2)
    window = jnp.array([0, 0, 32, 24.0])
    found = made(maps, parts, window, scale=jnp.array([4.0, 4.0]))
    assert found.valid.tolist() == [True, True, False]
    assert found.labels[:2].tolist() == [1, 0]
    expected = 1 / (1 + np.exp([-3, -1]))
    np.testing.assert_allclose(found.scores[:2], expected, rtol=1e-5)
    np.testing.assert_allclose(found.boxes[0], [6, 5, 22, 13])
    # Cut to the picture.
    np.testing.assert_allclose(found.boxes[1], [12, 12, 32, 20])


def test_keypoints_are_the_nearest_peaks_or_what_the_centre_tells():
    pose = centernet.Pose(count=3, candidates=4)
    maps = {
        "hps": np.zeros((9, 9, 6), np.float32),
        "hm_hp": np.full((9, 9, 3), -9.0, np.float32),
        "hp_offset": np.full((9, 9, 2), 0.5, np.float32),
    }
    maps["hps"][4, 4] = [1, 1, -2, 0, 2.5, 0]
    maps["hm_hp"][5, 6, 0] = 2.0  # .5 and 1.5 away from (5, 5)
    maps["hm_hp"][8, 8, 1] = 2.0  # too far from (2, 4)
    maps["hm_hp"][4, 6, 2] = -2.5  # of a score below .1
    found = Peaks(*(np.array([x]) for x in (0.9, 0, 4, 4)))
    box = np.float32([[1, 1, 7, 7]])
    maps = jax.tree.map(jnp.asarray, maps)
    points = np.asarray(pose.read(maps, found, box))[0]
    np.testing.assert_allclose(points[0], [6.5, 5.5, 1 / (1 + np.exp(-2))], rtol=1e-5)
    np.testing.assert_allclose(points[1, :2], [2, 4])
    np.testing.assert_allclose(points[2, :2], [6.5, 4])
    assert points[1, 2] == pytest.approx(1 / (1 + np.exp(9)), rel=1e-3)
    # The same peak outside of a smaller box is nobody's.
    points = np.asarray(pose.read(maps, found, np.float32([[1, 1, 6, 7]])))[0]
    np.testing.assert_allclose(points[0, :2], [5, 5])


def test_angles_count_for_what_is_slender():
    turned = centernet.Oriented()
    target = centernet.Match().centres(
        Objects(
            np.float32([[0, 0, 40, 20], [10, 30, 30, 50]]),
            np.int32([0, 1]),
            np.ones(2, bool),
            np.zeros(2, bool),
            oriented=np.float32([[20, 10, 36, 12, 0.4], [21, 40, 20, 20, 1.0]]),
        ),
        (64, 64),
        (16, 16),
        3,
    )
    truth = Objects(
        *(None,) * 4,
        oriented=np.float32([[20, 10, 36, 12, 0.4], [21, 40, 20, 20, 1.0]]),
    )
    maps = {
        name: np.zeros((16, 16, 2), np.float32)
        for name in ("turned_reg", "turned_wh", "turned_angle")
    }
    sums = turned.sums(maps, target, truth)
    # Slender by (36 - 12) / 48; a square not at all.
    angle = 0.5 * (abs(np.cos(0.8)) + abs(np.sin(0.8)))
    assert float(sums["turned_angle"][0]) == pytest.approx(angle, rel=1e-5)
    assert float(sums["turned_sides"][0]) == pytest.approx(0.1 * (9 + 3 + 5 + 5), 1e-5)
    centre = abs(20 / 4 - 5) + abs(10 / 4 - 2) + abs(21 / 4 - 5) + abs(40 / 4 - 10)
    assert float(sums["turned_centre"][0]) == pytest.approx(centre, rel=1e-5)
    assert {int(number) for _, number in sums.values()} == {4}


def test_whole_boxes_are_told_by_what_visible_ones_lack():
    boxes = np.float32([[8, 8, 24, 16]])
    objects = Objects(
        boxes,
        np.int32([0]),
        np.ones(1, bool),
        np.zeros(1, bool),
        amodal=np.float32([[4, 8, 32, 16]]),
    )
    target = centernet.Match().centres(objects, (64, 64), (16, 16), 3)
    maps = {name: np.zeros((16, 16, 4), np.float32) for name in ("whole", "hidden")}
    maps["hidden"][3, 4] = [2, -1, -3, 0]
    part = centernet.Amodal()
    sums = part.sums(maps, target, objects)
    # Of the two hidden sides alone, by a cell and by two.
    total, count = sums["whole"]
    assert float(total) == pytest.approx(0.1 * (1 + 2))
    assert int(count) == 2
    total, count = sums["hidden"]
    wrong = np.log1p(np.exp(np.array([-2, -1, 3, 0])))
    assert float(total) == pytest.approx(0.5 * wrong.sum(), rel=1e-5)
    assert int(count) == 4
    found = Peaks(*(np.array([x]) for x in (0.9, 0, 4, 3)))
    maps["hidden"][3, 4] = [1, 1, 1, -1]
    maps["whole"][3, 4] = [1, -5, 2, 7]
    np.testing.assert_allclose(part.read(maps, found), [[-1, 0, 2, 0]])


@pytest.mark.parametrize("angle", [-1.5, -0.4, 0.0, 0.7, 1.57])
def test_what_is_learnt_of_an_angle_is_read_again(angle):
    box = np.float32([[20, 10, 36, 12, angle]])
    cell = np.array([[5, 2]])
    maps = {
        "turned_reg": np.tile(np.float32([20 / 4 - 5, 10 / 4 - 2]), (4, 8, 1)),
        "turned_wh": np.tile(np.float32([9, 3]), (4, 8, 1)),
        "turned_angle": np.tile(
            np.float32([np.cos(2 * angle), np.sin(2 * angle)]), (4, 8, 1)
        ),
    }
    assert at_cells(maps["turned_reg"], cell).shape == (1, 2)
    found = Peaks(*(np.array([x]) for x in (0.9, 0, 5, 2)))
    read = centernet.Oriented().read(maps, found, jnp.array([4.0, 4.0]))
    np.testing.assert_allclose(read, box, atol=1e-4)


def test_stacks_count_for_their_mean():
    made = centernet.centernet_hourglass(
        num_classes=3,
        backbone=centernet.model.Hourglass(
            stacks=2, dims=(8, 8), modules=(1, 1), features=8, norm="frozen"
        ),
        head=centernet.Head(hidden=8),
    )
    data = batch()
    params, state = jax.jit(made.init)(jax.random.key(0), data.inputs.images)
    _, (_, found) = jax.jit(made.loss)(params, state, data, key())
    stacks, _ = made.net.apply(
        {"params": params, **state}, data.inputs.images, train=True, mutable=[*state]
    )
    losses = []
    for maps in stacks:
        total, number = 0.0, 0
        for i in range(2):
            loss, count = focal(maps["hm"][i], wanted(objects(data, i))[0])
            total, number = total + loss, number + count
        losses.append(total / number)
    assert float(found["heat"]) == pytest.approx(np.mean(losses), rel=1e-3)
    assert "hm.1" in params and "wh.0" in params


def test_what_a_part_lacks_is_named():
    params, state = variables("centernet-turned")
    for field, said in (("oriented", "data.oriented=True"), ("amodal", "data.amodal")):
        with pytest.raises(UserError, match=said):
            data = with_target(batch(), **{field: None})
            model("centernet-turned").loss(params, state, data, key())
