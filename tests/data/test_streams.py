"""Streams over several sizes and processes, and records that cannot be read."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
from test_loader import SIZE, equal, prepare, record

from detjax import cli
from detjax.data import builder, dataset, frames, loader, sizing, views
from detjax.data.records import Dataset
from detjax.tasks import detection

BUCKETS = sizing.input_sizes(buckets=((32, 48), (48, 32), (40, 40)))
SHAPES = ((60, 90), (90, 60), (70, 70), (64, 80), (33, 100))
RANDOM = {"mirror": True, "colour": True, "crop": True, "turn": True}


def records(count=11):
    return [record(i, size=SHAPES[i % 5]) for i in range(count)]


def stream(source, batch_size=4, sizes=BUCKETS, **kwargs):
    steps = prepare(size=None, augment=RANDOM)
    return loader.train_loader(
        source, steps, batch_size=batch_size, sizes=sizes, **kwargs
    )


def evaluation(source, batch_size=4, sizes=BUCKETS, **kwargs):
    steps = prepare(size=None)
    return loader.eval_loader(
        source, steps, batch_size=batch_size, sizes=sizes, **kwargs
    )


def take(batches, count):
    batches = iter(batches)
    return [next(batches) for _ in range(count)]


def join(parts):
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def test_processes_see_together_what_one_sees():
    source = records()
    whole = take(stream(source), 6)
    for processes in (2, 4):
        parts = [
            take(stream(source, process=i, processes=processes), 6)
            for i in range(processes)
        ]
        for batch, *shares in zip(whole, *parts, strict=True):
            equal(batch, join(shares))


def test_a_position_is_one_for_any_number_of_workers():
    source = records()
    expected = take(stream(source), 6)
    position, taken = None, 0
    for workers in (0, 2, 1, 0):
        batches = iter(stream(source, workers=workers, threads=1))
        if position:
            batches.set_state(json.loads(position))
        for _ in range(1 if workers else 2):
            equal(expected[taken], next(batches))
            taken += 1
        position = json.dumps(batches.get_state())
        batches.close()


def test_evaluation_counts_each_image_once_on_any_number_of_processes():
    source = records()
    whole = list(evaluation(source, batch_size=12))
    # Three processes make 12 of 10, five make 15.
    for processes, batch_size in ((1, 12), (2, 12), (3, 10), (4, 12), (5, 10)):
        parts = [
            list(evaluation(source, batch_size, process=i, processes=processes))
            for i in range(processes)
        ]
        shapes = [[b.inputs.images.shape for b in part] for part in parts]
        assert shapes.count(shapes[0]) == processes
        joined = [join(shares) for shares in zip(*parts, strict=True)]
        if processes < 5:
            for batch, other in zip(whole, joined, strict=True):
                equal(batch, other)
        ids = np.concatenate([b.index[b.inputs.view.valid] for b in joined])
        assert sorted(ids) == list(range(11))


def test_training_shares_are_equal_or_a_sentence():
    with pytest.raises(ValueError, match=r"data\.batch_size=8 does not divide among 3"):
        stream(records(), batch_size=8, process=0, processes=3)


def test_a_picture_and_its_boxes_lie_where_the_affine_says():
    source = records(5)
    sizes = sizing.input_sizes(
        buckets=((40, 64), (64, 40)), short_side=30, long_side=60
    )
    for batch in evaluation(source, batch_size=2, sizes=sizes):
        for i in np.flatnonzero(batch.inputs.view.valid):
            original = source[batch.index[i]]
            h, w = original.height, original.width
            frame = np.array([[0, 0, w, h]])
            x1, y1, x2, y2 = frames.move_boxes(frame, batch.inputs.view.affine[i])[0]
            assert min(y2 - y1, x2 - x1) == pytest.approx(
                min(30, 60 * min(h, w) / max(h, w)), abs=1e-3
            )
            grey = (batch.inputs.images[i] == views.FILL).all(axis=-1)
            y, x = np.nonzero(~grey)
            np.testing.assert_allclose(
                [x.min(), y.min(), x.max() + 1, y.max() + 1], [x1, y1, x2, y2], atol=1
            )
            objects = jax.tree.map(lambda a, i=i: a[i], batch.target)
            expected = frames.move_boxes(
                np.array([a.box for a in original.truth]), batch.inputs.view.affine[i]
            )
            np.testing.assert_allclose(objects.boxes[:3], expected, atol=1e-3)


def test_each_bucket_is_compiled_once():
    traced = []

    @jax.jit
    def step(batch):
        traced.append(batch.inputs.images.shape)
        return batch.inputs.images.astype("f").mean() + batch.target.boxes.sum()

    sizes = sizing.input_sizes(buckets=BUCKETS.buckets, short_side=(24, 36, 40))
    for batch in take(stream(records(60), sizes=sizes), 2 * 60 // 4):
        step(batch)
    assert sorted(traced) == sorted((4, h, w, 3) for h, w in BUCKETS.buckets)


def broken(kind, i=5):
    """A record that cannot be read, and words of the sentence about it."""
    one = record(i, size=SHAPES[i % 5])
    if kind == "image":
        one.image = one.image[:20]
        return one, "the image cannot be decoded"
    if kind == "nothing":
        one.image = b""
        return one, "the image cannot be decoded"
    if kind == "size":
        one.image = cv2.imencode(".png", np.zeros((90, 60, 3), np.uint8))[1].tobytes()
        return one, "90 x 60 pixels (height x width), its record says 60 x 90"
    if kind == "zero":
        one.height = 0
        return one, "its record says 0 x 90"
    if kind == "characters":
        one.truth[1].rle = b"\x7f\x7f"
        return one, "has a mask that is not a run-length code"
    if kind == "cut off":
        one.truth[1].rle = one.truth[1].rle[:-1] + b"P"
        return one, "has a mask whose run-length code is cut off"
    one.truth[1].rle = one.truth[0].rle[:-4]
    return one, "has a mask of"


IMAGES = ("image", "nothing", "size", "zero")
MASKS = ("characters", "cut off", "short")


@pytest.mark.parametrize(
    "make, kind",
    [(stream, kind) for kind in (*IMAGES, *MASKS)]
    # Evaluation's batches hold no masks; the truth's are checked with the metric.
    + [(evaluation, kind) for kind in IMAGES],
)
def test_a_record_that_cannot_be_read_is_named(make, kind):
    source = records()
    source[5], words = broken(kind)
    with pytest.raises(ValueError) as caught:
        take(make(source, split="half"), 9)
    sentence = cli.sentence(caught.value)
    assert sentence.startswith("record 5 of split 'half' (5.png, image 5): ")
    assert words in sentence
    assert "data.on_error='skip'" in sentence


def test_a_worker_process_names_it_too():
    source = records()
    source[5], words = broken("image")
    with pytest.raises(ValueError) as caught:
        take(stream(source, workers=1, split="half"), 9)
    sentence = cli.sentence(caught.value)
    assert sentence.startswith(f"record 5 of split 'half' (5.png, image 5): {words}")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_record_stands_in(capsys, workers):
    source = records()
    whole = take(stream(source), 9)
    source[5], source[6] = broken("size", 5)[0], broken("short", 6)[0]
    batches = iter(stream(source, on_error="skip", workers=workers))
    for expected in whole:
        batch = next(batches)
        missing = np.isin(expected.index, [5, 6])
        assert batch.inputs.images.shape == expected.inputs.images.shape
        assert batch.inputs.view.valid.all()
        np.testing.assert_array_equal(
            batch.skipped, np.where(missing, expected.index, -1)
        )
        np.testing.assert_array_equal(batch.index, np.where(missing, 7, expected.index))
        same = ~missing
        np.testing.assert_array_equal(
            batch.inputs.images[same], expected.inputs.images[same]
        )
    told = capsys.readouterr().err.splitlines()
    assert batches.skipped == {5, 6}
    assert sorted(told) == [
        f"warning: record {i} of split 'train' ({i}.png, image {i}) cannot be read and "
        "is skipped"
        for i in (5, 6)
    ]


def test_what_was_skipped_is_part_of_the_position(capsys):
    source = records()
    source[5], _ = broken("image")
    batches = iter(stream(source, on_error="skip"))
    start = batches.get_state()
    for _ in range(4):
        next(batches)
    again = iter(stream(source, on_error="skip"))
    again.set_state(batches.get_state())
    assert again.skipped == {5}
    equal(next(batches), next(again))
    batches.set_state(start)
    assert batches.skipped == set()
    capsys.readouterr()
    for _ in range(4):
        next(batches)
    assert batches.skipped == {5}
    assert not capsys.readouterr().err  # it was told of already


def test_too_many_stop_the_run():
    source = records()
    for i in (2, 5, 8):
        source[i], _ = broken("image", i)
    assert len(take(stream(source, on_error="skip", max_skipped=3), 9)) == 9
    with pytest.raises(ValueError, match=r"3 records of split 'train' cannot be read"):
        take(stream(source, on_error="skip", max_skipped=2), 9)
    nothing = [broken("image", i)[0] for i in range(4)]
    with pytest.raises(ValueError, match="4 records in a row cannot be read, the last"):
        take(stream(nothing, on_error="skip", max_skipped=3), 9)


def test_an_evaluation_goes_on_without_it(capsys):
    source = records(10)
    whole = list(evaluation(source))
    source[5], _ = broken("image")
    got = list(evaluation(source, on_error="skip"))
    for batch, expected in zip(got, whole, strict=True):
        np.testing.assert_array_equal(batch.index, expected.index)
        missing = batch.index == 5
        np.testing.assert_array_equal(
            batch.inputs.view.valid, expected.inputs.view.valid & ~missing
        )
        assert (batch.inputs.images[missing] == views.FILL).all()
        assert not batch.target.valid[missing].any()
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"warning: record 5 of split 'val' \(5\.png, image 5\): the image cannot be "
        r"decoded; its objects count as missed\n",
        told,
    )


def test_other_words_than_fail_and_skip_are_a_sentence():
    for make in (stream, evaluation):
        with pytest.raises(ValueError, match="on_error is 'ignore'"):
            make(records(3), on_error="ignore")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    part = Dataset("train", ("a", "b", "c"), records(10))
    other = dataclasses.replace(part, split="val", records=records(7)[2:])
    builder.write({"train": part, "val": other}, "shapes", folder, detection.TASK)
    return folder


def damaged(written, folder, number, split):
    """A copy of the data set in which a record's bytes are zeros on the disk."""
    shutil.copytree(written, folder / "sets")
    image = builder.source("shapes", written, split, detection.TASK)[number].image
    where = builder.directory("shapes", folder / "sets")
    (path,) = where.glob(f"*-{split}.array_record*")
    data = path.read_bytes()
    start = data.index(image[:60])
    path.write_bytes(data[:start] + bytes(400) + data[start + 400 :])
    return {
        "name": "shapes",
        "data_dir": str(folder / "sets"),
        "batch_size": 4,
        "size": SIZE,
        "mask_stride": 2,
    }


def test_a_damaged_place_of_a_file_is_named(written, tmp_path):
    section = damaged(written, tmp_path, 5, "train")
    with pytest.raises(ValueError) as caught:
        take(dataset.make(detection.TASK, **section).train, 3)
    sentence = cli.sentence(caught.value)
    assert sentence.startswith("record 5 of split 'train': the data set's file in ")
    assert str(tmp_path) in sentence
    assert "data.on_error='skip'" in sentence


def test_a_damaged_place_of_a_file_is_skipped(written, tmp_path, capsys):
    batches = iter(
        dataset.make(
            detection.TASK, **damaged(written, tmp_path, 5, "train"), on_error="skip"
        ).train
    )
    shown = np.concatenate([next(batches).index for _ in range(5)])
    assert sorted(shown) == sorted([*range(5), 6, *range(6, 10)] * 2)
    assert capsys.readouterr().err == (
        "warning: record 5 of split 'train' cannot be read and is skipped\n"
    )


def test_an_evaluation_passes_over_a_damaged_place(written, tmp_path, capsys):
    section = damaged(written, tmp_path, 3, "val")
    with pytest.raises(ValueError, match=r"record 3 of split 'val': the data set's"):
        list(dataset.make(detection.TASK, **section).evaluation())
    with pytest.raises(ValueError, match=r"record 3: the data set's file"):
        list(dataset.make(detection.TASK, **section).truth)
    data = dataset.make(detection.TASK, **section, on_error="skip")
    seen = [i for b in data.evaluation() for i in b.index[b.inputs.view.valid].tolist()]
    assert "record 3 of split 'val': the data set's" in capsys.readouterr().err
    # What nobody knows of is neither found nor missed.
    found = [data.image_ids[i] for i in seen]
    assert found == [r.id for r in data.truth] == [2, 3, 4, 6]


def test_sizes_are_kept_beside_the_records(written, capsys):
    expected = [SHAPES[i % 5] for i in range(10)]
    assert builder.image_sizes(
        "shapes", written, "train", detection.TASK
    ).tolist() == list(map(list, expected))
    part = builder.image_sizes(
        "shapes", written, "train[20%:50%]+val[1:]", detection.TASK
    )
    of_part = builder.source(
        "shapes", written, "train[20%:50%]+val[1:]", detection.TASK
    )
    np.testing.assert_array_equal(part, loader.image_sizes(of_part))
    assert not capsys.readouterr().err


def test_a_config_declares_buckets(written):
    section = {
        "name": "shapes",
        "data_dir": str(written),
        "batch_size": 2,
        "mask_stride": 2,
        "buckets": [[32, 48], [48, 32]],
        "short_side": [24, 32],
        "long_side": 48,
    }
    data = dataset.make(detection.TASK, **section)
    shapes = {b.inputs.images.shape[1:3] for b in take(data.train, 10)}
    assert shapes == {(32, 48), (48, 32)}
    assert sum(int(b.inputs.view.valid.sum()) for b in data.evaluation()) == 5
    shown = [i for b in data.once() for i in b.index[b.inputs.view.valid].tolist()]
    assert sorted(shown) == list(range(10))
    with pytest.raises(ValueError, match="set one of them"):
        dataset.make(detection.TASK, **section, size=(32, 32))
    with pytest.raises(ValueError, match="'shapes' has no keypoints"):
        dataset.make(detection.TASK, **section, keypoints=True)


@pytest.mark.long
def test_memory_stays_flat():
    """Ten thousand batches take no more memory than one thousand.

    In a process of its own: this one holds what other tests have left.
    """
    here = pathlib.Path(__file__).parent
    code = f"""
import sys
sys.path[:0] = {[str(here.parents[1]), str(here.parent), str(here)]!r}
from test_streams import records, stream

def resident():
    line = next(x for x in open("/proc/self/status") if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

batches = iter(stream(records(40), batch_size=2))
for i in range(1, 10_001):
    next(batches)
    if i in (1_000, 10_000):
        print(resident())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    first, last = map(float, done.stdout.split())
    assert last - first < 8, done.stdout
