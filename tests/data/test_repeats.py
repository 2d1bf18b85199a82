"""Repeat-factor sampling: factors by hand, epochs that hold them, any position."""

import json
import pickle
import time

import numpy as np
import pytest
from test_loader import equal, prepare, record

from detjax.data import builder, dataset, listings, loader, plan, repeats, sizing
from detjax.data.listings import Classes
from detjax.data.records import Dataset
from detjax.tasks import classification, detection

# Class 0 is in 8 of 10 images, class 1 in 2, class 2 in 1; the last has none.
IMAGES = [[0], [0], [0, 0], [0], [0], [0], [0, 1], [0, 2, 1], [1 - 1, 0], []]
ONE_SIZE = sizing.input_sizes(size=(8, 8))
BUCKETS = sizing.input_sizes(buckets=((64, 96), (96, 64)))


def listed(images=IMAGES):
    return listings.classes_of(np.array(labels, np.int64) for labels in images)


def by_hand(images, threshold):
    found = []
    for labels in images:
        shares = [sum(c in other for other in images) / len(images) for c in labels]
        found.append(max([1, *(np.sqrt(threshold / f) for f in shares)]))
    return found


@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.5, 1.0])
def test_factors_are_the_papers(threshold):
    got = repeats.factors(listed(), threshold)
    np.testing.assert_allclose(got, by_hand(IMAGES, threshold), rtol=1e-6)
    rng = np.random.default_rng(0)
    many = [rng.integers(0, 30, rng.integers(0, 5)).tolist() for _ in range(300)]
    got = repeats.factors(listed(many), threshold)
    np.testing.assert_allclose(got, by_hand(many, threshold), rtol=1e-6)


def test_images_without_any_class_are_shown_once():
    assert repeats.factors(listed([[], []]), 0.5).tolist() == [1, 1]


def test_an_epoch_shows_each_image_as_often_as_its_factor_by_rounding_at_random():
    rng, factors = np.random.default_rng(0), np.float32([1, 2, 1.25, 3.5])
    shown = np.array(
        [np.bincount(repeats.epoch(rng, factors), minlength=4) for _ in range(2000)]
    )
    assert (shown >= np.floor(factors)).all()
    assert (shown <= np.ceil(factors)).all()
    np.testing.assert_allclose(shown.mean(axis=0), factors, atol=0.05)
    orders = {tuple(repeats.epoch(rng, factors[:2])) for _ in range(50)}
    assert orders == {(0, 1, 1), (1, 0, 1), (1, 1, 0)}


def new(sizes=ONE_SIZE, batch_size=8, seed=5, count=3000):
    rng = np.random.default_rng(1)
    images = rng.integers(20, 200, (count, 2))
    factors = np.where(rng.random(count) < 0.1, 2.5, 1).astype(np.float32)
    return plan.Plan(images, sizes, batch_size=batch_size, seed=seed, repeats=factors)


@pytest.mark.parametrize("sizes", [ONE_SIZE, BUCKETS])
def test_any_place_can_be_asked_for(sizes):
    places = new(sizes)
    expected = [places[i] for i in range(60_000)]
    assert pickle.loads(pickle.dumps(places))[59_999] == expected[-1]
    jumping = new(sizes)
    for position in (59_999, 3, 30_000, 17_000, 0, 45_000):
        assert jumping[position] == expected[position]
    other = new(sizes, seed=6)
    assert [other[i] for i in range(50)] != expected[:50]
    shown = np.bincount([p.record for p in expected], minlength=3000)
    often = shown > 1.5 * np.median(shown)
    assert 200 < often.sum() < 400
    assert shown[often].mean() / shown[~often].mean() == pytest.approx(2.5, rel=0.02)
    for start in range(0, 60_000, 8):
        assert len({p.bucket for p in expected[start : start + 8]}) == 1


def test_with_one_bucket_the_stream_is_the_same_for_any_batch_size():
    one, other = new(batch_size=8), new(batch_size=50)
    assert [one[i] for i in range(0, 50_000, 7)] == [
        other[i] for i in range(0, 50_000, 7)
    ]


def test_factors_of_one_are_each_image_once_an_epoch():
    places = plan.Plan(
        np.ones((10, 2)), ONE_SIZE, batch_size=4, seed=3, repeats=np.ones(10)
    )
    epochs = np.reshape([places[i].record for i in range(1000)], (100, 10))
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()


def test_a_tenth_epoch_of_imagenet_is_there_at_once():
    count = 1_200_000
    rng = np.random.default_rng(0)
    labels = np.minimum(rng.zipf(1.5, count), 1000).astype(np.int32) - 1
    start = time.process_time()
    factors = repeats.factors(Classes(labels, np.arange(1, count + 1)), 0.01)
    assert factors.nbytes == 4 * count
    places = plan.Plan(
        np.ones((count, 2), np.int32), ONE_SIZE, batch_size=256, seed=0, repeats=factors
    )
    places[10 * count]
    assert time.process_time() - start < 6


def test_processes_see_together_what_one_sees_and_go_on():
    records = [record(i) for i in range(8)]
    factors = np.float32([1, 1, 1, 1, 1, 1, 2.5, 4])

    def stream(**kwargs):
        return iter(
            loader.train_loader(
                records, prepare(), batch_size=4, repeats=factors, **kwargs
            )
        )

    whole = stream()
    batches = [next(whole) for _ in range(12)]
    shown = np.bincount(np.concatenate([b.index for b in batches]), minlength=8)
    assert shown[7] >= 3 * shown[:6].max() - 2
    shares = [stream(process=i, processes=2) for i in (0, 1)]
    for batch in batches[:6]:
        parts = [next(share).index for share in shares]
        np.testing.assert_array_equal(batch.index, np.concatenate(parts))
    again = stream()
    again.set_state(json.loads(json.dumps({"images": 24, "skipped": []})))
    for batch in batches[6:]:
        equal(batch, next(again))


def test_parts_of_listings_and_several_of_them():
    some = listed()
    part = some.part(6, 9)
    assert part.labels.tolist() == [0, 1, 0, 1, 2, 0]
    assert part.ends.tolist() == [2, 5, 6]
    both = listings.joined([part, some.part(0, 2), some.part(9, 10)])
    assert both.labels.tolist() == [0, 1, 0, 1, 2, 0, 0, 0]
    assert both.ends.tolist() == [2, 5, 6, 7, 8, 8]
    assert listings.joined([listed([])]).ends.tolist() == []


def rare(task):
    """Forty images, the last of a class of its own."""
    found = []
    for i in range(40):
        some = record(i, objects=1)
        if task is classification.TASK:
            some.truth = (2,) if i == 39 else (i % 2,)
        else:
            some.truth[0].label = 2 if i == 39 else i % 2
        found.append(some)
    return found


@pytest.mark.parametrize("task", [detection.TASK, classification.TASK])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_data_section_shows_rare_classes_more_often(tmp_path, capsys, task, earlier):
    builder.write(
        {s: Dataset(s, ("a", "b", "c"), rare(task)) for s in ("train", "val")},
        "some",
        tmp_path,
        task,
    )
    path = listings.path_of(builder.directory("some", tmp_path), "train")
    before = path.read_bytes()
    if earlier:
        with np.load(path) as held:
            kept = {k: held[k] for k in ("ids", "sizes")}
        np.savez(path, **kept)
    masks = {"mask_stride": None} if task is detection.TASK else {}
    section = {"name": "some", "data_dir": tmp_path, "batch_size": 5, "size": (8, 8)}
    data = dataset.make(task, **section, **masks, repeat_threshold=0.225)
    said = capsys.readouterr().err.count("40 records of split 'train' are read")
    assert said == earlier
    assert path.read_bytes() == before
    batches = iter(data.train)
    index = np.concatenate([next(batches).index for _ in range(84)])
    shown = np.bincount(index, minlength=40)
    # sqrt(0.225 * 40) is 3.
    assert 27 <= shown[39] <= 33
    assert shown[:39].max() <= 11
    part = {**section, "train_split": "train[:50%]"}
    data = dataset.make(task, **part, **masks, repeat_threshold=1.0)
    assert next(iter(data.train)).index.max() < 20


@pytest.mark.parametrize("damage", ["ends", "type", "count"])
def test_classes_that_are_not_whole_are_not_read(tmp_path, damage):
    labels, ends = listed()
    if damage == "ends":
        ends = ends[::-1].copy()
    elif damage == "type":
        labels = labels.astype(np.float32)
    listings.store(tmp_path, "a", range(10), np.ones((10, 2)), Classes(labels, ends))
    count = 9 if damage == "count" else 10
    assert listings.stored_classes(tmp_path, "a", count) is None
    listings.store(tmp_path, "a", range(10), np.ones((10, 2)), listed())
    found = listings.stored_classes(tmp_path, "a", 10)
    equal(found, listed())


def test_balanced_weights_make_classes_count_alike():
    classes = Classes(np.array([0, 0, 0, 1, 3, 3]), np.arange(1, 7))
    weights = repeats.balanced(classes, 4)
    assert weights == (2 / 3, 2.0, 1.0, 1.0)
    counts = np.bincount(classes.labels, minlength=4)
    assert sum(weights * counts) == len(classes.labels)
