"""CornerNet's own rules; the whole is checked by the parity suite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import key, objects

from detjax import models
from detjax.errors import UserError
from detjax.models.cornernet import Detect, Match
from detjax.models.cornernet.loss import pull_push
from detjax.models.cornernet.net import Corners, Maps
from detjax.types import Inputs


@pytest.mark.parametrize(
    ("name", "count"),
    [("cornernet_hourglass104", 201_035_212), ("cornernet_squeeze", 31_771_852)],
)
def test_the_originals_have_their_parameters(name, count):
    model = models.make(name)
    images = np.zeros((1, 255, 383, 3), np.uint8)
    params, state = jax.eval_shape(model.init, key(), images)
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    found = jax.eval_shape(model.predict, params, state, Inputs(images))
    assert found.boxes.shape == (1, 100, 4)


# Input 64 x 96 pixels, maps of 16 x 24 cells: 4 pixels each.
SIZE, CELLS = (64, 96), (16, 24)


@jax.jit
def targets(truth):
    return Match().targets(truth, SIZE, CELLS, 4)


def test_corners_are_cells_and_offsets():
    found = targets(objects((5, 9, 41, 30.5), (0, 0, 96, 64), (8, 8, 8, 20)))
    assert found.objects.tolist() == [True, True, False]
    assert found.tl.cell[:2].tolist() == [2 * 24 + 1, 0]
    np.testing.assert_allclose(found.tl.offset[:2], [[0.25, 0.25], [0, 0]])
    # The far edge belongs to the last pixel.
    assert found.br.cell[:2].tolist() == [7 * 24 + 10, 15 * 24 + 23]
    np.testing.assert_allclose(found.br.offset[:2], [[0.25, 0.625], [0.75, 0.75]])
    assert np.argwhere(found.tl.heat == 1).tolist() == [[0, 0, 1], [2, 1, 0]]
    assert np.argwhere(found.br.heat == 1).tolist() == [[7, 10, 0], [15, 23, 1]]
    # A box of 9 x 6 cells: its corners may move by one cell.
    assert (found.tl.heat[..., 0] > 0).sum() == 9
    assert found.learnt.all()


def test_crowds_are_spared_and_are_no_corners():
    found = targets(objects((8, 12, 40, 40), (60, 4, 90, 24), (0, 0, 0, 0), crowd=(0,)))
    assert found.objects.tolist() == [False, True, False]
    spared = np.zeros(CELLS, bool)
    spared[3:10, 2:10] = True
    np.testing.assert_array_equal(found.learnt, ~spared)
    assert not found.tl.heat[..., 0].any()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_tags_pull_and_push(count):
    rng = np.random.default_rng(count)
    tl, br = rng.normal(size=(2, 6)).astype("f")
    real = np.arange(6) < count
    means = (tl + br)[:count] / 2
    pull = push = 0.0
    for i in range(count):
        pull += (tl[i] - means[i]) ** 2 + (br[i] - means[i]) ** 2
        for j in range(count):
            lacking = max(1 - abs(means[i] - means[j]), 0)
            push += (lacking - 1 / (count + 1e-4)) / (count * (count - 1) + 1e-4)
    found = jax.jit(pull_push)(jnp.asarray(tl), jnp.asarray(br), jnp.asarray(real))
    np.testing.assert_allclose(found, [pull / (count + 1e-4), push], rtol=1e-4)


def maps(seed, size=(6, 7, 3)):
    """Maps of an image; heat of few values would tie."""
    rng = np.random.default_rng(seed)

    def corners():
        heat, tag, offset = (
            rng.normal(size=s).astype("f") for s in (size, size[:2], (*size[:2], 2))
        )
        return Corners(heat, tag / 2, np.abs(offset) / 4)

    return Maps(corners(), corners())


def peaks_slowly(corners, k):
    """(score, label, tag, x, y) of the highest peaks."""
    heat = 1 / (1 + np.exp(-corners.heat.astype(float)))
    h, w, c = heat.shape
    found = []
    for y, x, label in np.ndindex(h, w, c):
        around = heat[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2, label]
        if heat[y, x, label] == around.max():
            dx, dy = corners.offset[y, x]
            at = x + dx, y + dy
            found.append((heat[y, x, label], label, corners.tag[y, x], *at))
    return sorted(found, reverse=True)[:k]


paired = jax.jit(Detect(corners=8, pairs=30).paired)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_those_of_a_loop(seed):
    found = paired(jax.tree.map(jnp.asarray, maps(seed)))
    expected = [
        (-(a[0] + b[0]) / 2, a[1], a[3], a[4], b[3], b[4])
        for a in peaks_slowly(maps(seed).tl, 8)
        for b in peaks_slowly(maps(seed).br, 8)
        if a[1] == b[1] and abs(a[2] - b[2]) <= 0.5 and b[3] >= a[3] and b[4] >= a[4]
    ]
    expected = np.array(sorted(expected))
    some = np.asarray(found.valid)
    assert 0 < some.sum() == len(expected) < 30
    np.testing.assert_allclose(found.scores[some], -expected[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.labels[some], expected[:, 1])
    np.testing.assert_allclose(found.boxes[some], expected[:, 2:], rtol=1e-5)


def test_detections_are_pixels_of_the_window():
    heat = np.full((8, 8, 1), -9.0, np.float32)
    tl, br = heat.copy(), heat.copy()
    tl[2, 1, 0], br[5, 6, 0] = 3, 1
    zeros = jnp.zeros((8, 8))
    offset = jnp.full((8, 8, 2), 0.5)
    found = jax.jit(Detect(max_detections=3, score_threshold=0.5))(
        Maps(Corners(tl, zeros, offset), Corners(br, zeros, offset)),
        jnp.array([0.0, 0, 20, 64]),
        scale=jnp.array([4.0, 8.0]),
    )
    assert found.valid.tolist() == [True, False, False]
    np.testing.assert_allclose(found.boxes[0], [6, 20, 20, 44])
    mean = np.mean(1 / (1 + np.exp(-np.float32([3, 1]))))
    np.testing.assert_allclose(found.scores[0], mean, rtol=1e-6)


def test_sizes_of_hourglasses_are_checked():
    with pytest.raises(UserError, match="two sizes or more"):
        models.make("cornernet", num_classes=2, backbone={"dims": (8,)})
