"""Training whose input size changes every so many batches; the colour of padding."""

import json
import pickle

import jax
import numpy as np
import pytest
from test_loader import equal, prepare, record

from detjax import models
from detjax.data import dataset, loader, plan, sizing, views
from detjax.errors import UserError
from detjax.predictor import prepared
from detjax.tasks import detection

ONE = sizing.input_sizes(size=(40, 40))
SIZES = ((32, 32), (48, 48), (64, 32))
CHANGING = sizing.changing(ONE, SIZES, 3)
SEED = 1  # whose first sizes differ


def stream(sizes=CHANGING, workers=0, **kwargs):
    source = [record(i, size=(50 + i, 70)) for i in range(7)]
    steps = prepare(size=None, augment={"mirror": True})
    return iter(
        loader.train_loader(
            source,
            steps,
            batch_size=4,
            sizes=sizes,
            seed=SEED,
            workers=workers,
            **kwargs,
        )
    )


def taken(batches, count):
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def test_a_size_is_drawn_for_so_many_batches():
    places = plan.Plan(np.ones((7, 2)), CHANGING, batch_size=4, seed=1)
    drawn = np.reshape([places[i].bucket for i in range(3 * 4 * 400)], (400, 12))
    assert (drawn == drawn[:, :1]).all()
    share = np.bincount(drawn[:, 0]) / 400
    np.testing.assert_allclose(share, 1 / 3, atol=0.08)  # three deviations
    other = plan.Plan(np.ones((7, 2)), CHANGING, batch_size=4, seed=2)
    again = [other[12 * i].bucket for i in range(400)]
    assert not (np.array(again) == drawn[:, 0]).all()
    # The order of images is that of one size.
    single = plan.Plan(np.ones((7, 2)), ONE, batch_size=4, seed=1)
    assert all(places[i].record == single[i].record for i in range(100))
    assert pickle.loads(pickle.dumps(places))[77] == places[77]


def test_batches_of_any_workers_and_processes_and_after_a_pause_are_the_same():
    whole = taken(stream(), 9)
    shapes = {batch.inputs.images.shape[1:3] for batch in whole}
    assert len(shapes) > 1
    assert shapes <= set(SIZES)
    for batch, other in zip(whole, taken(stream(workers=2), 9), strict=True):
        equal(batch, other)
    for process in range(2):
        shares = taken(stream(process=process, processes=2), 9)
        for batch, share in zip(whole, shares, strict=True):
            rows = slice(2 * process, 2 * process + 2)
            equal(jax.tree.map(lambda x, rows=rows: x[rows], batch), share)
    paused = stream()
    for _ in range(5):
        next(paused)
    position = json.dumps(paused.get_state())
    paused.close()
    resumed = stream()
    resumed.set_state(json.loads(position))
    assert resumed.images().shape == whole[5].inputs.images.shape
    equal(whole[5], next(resumed))
    resumed.close()


def test_every_size_is_compiled_once():
    traces = []

    @jax.jit
    def step(images):
        traces.append(images.shape)
        return images.sum()

    for batch in taken(stream(), 40):
        step(batch.inputs.images)
    assert sorted(traces) == sorted((4, *size, 3) for size in SIZES)


def test_sizes_that_suit_images_do_not_change(tmp_path):
    several = sizing.input_sizes(buckets=SIZES)
    short = sizing.input_sizes(size=(32, 32), short_side=20)
    for sizes in (several, short):
        assert sizing.changing(sizes, None, 10) is sizes
        with pytest.raises(UserError, match=r"data\.sizes .* set one of them"):
            sizing.changing(sizes, SIZES, 10)
    twice = sizing.changing(ONE, (*SIZES, SIZES[0]), 10)
    assert twice.buckets == SIZES


def made(tmp_path, **kwargs):
    return dataset.make(
        detection.TASK,
        name="shapes",
        data_dir=tmp_path,
        batch_size=2,
        size=(40, 40),
        prepare={"format": "shapes", "size": 48, "num_train": 4, "num_val": 3},
        workers=0,
        **kwargs,
    )


def test_of_a_config_evaluation_has_one_size(tmp_path):
    data = made(tmp_path, sizes=((32, 32), (48, 48)), size_every=1)
    assert data.size == (40, 40)
    shapes = {b.inputs.images.shape for b in taken(iter(data.train), 12)}
    assert shapes == {(2, 32, 32, 3), (2, 48, 48, 3)}
    for once in (data.evaluation(), data.once(), data.validation()):
        assert {b.inputs.images.shape[1:3] for b in once} == {(40, 40)}


GREY = (127, 127, 127)


@pytest.mark.parametrize("augmented", [False, True])
def test_padding_has_the_colour_that_is_set(augmented):
    """In training, in evaluation, and of a picture that is predicted."""
    sizes = sizing.input_sizes(size=(64, 64), letterbox=True, fill=GREY)
    wide = [record(i, size=(20, 80)) for i in range(2)]
    steps = prepare(size=(64, 64), augment={"mirror": True} if augmented else None)
    make = loader.train_loader if augmented else loader.eval_loader
    batch = next(iter(make(wide, steps, batch_size=2, sizes=sizes)))
    assert (batch.inputs.images[:, :20] == GREY).all()
    assert (batch.inputs.images[:, -20:] == GREY).all()
    image = np.zeros((20, 80, 3), np.uint8)
    for reduce in (False, True):
        declared = {"size": (64, 64), "letterbox": True}
        seen = prepared(image, None, None, reduce, fill=GREY, **declared).inputs.images
        assert (seen[:20] == GREY).all()
        usual = prepared(image, None, None, reduce, **declared).inputs.images
        assert (usual[:20] == views.FILL).all()
    turned = loader.train_loader(
        wide,
        prepare(size=(64, 64), augment={"rotate": 30.0}),
        batch_size=2,
        sizes=sizes,
    )
    corner = next(iter(turned)).inputs.images[:, 0, 0]
    assert (corner == GREY).all()


def test_detectors_take_other_sizes():
    """What one program of weights predicts at every size."""
    model = models.make(
        "faster_rcnn",
        num_classes=2,
        backbone={"name": "resnet10", "width": 8},
        fpn={"features": 8},
    )
    first = np.zeros((1, 64, 64, 3), np.uint8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), first)
    other = np.zeros((1, 96, 64, 3), np.uint8)
    again, _ = jax.eval_shape(model.init, jax.random.key(0), other)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, again)
