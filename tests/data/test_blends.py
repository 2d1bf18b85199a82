"""mixup and CutMix: pixels and labels of two pictures in one input."""

import cv2
import jax
import numpy as np
import pytest

from configs import sign_digits
from detjax import experiment
from detjax.data import blends, dataset, loader
from detjax.data.records import Record
from detjax.data.sizing import InputSizes
from detjax.errors import UserError
from detjax.tasks import TASKS
from detjax.tasks.classification import Targets

SIZE = (32, 48)


def pictures(count=6):
    """Records of one grey and one class each."""
    found = []
    for i in range(count):
        grey = np.full((20 + i, 30, 3), 40 * i, np.uint8)
        image = cv2.imencode(".png", grey)[1].tobytes()
        record = Record(i + 1, f"{i}.png", 20 + i, 30, image=image)
        record.truth = (i,)
        found.append(record)
    return found


def rows(count=64, seed=0, records=None, on_error="fail", **given):
    records = pictures() if records is None else records
    prepare = loader.Prepare(
        size=SIZE,
        targets=Targets(len(records)),
        augment={"mirror": True},
        several=blends.blends(**given),
    )
    batches = loader.train_loader(
        records,
        prepare,
        batch_size=8,
        sizes=InputSizes((SIZE,)),
        seed=seed,
        threads=1,
        on_error=on_error,
    )
    batches = iter(batches)
    for _ in range(count // 8):
        batch = next(batches)
        yield from (jax.tree.map(lambda x, i=i: x[i], batch) for i in range(8))
    batches.close()


def test_mixup_adds_pixels_and_labels_alike():
    shares = []
    for row in rows(mixup=1.0):
        image, weights = row.inputs.images, row.target.weights
        assert weights.sum() == pytest.approx(1)
        assert np.ptp(image) == 0  # both are of one grey
        assert image.mean() == pytest.approx(weights @ (40 * np.arange(6)), abs=1.5)
        shares.append(weights.max())
    assert min(shares) < 0.7 and max(shares) > 0.9  # Beta(1, 1) is uniform


def test_cutmix_shares_labels_by_area():
    pasted = 0
    for row in rows(cutmix=1.0):
        image, weights = row.inputs.images[..., 0], row.target.weights
        assert set(np.unique(image)) <= {40 * i for i in np.flatnonzero(weights)}
        for i in np.flatnonzero(weights):
            assert (image == 40 * i).mean() == pytest.approx(weights[i], abs=1e-6)
        pasted += (weights > 0).sum() == 2
    assert pasted > 30


def test_a_paste_is_a_rectangle_of_the_inputs_shape():
    drawn = [
        blends.blends(cutmix=1.0).drawn(np.random.default_rng(i), (100, 200))
        for i in range(300)
    ]
    inner = [b.window for b in drawn if 0 not in b.window and b.window[2] < 200]
    inner = [w for w in inner if w[3] < 100]
    assert len(inner) > 30
    for x1, y1, x2, y2 in inner:
        assert (x2 - x1) == pytest.approx(2 * (y2 - y1), abs=3)
    for blend in drawn:
        x1, y1, x2, y2 = blend.window
        assert blend.share == pytest.approx(1 - (x2 - x1) * (y2 - y1) / 20000)


def test_both_take_turns_and_some_rows_stay_alone():
    both = blends.blends(mixup=0.2, cutmix=1.0)
    kinds = [
        both.drawn(np.random.default_rng(i), SIZE).window is None for i in range(400)
    ]
    assert 150 < sum(kinds) < 250
    half = blends.blends(mixup=0.2, blend_probability=0.5)
    some = [half.others(np.random.default_rng(i), 0, 10) for i in range(400)]
    assert 150 < sum(map(bool, some)) < 250
    assert {other for others in some for other in others} == set(range(10))
    assert blends.blends() is None


def test_rows_depend_on_seed_and_place_alone():
    first, again, other = (
        [row.inputs.images for row in rows(16, seed, mixup=0.4, cutmix=1.0)]
        for seed in (3, 3, 4)
    )
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_a_second_picture_that_cannot_be_read_is_left_out():
    records = pictures()
    records[2].image = b"broken"
    for row in rows(records=records, on_error="skip", mixup=1.0):
        weights = row.target.weights
        assert weights[2] == 0 and weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("task", "given", "words"),
    [
        ("detection", {"mixup": 0.2}, "mixup and cutmix are for classification"),
        ("classification", {"mixup": 0.2, "mosaic": 0.5}, "set one of them to 0"),
    ],
)
def test_settings_that_do_not_fit_are_a_sentence(task, given, words):
    with pytest.raises(UserError, match=words):
        dataset.divided(given, TASKS[task])


def test_settings_are_divided_by_what_they_change():
    given = {"mirror": True, "cutmix": 1.0, "erase": 0.2}
    rest, several = dataset.divided(given, TASKS["classification"])
    assert rest == {"mirror": True, "erase": 0.2}
    assert several == blends.blends(cutmix=1.0)
    assert dataset.divided({}, TASKS["detection"]) == ({}, None)
    config = sign_digits.get_config()
    config.data.augment = {"cutmix": -1}
    with pytest.raises(UserError, match=r"augment\.cutmix=-1"):
        experiment.resolve(config)
