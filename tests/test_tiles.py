"""Large pictures in tiles: as if they were seen at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.pixel_cases import both, regressor, segmenter

from detjax import tiles
from detjax.errors import UserError
from detjax.ops.tiling import tiling
from detjax.predictor import prepared
from detjax.tasks import TASKS
from detjax.types import Inputs, LabelScores, Model, Scores, Spec, View


def seen(h, w, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (2, h, w, 3)).astype(np.uint8)
    affine = np.tile(np.float32(np.eye(3)[:2]), (2, 1, 1))
    sizes = np.full((2, 2), (h, w), np.int32)
    return Inputs(images, View(affine, sizes, np.ones(2, bool)))


@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_tiles_of_a_net_without_context_are_the_whole(overlap):
    model, cut = segmenter(constant=True), tiles.whole(64, overlap)
    h, w = cut.resize((100, 150), (0, 0, 0)).size
    inputs = seen(h, w)
    params, state = model.init(jax.random.key(0), inputs.images)
    whole = model.predict(params, state, inputs)
    parts = jax.jit(tiles.tiled(model, TASKS["segmentation"], cut).predict)(
        params, state, inputs
    )
    assert (parts.size, parts.logits.shape) == (whole.size, whole.logits.shape)
    np.testing.assert_allclose(
        jax.nn.softmax(parts.logits), jax.nn.softmax(whole.logits), atol=1e-5
    )


def test_tiles_of_a_net_with_context_are_the_whole_away_from_their_seams():
    model, cut = regressor(), tiles.whole(64, 32)
    inputs = seen(96, 96)
    params, state = model.init(jax.random.key(0), inputs.images)
    whole = model.predict(params, state, inputs).values
    parts = tiles.tiled(model, TASKS["dense"], cut).predict(params, state, inputs)
    away = np.abs(np.asarray(whole - parts.values))
    # What one tile alone sees, but for the blocks next to its ends.
    np.testing.assert_allclose(away[:, :7, :7], 0, atol=1e-5)
    assert away.mean() < 0.02 * np.abs(whole).mean()


@pytest.mark.parametrize("corners", [False, True])
def test_maps_off_the_common_grid_are_blended_pixel_by_pixel(corners):
    """Seven places a tile of 64 pixels."""

    def predict(params, state, inputs):
        h, w = inputs.images.shape[1:3]
        mean = inputs.images.astype(jnp.float32).mean(axis=(1, 2))
        logits = jnp.broadcast_to(mean[:, None, None], (len(mean), 7, 7, 3))
        return LabelScores(logits, (h, w), corners)

    model = Model(Spec("segmentation", 3), None, None, predict, None)
    cut = tiles.whole(64, 32)
    inputs = seen(96, 128).replace(images=np.full((2, 96, 128, 3), (9, 5, 7), np.uint8))
    found = tiles.tiled(model, TASKS["segmentation"], cut).predict({}, {}, inputs)
    assert found.logits.shape == (2, 96, 128, 3)
    expected = jax.nn.softmax(jnp.float32([9, 5, 7]))
    np.testing.assert_allclose(
        jax.nn.softmax(found.logits),
        jnp.broadcast_to(expected, (2, 96, 128, 3)),
        atol=1e-5,
    )


def halved(stride, corners, classes=3):
    """A net of so many pixels a place, the outermost upon the input's or not."""

    def predict(params, state, inputs):
        b, h, w, _ = inputs.images.shape
        if h < stride:
            raise UserError("too small")
        size = (-(-side // stride) for side in (h, w))
        if corners:
            size = ((side - 1) // stride + 1 for side in (h, w))
        return LabelScores(jnp.zeros((b, *size, classes)), (h, w), corners)

    return Model(Spec("segmentation", classes), None, None, predict, None)


@pytest.mark.parametrize(
    ("asked", "stride", "corners", "side"),
    [
        (512, 8, False, 512),
        (513, 8, False, 512),
        (512, 8, True, 513),
        (500, 8, False, 496),
        (500, 32, True, 513),
    ],
)
def test_the_side_of_tiles_is_one_whose_maps_lie_on_a_grid(
    asked, stride, corners, side
):
    model, task, cut = (
        halved(stride, corners),
        TASKS["segmentation"],
        tiles.whole(asked),
    )
    found = tiles.fitted(model, task, cut, {}, {})
    assert (found.tile, found.overlap, found.held) == (side, cut.overlap, 0)
    h, w = found.resize((700, 900), (0, 0, 0)).size
    made = tiles.tiled(model, task, found).predict
    answer = jax.eval_shape(made, {}, {}, Inputs(jnp.zeros((1, h, w, 3), jnp.uint8)))
    assert answer.logits.shape[1] == (h - corners) // stride + corners


def test_pictures_too_large_to_blend_pixel_by_pixel_are_said_so():
    model, cut = halved(100, False, 150), tiles.whole(64)
    with pytest.raises(UserError, match="too small"):
        tiles.fitted(model, TASKS["segmentation"], cut, {}, {})
    cut = tiles.fitted(model, TASKS["segmentation"], tiles.whole(150), {}, {})
    assert (cut.tile, cut.held) == (150, 4 * 150)
    assert cut.resize((1000, 1000), (0, 0, 0)).size >= (1000, 1000)
    with pytest.raises(UserError, match=r"4000 x 3000 .* GB to blend in tiles of 150"):
        cut.resize((3000, 4000), (0, 0, 0))


def test_tiles_are_spread_evenly_and_little_is_filled_up():
    cut, sizes = tiles.whole(513), set()
    for side in range(1, 4097):
        whole, _ = cut.resize((side, 1), (0, 0, 0)).size
        tops = tiling((whole, whole), (513, 513), cut.step).tops
        gaps = np.diff(tops)
        assert tops[-1] + 513 == whole >= side
        assert whole - side < 32 * len(gaps) or not len(gaps)
        assert len(tops) == 1 + max(-(-(side - 513) // cut.step), 0)
        assert (gaps <= 513 - cut.overlap).all()
        sizes.add(whole)
    assert cut.resize((520, 1), (0, 0, 0)).size == (545, 513)
    assert len(sizes) < 50  # that are compiled


def test_several_tasks_look_at_a_tile_once():
    model, cut = both(), tiles.whole(64, 32)
    calls = []

    def counted(params, state, inputs):
        calls.append(inputs.images.shape)
        return model.predict(params, state, inputs)

    inputs = seen(96, 96)
    params, state = model.init(jax.random.key(0), inputs.images)
    made = tiles.tiled(model._replace(predict=counted), TASKS["scene"], cut)
    found = made.predict(params, state, inputs)
    # Once for its shapes, once in the loop.
    assert calls == [(2, 64, 64, 3)] * 2
    assert found["segmentation"].size == (96, 96)
    assert found["dense"].values.shape == (2, 24, 24)


def test_a_tile_knows_where_it_is():
    one = tiles.part(seen(96, 128), jnp.array([32, 64]), (64, 64))
    assert one.images.shape == (2, 64, 64, 3)
    assert one.view is not None
    np.testing.assert_array_equal(one.view.affine[:, :, 2], [[-64, -32]] * 2)


def test_pictures_of_their_own_size_are_not_interpolated():
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
    for cut, size in ((tiles.whole(), (128, 128)), (tiles.whole(64, 32), (64, 96))):
        given = prepared(image, None, None, True, cut.resize, size=(32, 32))
        assert given.inputs.images.shape == (*size, 3)
        np.testing.assert_array_equal(given.inputs.images[:50, :70], image)
        assert (given.inputs.images[50:] == (124, 117, 104)).all()
        np.testing.assert_array_equal(given.matrix, np.eye(3))


def test_mistakes_are_sentences():
    with pytest.raises(UserError, match="set their side too"):
        tiles.whole(None, 8)
    with pytest.raises(UserError, match="cannot overlap by 64"):
        tiles.whole(64, 64)
    label = Model(Spec("classification", 3), None, None, lambda *_: Scores(None), None)
    with pytest.raises(UserError, match="answers of classification to tiles"):
        tiles.tiled(label, TASKS["classification"], tiles.whole(64))
    needy = label._replace(spec=Spec("segmentation", 3, ("proposals",)))
    with pytest.raises(UserError, match="needs proposals cannot look at tiles"):
        tiles.tiled(needy, TASKS["segmentation"], tiles.whole(64))
    assert tiles.tiled(label, TASKS["classification"], tiles.whole()) is label
