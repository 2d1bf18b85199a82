"""Mosaics: four pictures and their truths in one input, whatever reads them."""

import json

import cv2
import jax
import numpy as np
import pytest
from infos import info
from test_loader import NAMES, equal, prepare, with_points

from detjax import experiment
from detjax.data import frames, loader, mosaic, sizing, views
from detjax.errors import UserError
from detjax.tasks import classification

SHAPES = ((60, 90), (90, 60), (70, 70), (64, 80), (33, 100))
ALWAYS = mosaic.mosaic(mosaic=1.0)


def pictures(count=9):
    """Records of one grey each, which tells them apart."""
    found = []
    for i in range(count):
        some = with_points(i=i, size=SHAPES[i % 5])
        grey = np.full((some.height, some.width, 3), 10 + 25 * i, np.uint8)
        some.image = cv2.imencode(".png", grey)[1].tobytes()
        some.proposals = np.float32([a.box for a in some.truth])
        found.append(some)
    return found


def stream(records=None, batch_size=4, mosaics=ALWAYS, sizes=None, given=(), **kwargs):
    size = (96, 128) if sizes is None else None
    padding = {"max_objects": 12, "keypoints": NAMES, "max_proposals": 8}
    settings = {**padding, "augment": {"mirror": True}, "letterbox": True}
    steps = prepare(size=size, several=mosaics, **{**settings, **dict(given)})
    records = pictures() if records is None else records
    return loader.train_loader(
        records, steps, batch_size=batch_size, sizes=sizes, **kwargs
    )


def take(batches, count):
    batches = iter(batches)
    return [next(batches) for _ in range(count)]


def rows(batches):
    for batch in batches:
        yield from (jax.tree.map(lambda x, i=i: x[i], batch) for i in range(4))


def test_objects_masks_keypoints_and_proposals_lie_on_their_pictures():
    several = 0
    for row in rows(take(stream(), 6)):
        image, target = row.inputs.images, row.target
        grey = (image == views.FILL).all(axis=-1)
        assert len(np.unique(image[~grey])) <= 4
        owners = set()
        for j in np.flatnonzero(target.valid):
            box = target.boxes[j]
            x1, y1, x2, y2 = np.rint(box).astype(int)
            # A box lies in one picture, and so does its mask.
            colours = np.unique(image[y1:y2, x1:x2].reshape(-1, 3), axis=0)
            assert len(colours) == 1
            owners.add(int(colours[0, 0]))
            y, x = np.nonzero(target.masks[j])
            assert len(x)
            assert x1 - 2 <= 2 * x.min() <= 2 * x.max() <= x2 + 2
            assert y1 - 2 <= 2 * y.min() <= 2 * y.max() <= y2 + 2
            for px, py, seen in target.keypoints[j]:
                if seen:
                    assert box[0] - 1e-3 <= px <= box[2] + 1e-3
                    assert box[1] - 1e-3 <= py <= box[3] + 1e-3
        several += len(owners) > 1
        real = target.boxes[target.valid]
        given = row.inputs.proposals.boxes[row.inputs.proposals.valid]
        if len(given) < 8:
            near = np.abs(real[:, None] - given).max(axis=-1).min(axis=1)
            assert (near < 1e-3).all()
        # The picture of the row's view is the mosaic.
        np.testing.assert_array_equal(row.inputs.view.affine, np.eye(2, 3))
        assert row.inputs.view.sizes.tolist() == [96, 128]
    assert several > 12


def test_pictures_meet_at_a_random_point_at_their_scale():
    rng, points = np.random.default_rng(0), []
    fit = sizing.Resize((96, 128), letterbox=False)
    for _ in range(50):
        layout = mosaic.mosaic(mosaic=1.0, mosaic_scale=(0.4, 0.8)).layout(
            rng, (96, 128)
        )
        assert 0.4 <= layout.scale <= 0.8
        x, y = layout.windows[0][2:]
        points.append((x / 128, y / 96))
        for i, (x1, y1, x2, y2) in enumerate(layout.windows):
            frame = layout.place(i, frames.Frame(np.eye(3), (50, 40)), fit, True)
            assert frame.size == (y2 - y1, x2 - x1)
            [box] = frames.move_boxes(np.array([[0.0, 0, 40, 50]]), frame.matrix)
            box += [x1, y1, x1, y1]
            sides = box[2:] - box[:2]
            np.testing.assert_allclose(sides, np.array([128, 96]) * layout.scale)
            corner = box[[0 if i % 2 else 2, 1 if i > 1 else 3]]
            np.testing.assert_allclose(corner, [x, y])
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    assert (low >= 0.24).all()
    assert (high <= 0.76).all()
    assert (high - low > 0.4).all()


@pytest.mark.parametrize("settings", [{}, {"mask_stride": None, "mask_size": 14}])
def test_the_largest_objects_of_all_four_are_kept(settings):
    every = take(stream(given={"max_objects": 12, **settings}), 3)
    fewer = take(stream(given={"max_objects": 2, **settings}), 3)
    for a, b in zip(rows(every), rows(fewer), strict=True):
        areas = (a.target.boxes[:, 2:] - a.target.boxes[:, :2]).prod(axis=1)
        largest = np.sort(np.argsort(-areas, kind="stable")[: b.target.valid.sum()])
        for name in ("boxes", "labels", "keypoints", "masks", "box_masks"):
            one, two = getattr(a.target, name), getattr(b.target, name)
            if one is not None:
                np.testing.assert_array_equal(one[largest], two[: len(largest)])
        total = a.counts["objects"]
        assert b.counts["objects"] + b.counts["objects cut"] == total


BUCKETS = sizing.input_sizes(buckets=((96, 128), (128, 96)), short_side=(60, 80))


@pytest.mark.parametrize("sizes", [None, BUCKETS])
def test_a_position_threads_workers_and_processes_change_nothing(sizes):
    expected = take(stream(sizes=sizes), 6)
    for batch in expected:
        h, w = batch.inputs.images.shape[1:3]
        assert (batch.inputs.view.sizes == (h, w)).all()
    again = iter(stream(sizes=sizes, threads=1))
    next(again)
    position = json.dumps(again.get_state())
    outside = iter(stream(sizes=sizes, workers=2))
    outside.set_state(json.loads(position))
    for batch in expected[1:]:
        equal(batch, next(again))
        equal(batch, next(outside))
    outside.close()
    shares = [take(stream(sizes=sizes, process=i, processes=2), 6) for i in (0, 1)]
    for batch, *parts in zip(expected, *shares, strict=True):
        equal(batch, jax.tree.map(lambda *x: np.concatenate(x), *parts))


def alone(batch):
    return (batch.inputs.view.sizes != (96, 128)).any(axis=1)


def test_some_rows_are_mosaics_until_a_step():
    half = mosaic.mosaic(mosaic=0.5, mosaic_until=10)
    single = np.array([alone(b) for b in take(stream(mosaics=half), 20)])
    assert 8 < single[:10].sum() < 32
    assert single[10:].all()
    # A picture that comes alone is the one that comes without mosaics.
    plain = take(stream(mosaics=None), 20)
    for batch, without, chosen in zip(
        take(stream(mosaics=half), 20), plain, single, strict=True
    ):
        some = jax.tree.map(lambda x, chosen=chosen: x[chosen], (batch, without))
        equal(*some)


def test_evaluation_has_no_mosaics():
    steps = prepare(several=ALWAYS)
    plain = loader.eval_loader(pictures(), steps, batch_size=3)
    learnt = loader.eval_loader(pictures(), steps, batch_size=3, learnt=True)
    for batch in [*plain, *learnt]:
        assert (batch.inputs.view.sizes != (32, 48)).any(axis=1).all()


def test_a_picture_whose_mosaic_cannot_be_read_is_named_or_comes_alone():
    records = pictures(5)
    records[3].image = records[3].image[:30]
    with pytest.raises(UserError, match=r"record 3 of split 'train' \(3\.png, image 3"):
        take(stream(records), 10)
    batches = take(stream(records, on_error="skip"), 10)
    skipped = np.concatenate([b.skipped for b in batches])
    # It is skipped in its own turn only.
    assert set(skipped) == {-1, 3}
    assert (skipped == 3).sum() == 8
    lone = np.concatenate([alone(b) for b in batches])
    assert 0 < lone.sum() < 40


def test_labels_of_a_mosaic_are_weighted_by_what_is_seen():
    targets = classification.TASK.targets(info())
    truths = [classification.targets.Truth((i % 3,), (10, 20)) for i in range(4)]
    # All but the first are seen in 100 pixels each, that in 300.
    matrix = frames.scaling(1, 1)
    windows = [[0, 0, 15, 20], *[[0, 0, 10, 10]] * 3]
    windows[0] = [0, 0, 20, 15]
    seen = [
        frames.Seen(truth, frames.scaling(1, 2) if i == 0 else matrix, np.array(window))
        for i, (truth, window) in enumerate(zip(truths, windows, strict=True))
    ]
    label, _ = targets.empty(1, (40, 40))
    one = jax.tree.map(lambda x: x[0], label)
    targets.fill(one, seen, (40, 40))
    np.testing.assert_allclose(one.weights, [4 / 6, 1 / 6, 1 / 6], rtol=1e-6)


def test_rows_by_turns():
    a, b = np.array([[1], [2], [3]]), np.array([[4]])
    assert mosaic.interleaved([a, b]).ravel().tolist() == [1, 4, 2, 3]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mosaic": 2}, r"augment\.mosaic=2 is not a number between 0 and 1"),
        ({"mosaic_scale": (1, 0.5)}, "two numbers above 0, the smaller first"),
        ({"mosaics": 1}, "mosaics is no setting .did you mean 'mosaic'"),
        ({"rotate": 200}, "between -180 and 180"),
        ({"rotate": (10, -10)}, "the smaller first"),
        ({"crop_area": (0, 1)}, "between 1e-06 and 1, the smaller first"),
        ({"blur": "much"}, "a number between 0 and 1"),
    ],
)
def test_settings_that_do_not_fit_are_a_sentence(given, words):
    from configs import quickstart

    config = quickstart.get_config()
    config.data.augment = given
    with pytest.raises(UserError, match=words):
        experiment.resolve(config)
