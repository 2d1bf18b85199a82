"""Sliding windows: places, samples, one convolution against crops, a tiny overfit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from detjax import models
from detjax.errors import UserError
from detjax.models import sliding_window
from detjax.models.sliding_window import Net, Sample, Windows
from detjax.ops import boxes, resize
from detjax.types import Batch, Inputs, Objects, View

SIDE = 64


def test_windows_cover_the_levels_at_every_step():
    [level] = Windows(side=32, sizes=(16.0,)).levels((64, 48), 8)
    assert level.shape == (128, 96) and level.cells == (13, 9)
    found = level.boxes()
    assert found.shape == (13 * 9, 4)
    np.testing.assert_allclose(found[0], [0, 0, 16, 16])
    np.testing.assert_allclose(found[10], [4, 4, 20, 20])
    np.testing.assert_allclose(found[-1], [32, 48, 48, 64])


def test_levels_are_stretched_by_ratios_and_large_windows_left_out():
    windows = Windows(side=32, sizes=(32.0, 64.0, 100.0), ratios=(1.0, 4.0))
    levels = windows.levels((64, 64), 8)
    assert [level.shape for level in levels] == [(64, 64), (32, 128), (32, 32)]
    tall = levels[1].boxes()
    np.testing.assert_allclose(tall[0], [0, 0, 16, 64])
    with pytest.raises(UserError, match="larger than the input of 16 x 16"):
        windows.levels((16, 16), 8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backbone": {"levels": (3, 4)}}, "must be one level"),
        ({"windows": {"side": 60}}, "no multiple of 16"),
    ],
)
def test_stages_that_do_not_fit(given, words):
    with pytest.raises(UserError, match=words):
        models.make("sliding_window", num_classes=2, **given)


def scene():
    """Two objects of classes 1 and 0, a crowd and padding."""
    return Objects(
        boxes=np.float32(
            [[4, 4, 20, 20], [30, 30, 62, 60], [0, 40, 24, 64], [0, 0, 64, 64]]
        ),
        labels=np.int32([1, 0, 2, 2]),
        valid=np.array([True, True, True, False]),
        crowd=np.array([False, False, True, False]),
    )


def test_samples_are_what_a_loop_finds():
    windows = Windows(side=32, sizes=(16.0, 32.0))
    places = np.concatenate([x.boxes() for x in windows.levels((64, 64), 8)])
    objects = scene()
    iou = np.asarray(boxes.iou(places, objects.boxes))
    inside = np.asarray(boxes.iou_crowd(places, objects.boxes))[:, 2]
    best = {int(iou[:, j].argmax()) for j in (0, 1)}
    sample = Sample(positives=1000, background=1000)
    drawn = sample(jax.random.key(0), objects, places=places, num_classes=3)
    got = {}
    for i, label, real in zip(*map(np.asarray, drawn), strict=True):
        if real:
            assert i not in got
            got[int(i)] = int(label)
    for p in range(len(places)):
        own = iou[p, :2]
        if own.max() >= 0.5 or p in best:
            assert got[p] == objects.labels[own.argmax()]
        elif inside[p] < 0.5:
            assert got[p] == 3
        else:
            assert p not in got
    few = Sample(positives=2, background=5)

    def some(seed):
        return few(jax.random.key(seed), objects, places=places, num_classes=3)

    first, labels, valid = some(1)
    assert valid.all() and (labels == 3).tolist() == [False] * 2 + [True] * 5
    assert not np.array_equal(first, some(2)[0])


class Plain(linen.Module):
    """Convolutions without padding whose windows are exact: kernel 4, stride 4."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Conv(6, (4, 4), strides=4, padding=0, name="one")(x)
        return (linen.relu(linen.Conv(5, (2, 2), strides=2, padding=0)(x)),)


def test_one_convolution_is_every_window_by_itself():
    """Without padding in the network they are the same, to rounding."""
    windows = Windows(side=32, sizes=(16.0, 27.0), ratios=(1.0, 1.3), chunk=7)
    net = Net(3, Plain(), 32, 8)
    image = np.random.default_rng(0).normal(size=(48, 56, 3)).astype(np.float32)
    levels = windows.levels(image.shape[:2], 8)
    places = np.concatenate([level.boxes() for level in levels])
    variables = net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    whole = net.apply(variables, image[None], levels, method=net.pyramid)[0]
    crops = sliding_window.of_crops(net, variables, image[None], places, windows)[0]
    assert whole.shape == crops.shape == (len(places), 4)
    np.testing.assert_allclose(whole, crops, rtol=1e-4, atol=1e-5)
    # And both are the network on what a level shows there.
    level = levels[0]
    picture = resize.bilinear(image, level.shape)
    crop = picture[8:40, 16:48]
    row = 1 * level.cells[1] + 2
    np.testing.assert_allclose(
        whole[row], net.apply(variables, crop[None])[0], rtol=1e-4, atol=1e-5
    )
    cut = windows.crops(image, jnp.asarray(places[row : row + 1]))
    np.testing.assert_allclose(cut[0], crop, rtol=1e-4, atol=1e-4)


def batch(count=4, seed=0):
    rng = np.random.default_rng(seed)
    low = 4 * rng.integers(1, 8, (count, 1, 2))
    found = np.concatenate([low, low + 24], -1).astype(np.float32)
    labels = (np.arange(count)[:, None] % 2).astype(np.int32)
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    for image, [box], [label] in zip(images, found.astype(int), labels, strict=True):
        image[box[1] : box[3], box[0] : box[2], label] = 255
    view = View(
        affine=np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
        sizes=np.full((count, 2), SIDE, np.int32),
        valid=np.ones(count, bool),
    )
    valid = np.ones((count, 1), bool)
    target = Objects(found, labels, valid, np.zeros_like(valid))
    return Batch(Inputs(images, view), target, np.arange(count, dtype=np.int32))


@pytest.mark.parametrize(
    "mode", ["convolution", pytest.param("crops", marks=pytest.mark.slow)]
)
def test_objects_are_learnt_and_found(mode):
    model = models.make(
        "sliding_window",
        num_classes=2,
        backbone={"name": "resnet10", "width": 8, "levels": (3,), "norm": "group"},
        windows={"side": 32, "sizes": (24.0, 34.0), "mode": mode},
        detect={"score_threshold": 0.5},
    )
    data = batch()
    params, state = jax.jit(model.init)(jax.random.key(0), data.inputs.images)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, memory, key):
        (_, (state, metrics)), gradient = jax.value_and_grad(model.loss, has_aux=True)(
            params, state, data, key
        )
        updates, memory = optimizer.update(gradient, memory)
        return optax.apply_updates(params, updates), state, memory, metrics

    memory = optimizer.init(params)
    for i in range(60):
        params, state, memory, metrics = step(params, state, memory, jax.random.key(i))
    assert metrics["class"] < 0.4 and metrics["positives"] > 3
    found = jax.jit(model.predict)(params, state, data.inputs)
    for i in range(4):
        assert found.valid[i, 0] and found.labels[i, 0] == data.target.labels[i, 0]
        overlap = boxes.iou(found.boxes[i, :1], data.target.boxes[i])
        assert overlap[0, 0] > 0.5
