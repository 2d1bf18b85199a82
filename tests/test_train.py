"""The loop: resuming, logging, stopping; and the sentences of errors."""

import dataclasses
import json
import os
import re
import shutil
import signal
import threading
import time

import cv2
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import optax
import pytest
from families import TINY
from families import batch as tiny_batch
from infos import info

from detjax import (
    checkpoint,
    log,
    models,
    optim,
    predict,
    preemption,
    replay,
    sharding,
    train,
)
from detjax import evaluate as evaluate_module
from detjax.data import ahead, frames, loader, sizing
from detjax.data.formats import shapes
from detjax.errors import UserError
from detjax.tasks import detection
from detjax.tasks.detection.meter import truth_of
from detjax.tasks.detection.targets import Targets
from detjax.types import Detections, Inputs, Model, Objects, Spec
from tests.eval_cases import collected

TASK = detection.TASK
IDS = (1, 3, 4, 9)
INFO = info(shapes.CLASSES, category_ids=IDS)
POISON = 7  # of a batch that is to have no finite loss
CONFIG = {**TINY["yolact"], "num_classes": 4}
PLAIN = loader.Prepare((64, 64), Targets(8, mask_stride=4))


@pytest.fixture(scope="module")
def records():
    return shapes.records("train", 12, size=64)


@pytest.fixture(scope="module")
def parts():
    model = models.make(**CONFIG)
    optimizer, rate = optim.make(
        steps=6, name="adamw", schedule={"peak": 1e-3, "warmup_steps": 2}
    )
    return model, optimizer, rate


def stream(records, batch_size=8, max_objects=8):
    targets = Targets(max_objects, mask_stride=4)
    steps = loader.Prepare((64, 64), targets, augment={"mirror": True})
    return loader.train_loader(records, steps, batch_size=batch_size)


def fit(parts, records, workdir, steps=6, **kwargs):
    options = {"log_every": 2, "checkpoint_every": 3, "progress": False, **kwargs}
    options.setdefault("warnings", TASK.warnings)
    return train.fit(*parts, stream(records), workdir=workdir, steps=steps, **options)


def log_of(workdir):
    rows = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row) for row in rows]


def lasting(row):
    """A line of the log without what another process may say otherwise."""
    return {k: v for k, v in row.items() if k not in ("images/s", "compilations")}


@pytest.fixture(scope="module")
def straight(parts, records, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, fit(parts, records, workdir)


def test_log_says_what_happened(straight):
    rows = log_of(straight[0])
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"loss", "box", "class", "mask", "semantic", "lr", "images/s"} <= {*rows[0]}
    assert rows[0]["objects cut"] == 0


def test_a_run_that_stopped_goes_on_as_if_it_had_not(
    parts, records, tmp_path, straight
):
    fit(parts, records, tmp_path, steps=3)
    resumed = fit(parts, records, tmp_path)
    assert int(resumed.step) == 6
    jax.tree.map(np.testing.assert_array_equal, resumed, straight[1])


def test_a_damaged_checkpoint_is_set_aside(parts, records, tmp_path, straight, capsys):
    fit(parts, records, tmp_path)
    for path in (tmp_path / "checkpoints" / "6").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = fit(parts, records, tmp_path)
    assert "checkpoint 6 cannot be read" in capsys.readouterr().err
    assert (tmp_path / "damaged-checkpoint-6").is_dir()
    jax.tree.map(np.testing.assert_array_equal, again, straight[1])


def test_sigterm_saves_before_it_ends(parts, records, tmp_path, straight):
    def change(number, batch):
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    told = Tampered(stream(records), change)
    options = {"steps": 6, "log_every": 2, "progress": False}
    with pytest.raises(preemption.Preempted) as ended:
        train.fit(*parts, told, workdir=tmp_path, **options)
    assert ended.value.code == 143
    assert ended.value.step == 3
    with (tmp_path / "metrics.jsonl").open("a") as file:
        # What a killed run wrote after its last checkpoint, the last line by half.
        file.write('{"step": 4, "loss": 0}\n{"step": 5, "los')
    again = fit(parts, records, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, straight[1])
    for ours, theirs in zip(log_of(tmp_path), log_of(straight[0]), strict=True):
        assert lasting(ours) == lasting(theirs)


def test_a_finished_run_trains_no_further(parts, records, straight):
    again = fit(parts, records, straight[0])
    jax.tree.map(np.testing.assert_array_equal, again, straight[1])


def test_another_architecture_is_refused_with_the_difference(
    records, tmp_path, straight
):
    wider = models.make(**{**CONFIG, "fpn": {**CONFIG["fpn"], "features": 16}})
    optimizer, rate = optim.make(steps=6, schedule={"peak": 1e-3})
    with pytest.raises(ValueError, match=r"another architecture(.|\n)*fpn.*\(.*8\)"):
        fit((wider, optimizer, rate), records, straight[0])


def test_another_optimizer_is_refused_and_nothing_is_lost(parts, records, straight):
    optimizer, rate = optim.make(steps=6, schedule={"peak": 1e-3})
    with pytest.raises(ValueError, match="another optimizer"):
        fit((parts[0], optimizer, rate), records, straight[0])
    assert checkpoint.Checkpoints(straight[0]).latest() == 6


def test_evaluations_on_the_way_are_logged_once(parts, records, tmp_path, straight):
    seen = []

    def evaluate(run, stop):
        seen.append(int(run.step))
        return {"bbox/AP": 0.25}

    options = {"evaluate": evaluate, "evaluate_every": 3}
    fit(parts, records, tmp_path, steps=3, **options)
    run = fit(parts, records, tmp_path, **options)
    assert seen == [3, 6]
    found = [row["step"] for row in log_of(tmp_path) if "bbox/AP" in row]
    assert found == [3, 6]
    jax.tree.map(np.testing.assert_array_equal, run, straight[1])


def test_the_loader_is_started_once_a_run(parts, records, tmp_path, monkeypatch):
    """With worker processes a start takes seconds, and loses what they have read."""
    started, prefetched = [], ahead.prefetched

    def loss(params, state, batch, key):
        return jax.numpy.mean((params - batch.inputs.images.mean() / 255) ** 2), (
            state,
            {},
        )

    model = Model(
        Spec("detection", 1), lambda *_: (jax.numpy.zeros(3), {}), loss, None, None
    )
    parts = model, *parts[1:]

    def counted(*args, **options):
        started.append(prefetched(*args, **options))
        return started[-1]

    monkeypatch.setattr(ahead, "prefetched", counted)
    fit(parts, records, tmp_path, steps=2)
    assert len(started) == 1
    fit(parts, records, tmp_path, steps=3)
    assert len(started) == 2


def test_an_evaluation_that_was_killed_is_done_again(parts, records, tmp_path):
    def killed(run, stop):
        raise KeyboardInterrupt

    options = {"evaluate_every": 3, "checkpoint_every": 100}
    with pytest.raises(KeyboardInterrupt):
        fit(parts, records, tmp_path, evaluate=killed, **options)
    fit(parts, records, tmp_path, evaluate=lambda *_: {"AP": 0.5}, **options)
    found = [row["step"] for row in log_of(tmp_path) if "AP" in row]
    assert found == [3, 6]


def test_sigterm_leaves_an_evaluation_off(parts, records, tmp_path, straight):
    model = parts[0]
    batches = loader.eval_loader(records, PLAIN, batch_size=8)

    def evaluate(run, stop):
        os.kill(os.getpid(), signal.SIGTERM)
        weights = run.params, run.state
        meter = TASK.meter(records, INFO, range(12))
        evaluate_module.predict_all(
            model, TASK, *weights, batches, meter, stop=stop, progress=False
        )

    with pytest.raises(preemption.Preempted):
        fit(parts, records, tmp_path, evaluate=evaluate, evaluate_every=3)
    again = fit(parts, records, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, straight[1])


def test_the_best_of_a_named_metric_is_kept(parts, records, tmp_path):
    said = {1: 0.1, 2: 0.4, 3: 0.3, 4: 0.35, 5: 0.2, 6: 0.4}
    options = {
        "evaluate": lambda run, stop: {"AP": said[int(run.step)]},
        "evaluate_every": 1,
        "best": "AP",
        "keep": 2,
    }
    fit(parts, records, tmp_path, steps=4, **options)
    run = fit(parts, records, tmp_path, **options)
    best = checkpoint.Checkpoints(tmp_path, folder="best", read_only=True)
    step, params, _ = best.restore_weights()
    best.close()
    assert step == 2
    apart = jax.tree.map(lambda a, b: np.ptp(np.asarray(a) - b), params, run.params)
    assert max(jax.tree.leaves(apart)) > 0
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"5", "6"}
    with pytest.raises(ValueError, match=r"best=.mAP. is not a metric; choose .*AP"):
        fit(parts, records, tmp_path / "other", **{**options, "best": "mAP"})
    with pytest.raises(ValueError, match=r"set train\.evaluate_every too"):
        fit(parts, records, tmp_path / "other", best="AP")


def test_evaluations_and_progress_are_lines_where_stderr_is_a_file(
    parts, records, tmp_path, capsys
):
    said = {3: (0.1, 4.0), 6: (0.25, 5.0)}

    def evaluate(run, stop):
        ap, loss = said[int(run.step)]
        return {"AP": ap, "AP50": 0.5, "AR": 0.6, "AP/b": 0.1, "val/loss": loss}

    options = {"evaluate": evaluate, "evaluate_every": 3, "progress": True}
    fit(parts, records, tmp_path / "a", best="AP", **options)
    lines = capsys.readouterr().err.splitlines()
    assert any(
        re.match(r"step 2/6: loss=\S+ lr=\S+ .* s/step, \d+:\d\d left", x)
        for x in lines
    )
    first = "step 3: AP 0.1, AP50 0.5, val/loss 4, the best so far"
    assert first in lines
    assert "step 6: AP 0.25, AP50 0.5, val/loss 5, the best so far" in lines
    fit(parts, records, tmp_path / "b", best="val/loss", **options)
    lines = capsys.readouterr().err.splitlines()
    assert first in lines
    assert "step 6: AP 0.25, AP50 0.5, val/loss 5" in lines


@pytest.mark.slow
def test_a_run_with_an_average_and_in_parts_goes_on(parts, records, tmp_path):
    """Of a model without statistics, whose part of the state is empty."""
    settings = {**TINY["yolact-frozen-norm"], "num_classes": 4, "ema": 0.5}
    made = models.make(**settings), *parts[1:]
    options = {"checkpoint_every": 1, "accumulate": 2}
    layout = sharding.make(devices=jax.devices()[:2])
    straight = fit(made, records, tmp_path / "a", 3, layout=layout, **options)
    fit(made, records, tmp_path / "b", 2, layout=layout, **options)
    resumed = fit(made, records, tmp_path / "b", 3, layout=layout, **options)
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    mean = straight.state["ema"]["params"]
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), straight.params, mean)
    assert max(jax.tree.leaves(apart)) > 0
    held = checkpoint.Checkpoints(tmp_path / "a", read_only=True)
    _, params, state = held.restore_weights()
    held.close()
    inputs = Inputs(np.zeros((1, 64, 64, 3), np.uint8))
    averaged, raw = (
        jax.jit(made[0].predict)(params, held, inputs)
        for held in (state, {**state, "ema": {**state["ema"], "params": params}})
    )
    assert np.abs(averaged.scores - raw.scores).max() > 0
    # A run that starts from it starts from what it predicts with.
    plain = models.make(**{**settings, "ema": None}), *parts[1:]
    begun = fit(plain, records, tmp_path / "c", 0, init_from=tmp_path / "a")
    jax.tree.map(np.testing.assert_array_equal, begun.params, mean)


def test_another_layout_goes_on_from_a_checkpoint(parts, records, tmp_path, straight):
    """From eight devices to four that split parameters and rows."""
    fit(parts, records, tmp_path, steps=3)
    layout = sharding.make(params="fsdp", space=2, devices=jax.devices()[:4])
    run = fit(parts, records, tmp_path, layout=layout)
    kernel = run.params["prediction_layers.0.upfeature.0"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size / 2
    ours, theirs = layout.on_host(run.params), jax.device_get(straight[1].params)
    # Adam makes much of a gradient that is nothing but rounding.
    apart = optax.tree.norm(jax.tree.map(np.subtract, ours, theirs))
    assert apart < 1e-3 * optax.tree.norm(theirs)


def test_tensorboard_shows_what_the_log_says(straight):
    from tensorboardX.proto import event_pb2

    seen = {}
    for file in (straight[0] / "tensorboard").iterdir():
        data = file.read_bytes()
        while data:
            # A record: its length, a checksum, itself, a checksum.
            size = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                seen[event.step, value.tag] = value.simple_value
    for row in log_of(straight[0]):
        for name, value in row.items():
            if name != "step":
                assert seen[row["step"], name.replace(" ", "_")] == pytest.approx(
                    value, rel=1e-6
                )


def test_one_step_can_be_profiled(parts, records, tmp_path):
    fit(parts, records, tmp_path, steps=2, profile=2)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_nothing_compiles_after_the_first_steps(parts, records, tmp_path):
    options = {"log_every": 1, "checkpoint_every": 1}
    fit(parts, records, tmp_path, steps=5, **options)
    built = [row["compilations"] for row in log_of(tmp_path)]
    assert built[0] > 0
    assert built[2:] == [0, 0, 0]


def test_every_bucket_is_compiled_once(parts, records, tmp_path):
    wide = [dataclasses.replace(r, id=r.id + 100) for r in records[:6]]
    sizes = sizing.input_sizes(
        buckets=((64, 64), (64, 96), (96, 64)), short_side=(48, 64)
    )
    shapes_ = np.array([[64, 64]] * 6 + [[64, 90], [90, 64]] * 3)
    for record, (h, w) in zip(wide, shapes_[6:], strict=True):
        pixels = cv2.resize(loader.decode(record.image), (int(w), int(h)))
        record.image = cv2.imencode(".png", pixels)[1].tobytes()
        record.height, record.width, record.truth = int(h), int(w), []
    mixed = loader.train_loader(
        [*records[:6], *wide], PLAIN, batch_size=8, sizes=sizes, images=shapes_
    )
    options = {"steps": 16, "log_every": 1, "checkpoint_every": 4, "progress": False}
    train.fit(*parts, mixed, workdir=tmp_path, **options)
    built = [row["compilations"] for row in log_of(tmp_path)]
    assert max(built[:4]) > 0
    assert built[12:] == [0] * 4


@hypothesis.given(
    size=st.tuples(st.integers(5, 300), st.integers(5, 300)),
    short_side=st.sampled_from([None, 32, (24, 48)]),
    part=st.tuples(*[st.floats(0, 1)] * 4),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_predictions_come_back_through_any_bucket(size, short_side, part):
    """A model that finds a known part of the picture finds it in its pixels."""
    buckets = ((64, 64), (64, 96), (96, 64), (32, 128))
    declared = {"buckets": buckets, "short_side": short_side, "letterbox": False}
    h, w = size
    fit = sizing.resize_for(h, w, buckets=buckets, short_side=short_side)
    whole = frames.Frame(np.eye(3), size)
    matrix = frames.resize(whole, fit.size, True, fit.scale).matrix
    x, y = sorted(part[:2]), sorted(part[2:])
    box = np.array([[x[0] * w, y[0] * h, x[1] * w, y[1] * h]])
    inside = frames.move_boxes(box, matrix).astype(np.float32)

    def predict_(params, state, inputs):
        assert inputs.images.shape[1:3] == fit.size
        one = np.ones((1, 1), np.float32)
        return Detections(inside[None], one, one.astype(int) * 0, one > 0)

    model = Model(Spec("detection", 1), None, None, predict_, None)
    run = predict.TrainedModel({"data": declared}, ["thing"], [1], model, {}, {}, 0)
    found = run(np.zeros((h, w, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, box, atol=1e-3 * max(h, w))


def test_readers_leave_a_run_under_way_alone(straight, tmp_path):
    unfinished = straight[0] / "checkpoints" / "9.orbax-checkpoint-tmp"
    unfinished.mkdir()
    checkpoint.Checkpoints(straight[0], read_only=True).restore_weights()
    assert unfinished.is_dir()
    unfinished.rmdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        checkpoint.Checkpoints(tmp_path / "typo", read_only=True)
    assert not (tmp_path / "typo").exists()


class Tampered:
    """A loader whose batches pass through `change(number, batch)`, counted from 1."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def __iter__(self):
        return TamperedStream(iter(self.inner), self.change)


class TamperedStream:
    def __init__(self, inner, change):
        self.inner, self.change, self.number = inner, change, 0
        self.get_state, self.set_state = inner.get_state, inner.set_state
        self.images = inner.images
        self.names, self.close = inner.names, inner.close

    def __next__(self):
        self.number += 1
        return self.change(self.number, next(self.inner))


@pytest.fixture(scope="module")
def failed(parts, records, tmp_path_factory):
    """A run whose fifth batch has an image that poisons the loss, and its model."""
    workdir = tmp_path_factory.mktemp("failed")
    model, optimizer, rate = parts
    named = []

    def poisoned(params, state, batch, key):
        loss, (state, metrics) = model.loss(params, state, batch, key)
        real = batch.inputs.view.valid
        bad = jax.numpy.any((batch.skipped == POISON) & real)
        loss = jax.numpy.where(bad, jax.numpy.nan, loss)
        return loss, (state, metrics)

    def change(number, batch):
        marks = batch.skipped.copy()
        if number == 5:
            marks[2] = POISON
            named.append(batch.index[2] + 1)
        return batch.replace(skipped=marks)

    loader = Tampered(stream(records), change)
    broken = model._replace(loss=poisoned)
    options = {"steps": 6, "checkpoint_every": 3, "progress": False}
    with pytest.raises(log.NonFiniteLoss) as caught:
        train.fit(broken, optimizer, rate, loader, workdir=workdir, **options)
    said = str(caught.value)
    assert re.search(rf"step 5: .*loss=nan.*image {named[0]}\).*lower the", said)
    return workdir, broken, f"image {named[0]})"


def test_after_a_loss_that_is_not_finite_nothing_is_lost(
    parts, records, failed, straight, tmp_path
):
    workdir = tmp_path / "again"
    shutil.copytree(failed[0], workdir)
    assert checkpoint.Checkpoints(workdir).latest() == 3
    again = fit(parts, records, workdir)
    jax.tree.map(np.testing.assert_array_equal, again, straight[1])


def test_a_failed_step_can_be_done_again(parts, records, failed, tmp_path):
    held = replay.read(failed[0] / "failed-5", Objects)
    before = fit(parts, records, tmp_path, steps=4)
    jax.tree.map(np.testing.assert_array_equal, held.run.params, before.params)
    assert (held.step, int(held.run.step)) == (5, 4)
    found = replay.replay_step(failed[1], held, train.step_key(held.run))
    assert np.isnan(found.losses["loss"])
    bad = [name for name, loss in found.images if np.isnan(loss)]
    assert len(bad) == 1
    assert bad[0].endswith(failed[2])
    assert not found.params
    assert f"nan              {bad[0]}" in replay.describe(held.step, found)
    with pytest.raises(FileNotFoundError, match="give the failed-<step> folder"):
        replay.read(tmp_path, Objects)


def test_a_failed_batch_comes_back_whole(tmp_path):
    small = np.ones(2, np.float32)
    run = checkpoint.TrainState(small, {"a": small}, {"b": small}, {"c": small}, small)
    batch = tiny_batch()
    replay.save(tmp_path, 1, run, batch, ["a", "b"])
    again = replay.read(tmp_path / "failed-1", Objects)
    jax.tree.map(np.testing.assert_array_equal, again.batch, batch)
    assert again.names == ["a", "b"]
    share = tmp_path / "failed-1" / "batch-0.npz"
    for content in (b"no zip", share.read_bytes()[:200]):
        share.write_bytes(content)
        with pytest.raises(UserError, match=r"batch-0\.npz does not hold"):
            replay.read(tmp_path / "failed-1", Objects)


def test_objects_that_do_not_fit_are_told_of(parts, records, tmp_path, capsys):
    train.fit(
        *parts,
        stream(records, max_objects=1),
        workdir=tmp_path,
        steps=1,
        log_every=1,
        progress=False,
        warnings=TASK.warnings,
    )
    assert log_of(tmp_path)[0]["objects cut"] > 0
    assert "did not fit into data.max_objects" in "".join(capsys.readouterr())


def test_a_batch_that_does_not_divide_is_refused(parts, records, tmp_path):
    with pytest.raises(ValueError, match="6 images does not divide among 8 devices"):
        train.fit(
            *parts,
            stream(records, batch_size=6),
            workdir=tmp_path,
            steps=1,
            progress=False,
        )


def test_weights_come_back_for_prediction(straight):
    held = checkpoint.Checkpoints(straight[0])
    step, params, state = held.restore_weights()
    held.close()
    assert step == 6
    jax.tree.map(np.testing.assert_array_equal, params, straight[1].params)
    jax.tree.map(np.testing.assert_array_equal, state, straight[1].state)


def test_no_checkpoint_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        checkpoint.Checkpoints(tmp_path).restore_weights()


def test_evaluation_of_the_truth_is_perfect(records):
    truths = truth_of(records).columns
    rows = [
        {
            "image_id": records[int(truths.image_ids[i])].id,
            "category_id": IDS[int(truths.labels[i])],
            "bbox": truths.boxes[i].tolist(),
            "score": 0.9,
            "segmentation": truths.rles[i],
        }
        for i in range(len(truths.labels))
    ]
    places = truths.image_ids.tolist()

    def judged(rows):
        meter = TASK.meter(records, INFO, [record.id for record in records])
        return meter.result(
            collected(meter, (places * 2)[: len(rows)], rows, INFO.category_ids)
        )

    metrics = judged(rows)
    assert metrics["bbox/AP"] == pytest.approx(1)
    assert metrics["segm/AP"] == pytest.approx(1)
    assert metrics["segm/AP/star"] == pytest.approx(1)
    # A mask's own score decides its rank, and nothing of the boxes'.
    wrong = [{**row, "segmentation": rows[0]["segmentation"]} for row in rows]
    both = [{**r, "mask_score": 0.9} for r in rows]
    both += [{**r, "score": 0.1, "mask_score": 0.95} for r in wrong]
    mixed = judged(both)
    assert mixed["bbox/AP"] == pytest.approx(1)
    assert mixed["segm/AP"] < 0.9
    assert judged([])["segm/AP"] == 0


def test_detections_come_back_in_original_pixels(parts, records, straight):
    """Every image is shown once, and boxes lie in the picture that they belong to."""
    model, run = parts[0], straight[1]
    steps = loader.Prepare((64, 64), Targets(8), letterbox=True)
    tall = shapes.records("val", 9, size=40)
    batches = loader.eval_loader(tall, steps, batch_size=8)
    meter = TASK.meter(tall, INFO, [f"picture {i}" for i in range(9)])
    weights = run.params, run.state
    parts = evaluate_module.predict_all(
        model, TASK, *weights, batches, meter, progress=False
    )
    rows = [*meter.files(parts)["results.json"]()]
    assert {row["image_id"] for row in rows} == {f"picture {i}" for i in range(9)}
    boxes = np.array([row["bbox"] for row in rows])
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 40 + 1e-6).all()
    assert all(row["segmentation"]["size"] == [40, 40] for row in rows)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("rgb.png", "RGB"),
        ("grey.png", "L"),
        ("palette.png", "P"),
        ("alpha.png", "RGBA"),
        ("photo.jpg", "RGB"),
    ],
)
def test_every_kind_of_file_is_read_as_rgb(tmp_path, name, mode):
    image = pytest.importorskip("PIL.Image")
    colour = image.new("RGB", (30, 20), (200, 30, 40))
    colour = colour.quantize(16) if mode == "P" else colour.convert(mode)
    colour.save(tmp_path / name)
    got = predict.read_image(tmp_path / name)
    assert got.shape == (20, 30, 3)
    if mode != "L":
        np.testing.assert_allclose(got[5, 5], (200, 30, 40), atol=4)


def test_exif_rotation_is_applied(tmp_path):
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert predict.read_image(tmp_path / "turned.jpg").shape == (30, 20, 3)


def test_files_that_are_no_images_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png .*not an image"):
        predict.read_image(tmp_path / "text.png")
    with pytest.raises(ValueError, match=r"absent\.png does not exist"):
        predict.read_image(tmp_path / "absent.png")


def test_arrays_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match=r"\(0, 4, 3\)"):
        predict.as_rgb(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        predict.as_rgb(np.zeros((4, 4, 3)))
    assert predict.as_rgb(np.zeros((4, 5), np.uint8)).shape == (4, 5, 3)


def test_objects_that_are_too_small_are_told_of(parts, records, tmp_path, capsys):
    steps = loader.Prepare((64, 64), Targets(8, mask_stride=4, min_size=60))
    batches = loader.train_loader(records, steps, batch_size=8)
    options = {"steps": 1, "log_every": 1, "progress": False}
    options["warnings"] = TASK.warnings
    train.fit(*parts, batches, workdir=tmp_path, **options)
    row = log_of(tmp_path)[0]
    assert row["objects too small"] > row["objects"]
    assert "are smaller than data.min_size" in capsys.readouterr().err


def test_an_update_that_is_not_finite_changes_nothing(parts, records, tmp_path):
    """Also in the last step, which no loss follows that would show it."""
    model, _, rate = parts
    wild = optax.sgd(3e38)
    with pytest.raises(log.NonFiniteLoss, match=r"step 1: .*update_norm=(inf|nan)"):
        options = {"steps": 1, "progress": False}
        train.fit(model, wild, rate, stream(records), workdir=tmp_path, **options)
    assert checkpoint.Checkpoints(tmp_path).latest() is None


def test_another_batch_size_goes_on_with_the_next_image(parts, records, tmp_path):
    """The position is one of images: none is shown twice or left out."""
    shown = []

    def looked(number, batch):
        if number:  # the first is drawn for its shape
            shown.extend(batch.index.tolist())
        return batch

    options = {"checkpoint_every": 100, "progress": False}
    first = Tampered(stream(records, batch_size=16), looked)
    train.fit(*parts, first, workdir=tmp_path, steps=3, **options)
    second = Tampered(stream(records, batch_size=24), looked)
    train.fit(*parts, second, workdir=tmp_path, steps=5, **options)
    assert len(shown) == 96
    for epoch in range(8):
        assert sorted(shown[12 * epoch : 12 * (epoch + 1)]) == list(range(12))


def test_a_log_without_its_checkpoints_is_kept(parts, records, tmp_path, capsys):
    fit(parts, records, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints")
    fit(parts, records, tmp_path)
    said = capsys.readouterr().err
    assert "no checkpoint beside it, so the run begins anew" in said
    assert (tmp_path / "metrics-before.jsonl").read_text() == before
    assert [row["step"] for row in log_of(tmp_path)] == [2, 4, 6]


def test_a_log_that_no_run_wrote_is_left_alone(parts, records, tmp_path):
    foreign = tmp_path / "metrics.jsonl"
    for text in ('{"epoch": 1, "accuracy": 0.5}\n', "my notes\nof two lines\n", "[1]"):
        foreign.write_text(text)
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 1, was not written"):
            log.truncate(foreign, 0)
        assert foreign.read_text() == text
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1, was not written"):
        fit(parts, records, tmp_path)


def test_a_line_that_was_damaged_is_kept_beside(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    text = '{"step": 2}\n{"st\x00p": 4\n{"step": 6}\n'
    path.write_text(text)
    assert [row["step"] for row in log.truncate(path, 6)] == [2, 6]
    assert "its line 2 cannot be read" in capsys.readouterr().err
    assert (tmp_path / "metrics-before.jsonl").read_text() == text


def test_what_a_power_cut_leaves_of_a_log_is_dropped(
    parts, records, tmp_path, straight
):
    fit(parts, records, tmp_path, steps=3)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe" + bytes(64) + b'\n{"step": 4, "lo')
    fit(parts, records, tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == [2, 3, 4, 6]
    assert lasting(log_of(tmp_path)[-1]) == lasting(log_of(straight[0])[-1])


def test_a_work_directory_that_goes_ends_the_run(parts, records, tmp_path):
    workdir = tmp_path / "run"

    def change(number, batch):
        if number == 4:
            shutil.rmtree(workdir)
        return batch

    with pytest.raises((UserError, OSError), match=r"was removed|could not be written"):
        train.fit(
            *parts,
            Tampered(stream(records), change),
            workdir=workdir,
            steps=6,
            log_every=1,
            progress=False,
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_save_too(parts, records, tmp_path, number, capsys):
    def change(batch_number, batch):
        if batch_number == 3:
            os.kill(os.getpid(), number)
        return batch

    told = Tampered(stream(records), change)
    with pytest.raises(preemption.Preempted) as ended:
        train.fit(*parts, told, workdir=tmp_path, steps=6, progress=False)
    assert ended.value.code == 128 + number
    assert "saved at step 3; the same command goes on" in capsys.readouterr().err
    assert checkpoint.Checkpoints(tmp_path).latest() == 3


def test_a_signal_is_heard_while_the_main_thread_is_busy(monkeypatch):
    """As in a compilation, in which Python's own handlers do not run."""
    left = threading.Event()
    monkeypatch.setattr(preemption.Watch, "_leave", lambda *_: left.set())
    with preemption.Watch(grace=0.05) as watch:
        # The first handler that Python runs comes after the wait below.
        signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.time() + 10
        while not left.is_set() and time.time() < end:
            time.sleep(0.01)
        assert left.is_set()
        assert watch.now()


def test_the_second_interrupt_leaves_at_once(monkeypatch):
    said = []
    monkeypatch.setattr(preemption.Watch, "_leave", lambda _, why: said.append(why))
    with preemption.Watch(grace=100):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
    assert said == ["interrupted twice"]


class Ending(Tampered):
    """A loader whose fifth batch for a step cannot be made."""

    def __iter__(self):
        return EndingStream(iter(self.inner), self.change)


class EndingStream(TamperedStream):
    def __next__(self):
        if self.number == 4:
            raise UserError("a worker process has ended")
        return super().__next__()


def test_what_ends_a_stream_loses_no_step(parts, records, tmp_path, straight):
    """Such as a worker process that is killed, or a record that cannot be read."""
    ending = Ending(stream(records), lambda number, batch: batch)
    options = {"steps": 6, "log_every": 2, "progress": False}
    with pytest.raises(UserError, match="a worker process has ended"):
        train.fit(*parts, ending, workdir=tmp_path, **options)
    assert checkpoint.Checkpoints(tmp_path).latest() == 4
    again = fit(parts, records, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, straight[1])
