"""Which image goes where: buckets by brute force, epochs, positions, time."""

import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detjax.data import frames, plan, sizing

SIDES = st.integers(1, 2000)
PAIRS = st.tuples(SIDES, SIDES)
BUCKETS = ((64, 96), (96, 64), (80, 80))


def images(count, seed=0):
    return np.random.default_rng(seed).integers(20, 200, (count, 2))


def smallest_that_holds(image, declared, short):
    """The bucket by the rule's own words, one at a time."""
    h, w = image
    scale = short / min(h, w)
    if declared.long_side:
        scale = min(scale, declared.long_side / max(h, w))
    holding = [
        (bh * bw, i)
        for i, (bh, bw) in enumerate(declared.buckets)
        if h * scale <= bh * (1 + 1e-9) and w * scale <= bw * (1 + 1e-9)
    ]
    return min(holding)[1] if holding else None


@settings(max_examples=300, deadline=None)
@given(
    image=PAIRS,
    buckets=st.lists(PAIRS, min_size=1, max_size=5, unique=True),
    short_side=st.none() | SIDES | st.lists(SIDES, min_size=1, max_size=3),
    limited=st.booleans(),
    box=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_there_and_back_whatever_the_bucket(image, buckets, short_side, limited, box):
    long_side = 1333 if limited and short_side is not None else None
    kwargs = {"buckets": buckets, "short_side": short_side, "long_side": long_side}
    declared = sizing.input_sizes(**kwargs)
    fit = sizing.resize_for(*image, **kwargs)
    h, w = image
    frame = frames.resize(
        frames.Frame(np.eye(3), image), fit.size, fit.letterbox, fit.scale
    )
    # What a batch holds is float32.
    affine = np.vstack([frame.matrix[:2].astype(np.float32), [0, 0, 1]]).astype(float)
    x, y = np.sort(box[:2]) * w, np.sort(box[2:]) * h
    boxes = np.array([[x[0], y[0], x[1], y[1]]])
    there = frames.move_boxes(boxes, affine)
    back = frames.move_boxes(there, np.linalg.inv(affine))
    np.testing.assert_allclose(back, boxes, atol=1e-3)
    x1, y1, x2, y2 = frames.move_boxes(np.array([[0, 0, w, h]]), affine)[0]
    assert min(x1, y1) >= -1e-3
    assert x2 <= fit.size[1] + 1e-3
    assert y2 <= fit.size[0] + 1e-3
    assert abs((x2 - x1) / w - (y2 - y1) / h) <= 1e-6 * max(affine[0, 0], 1)
    if short_side is not None:
        short = short_side if isinstance(short_side, int) else short_side[-1]
        expected = smallest_that_holds(image, declared, short)
        largest = max(min(bh / h, bw / w) for bh, bw in buckets)
        if expected is None:
            assert fit.scale == pytest.approx(largest)
        else:
            assert fit.size == declared.buckets[expected]
            wanted = short / min(h, w)
            wanted = min(wanted, long_side / max(h, w)) if long_side else wanted
            assert fit.scale == pytest.approx(wanted)
    else:
        shares = [1 - min(a / h, b / w) ** 2 * h * w / a / b for a, b in buckets]
        good = [
            a * b
            for (a, b), s in zip(buckets, shares, strict=True)
            if s <= min(shares) + sizing.TOLERANCE - 1e-9
        ]
        assert fit.size[0] * fit.size[1] >= max(good)
        number = buckets.index(fit.size)
        assert shares[number] <= min(shares) + sizing.TOLERANCE + 1e-9


def test_one_size_needs_no_images_and_may_stretch():
    declared = sizing.input_sizes(size=[32, 48])
    assert not declared.need_images
    assert declared.resize((10, 10), 0) == sizing.Resize((32, 48), False)
    assert sizing.resize_for(10, 10, size=(32, 48), letterbox=True).letterbox
    even = sizing.resize_for(100, 200, size=(64, 64), short_side=16)
    assert even == sizing.Resize((64, 64), True, 0.16)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({}, "set one of them"),
        ({"size": (3, 4), "buckets": [(3, 4)]}, "set one of them"),
        ({"buckets": []}, "data.buckets is empty"),
        ({"buckets": [(3, 4, 5)]}, r"\(3, 4, 5\) in data.buckets"),
        ({"buckets": [(3, 0)]}, r"\(3, 0\) in data.buckets"),
        ({"size": (3, 4.5)}, r"\(3, 4.5\) in data.size"),
        ({"buckets": [3, 4]}, "3 in data.buckets"),
        ({"buckets": [(3, 4), [3, 4]]}, "twice"),
        ({"size": (3, 4), "long_side": 9}, "long_side=9 limits data.short_side"),
        ({"size": (3, 4), "short_side": [5, -1]}, "-1 in data.short_side"),
    ],
)
def test_sizes_that_contradict_one_another_are_a_sentence(kwargs, words):
    with pytest.raises(ValueError, match=words):
        sizing.input_sizes(**kwargs)


def stream(places, count, start=0):
    return [places[i] for i in range(start, start + count)]


def test_one_bucket_is_one_permutation_an_epoch():
    places = plan.Plan(
        np.ones((10, 2)), sizing.input_sizes(size=(8, 8)), batch_size=4, seed=3
    )
    epochs = np.reshape([p.record for p in stream(places, 1000)], (100, 10))
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(e) for e in epochs}) > 90
    big = plan.Plan(
        np.ones((plan.ROUND, 2)), sizing.input_sizes(size=(8, 8)), batch_size=4, seed=3
    )
    later = [p.record for p in stream(big, plan.ROUND, start=plan.ROUND)]
    assert sorted(later) == list(range(plan.ROUND))


@pytest.mark.parametrize("short_side", [None, (40, 50, 64)])
def test_batches_share_a_bucket_and_no_image_is_lost(short_side):
    declared = sizing.input_sizes(buckets=BUCKETS, short_side=short_side)
    sizes = images(41)
    options, counts = declared.options(sizes)
    places = plan.Plan(sizes, declared, batch_size=8, seed=0)
    seen = stream(places, 1000 * 41 // 8 * 8)
    for batch in (seen[i : i + 8] for i in range(0, len(seen), 8)):
        assert len({p.bucket for p in batch}) == 1
    for place in seen:
        allowed = options[place.record, : counts[place.record]].tolist()
        if short_side:
            assert allowed[place.short] == place.bucket
        else:
            assert place.bucket in allowed
            assert place.short == -1
    # At any time an image is behind by what waits for its bucket, and no more.
    shown = np.bincount([p.record for p in seen], minlength=41)
    waiting = 3 * 7
    epochs = plan.ROUND // 41 + 1
    ends = places._starts[1:]
    assert len(ends) > 1
    at_end = np.bincount([p.record for p in seen[: ends[0]]], minlength=41)
    assert at_end.sum() > epochs * 41 - waiting - 1
    assert (at_end <= epochs).all()
    assert shown.min() > 900


def test_a_bucket_of_one_image_waits_until_it_fills_a_batch():
    sizes = np.array([(60, 90)] * 31 + [(90, 60)])
    declared = sizing.input_sizes(buckets=((60, 90), (90, 60)))
    places = plan.Plan(sizes, declared, batch_size=8, seed=0)
    seen = stream(places, 16 * 32)
    batches = [{p.record for p in seen[i : i + 8]} for i in range(0, len(seen), 8)]
    assert batches.count({31}) == 2  # in 16 epochs
    assert all(31 not in batch for batch in batches if batch != {31})
    assert np.ptp(np.bincount([p.record for p in seen])) <= 1


def test_several_short_sides_and_equal_buckets_are_all_drawn():
    sizes = np.full((50, 2), 60)
    sides = sizing.input_sizes(buckets=BUCKETS, short_side=(40, 50, 64))
    drawn = stream(plan.Plan(sizes, sides, batch_size=4, seed=0), 400)
    assert {p.short for p in drawn} == {0, 1, 2}
    squares = sizing.input_sizes(buckets=((64, 64), (96, 96), (80, 80), (64, 128)))
    drawn = stream(plan.Plan(sizes, squares, batch_size=4, seed=0), 400)
    assert {p.bucket for p in drawn} == {0, 1, 2}
    assert sizing.resize_for(60, 60, buckets=squares.buckets).size == (96, 96)
    assert sizing.resize_for(60, 60, size=(96, 96), short_side=(10, 30)).scale == 0.5


@pytest.mark.parametrize("buckets", [BUCKETS, BUCKETS[:1]])
def test_any_place_can_be_asked_for(buckets):
    declared = sizing.input_sizes(buckets=buckets)

    def new():
        return plan.Plan(images(3000), declared, batch_size=8, seed=5)

    places = new()
    expected = stream(places, 60_000)
    assert pickle.loads(pickle.dumps(places))[59_999] == expected[-1]
    jumping = new()
    for position in (59_999, 3, 30_000, 17_000, 0, 45_000):
        assert jumping[position] == expected[position]
    other = plan.Plan(images(3000), declared, batch_size=8, seed=6)
    assert stream(other, 50) != expected[:50]


def test_the_fiftieth_epoch_of_coco_is_there_at_once():
    rng = np.random.default_rng(0)
    shapes = np.array([(480, 640), (640, 480), (427, 640), (640, 427), (500, 375)])
    sizes = shapes[rng.integers(len(shapes), size=118_000)]
    declared = sizing.input_sizes(
        buckets=((800, 1344), (1344, 800), (1088, 1088)),
        short_side=(640, 672, 704, 736, 768, 800),
        long_side=1333,
    )
    start = time.process_time()
    places = plan.Plan(sizes, declared, batch_size=16, seed=0)
    places[50 * 118_000]
    assert time.process_time() - start < 3


def test_no_image_is_a_sentence():
    with pytest.raises(ValueError, match="no image"):
        plan.Plan(
            np.ones((0, 2)), sizing.input_sizes(size=(8, 8)), batch_size=4, seed=0
        )


@pytest.mark.parametrize("buckets", [BUCKETS, BUCKETS[:1]])
def test_an_evaluation_holds_every_image_once(buckets):
    places = plan.once(images(29), sizing.input_sizes(buckets=buckets), 8)
    assert len(places) % 8 == 0
    assert sorted(p.record for p in places if p.valid) == list(range(29))
    for i in range(0, len(places), 8):
        batch = places[i : i + 8]
        assert len({p.bucket for p in batch}) == 1
        assert batch[0].valid
