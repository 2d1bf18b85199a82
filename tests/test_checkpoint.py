"""What becomes of a run's checkpoints, with the smallest run that there can be."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import batch as tiny_batch
from test_processes import free_port

from detjax import (
    best,
    checkpoint,
    cluster,
    files,
    optim,
    predict,
    preemption,
    replay,
    settings,
    sharding,
    train,
)
from detjax.checkpoint import Checkpoints, OtherArchitecture
from detjax.errors import UserError
from detjax.types import Model, Objects, Spec

ROOT = pathlib.Path(__file__).parents[1]
PARAMS = {"layer": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}


def optimizer(**settings):
    return optim.make(steps=9, schedule={"peak": 0.1}, **settings)


def run_at(step, **settings):
    return checkpoint.TrainState(
        step=jnp.int32(step),
        params=jax.tree.map(lambda x: x * step, PARAMS),
        state={},
        opt_state=optimizer(**settings)[0].init(PARAMS),
        key=jax.random.key_data(jax.random.key(0)),
    )


@contextlib.contextmanager
def checkpoints(workdir, *steps, **options):
    """Those in `workdir`, after those of `steps` were written there."""
    with contextlib.closing(Checkpoints(workdir, **options)) as held:
        for step in steps:
            held.save(step, run_at(step), {"at": step})
        held.wait()
        yield held


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def damage(workdir, step, part="state"):
    path = workdir / "checkpoints" / str(step) / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "settings", [{"clip_norm": 1.0}, {"freeze": "bias"}, {"name": "adamw"}], ids=str
)
def test_other_settings_of_the_optimizer_are_refused(tmp_path, settings):
    """Clipping holds no arrays, and is no damage either."""
    with checkpoints(tmp_path, 1, 2) as held:
        with pytest.raises(OtherArchitecture, match="another optimizer"):
            held.restore(run_at(0, **settings))
        assert held.steps() == [2, 1]
    with checkpoints(tmp_path / "other") as held:
        held.save(3, run_at(3, **settings), {})
        held.wait()
        assert int(held.restore(run_at(0, **settings))[0].step) == 3
        with pytest.raises(OtherArchitecture, match="another optimizer"):
            held.restore(run_at(0))
    assert names(tmp_path) == ["checkpoints", "other"]


def test_damaged_checkpoints_are_set_aside_as_often_as_it_takes(tmp_path, capsys):
    for aside in ("damaged-checkpoint-3", "damaged-checkpoint-3-2"):
        with checkpoints(tmp_path, 1, 2, 3) as held:
            damage(tmp_path, 3)
            run, position = held.restore(run_at(0))
            assert (int(run.step), position) == (2, {"at": 2})
            assert held.steps() == [2, 1]
        assert (tmp_path / aside / "loader").is_dir()
        assert "checkpoint 3 cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["state", "loader", "state/_METADATA"])
def test_where_none_can_be_read_all_stay(tmp_path, part):
    with checkpoints(tmp_path, 1, 2) as held:
        damage(tmp_path, 1, part)
        damage(tmp_path, 2, part)
        with pytest.raises(ValueError, match=r"no checkpoint in .* can be read \(2: "):
            held.restore(run_at(0))
    assert names(tmp_path) == ["checkpoints"]
    assert names(tmp_path / "checkpoints") == ["1", "2"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_machine_is_not_the_checkpoint(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    with checkpoints(tmp_path, 1, 2) as held:
        monkeypatch.setattr(held._state, "restore", fail)
        with pytest.raises(OSError, match=r"checkpoint 2 .* all checkpoints stay"):
            held.restore(run_at(0))
        assert held.steps() == [2, 1]


def test_processes_take_the_same_checkpoint_and_one_renames(tmp_path, monkeypatch):
    """This process reads all of them, another one not the newest."""
    elsewhere = iter([[[True, "half of it is gone"]], []])
    monkeypatch.setattr(cluster, "gather", lambda rows: rows + next(elsewhere))
    monkeypatch.setattr(cluster, "primary", lambda: False)

    def the_first_renames(_):
        (tmp_path / "checkpoints" / "2").rename(tmp_path / "aside")

    with checkpoints(tmp_path, 1, 2) as held:
        monkeypatch.setattr(cluster, "wait", the_first_renames)
        assert int(held.restore(run_at(0))[0].step) == 1
        assert held.steps() == [1]
    assert names(tmp_path) == ["aside", "checkpoints"]


TWO = """
import pathlib, sys
sys.path.insert(0, "tests")
from detjax import cluster
place, index, workdir = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
cluster.start(f"{place},2,{index}")
import test_checkpoint
from detjax import sharding

def run_at(step):
    return sharding.make().keep(test_checkpoint.run_at(step))

with test_checkpoint.checkpoints(workdir) as held:
    for step in 1, 2:
        held.save(step, run_at(step), {})
    held.wait()
    if index == 0:
        test_checkpoint.damage(workdir, 2)
    cluster.wait("damaged")
    print(int(held.restore(run_at(0))[0].step), held.steps())
"""


@pytest.mark.slow
def test_real_processes_take_the_same_checkpoint(tmp_path):
    place = f"127.0.0.1:{free_port()}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, place, str(index), str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in both:
        out, _ = process.communicate(timeout=200)
        assert out.splitlines()[-1] == "1 [1]"
    assert names(tmp_path) == ["checkpoints", "damaged-checkpoint-2"]


def best_of(workdir):
    with checkpoints(workdir, folder="best", read_only=True) as held:
        return held.steps()


def test_the_best_is_what_is_kept_and_not_what_was_said(tmp_path):
    def judged(step, metric="AP", **row):
        better = best.comparison(metric, None)
        best.keep_best(tmp_path, metric, row, run_at(step), {"loader": 0}, better)
        return best_of(tmp_path)

    assert judged(4, AP=0.4, AP50=0.5) == [4]
    assert judged(6, AP=0.3, AP50=0.6) == [4]
    # Another metric: what is kept was measured by it too.
    assert judged(6, "AP50", AP=0.3, AP50=0.6) == [6]
    # A run that fell back, and does better than before it did.
    assert judged(5, "AP50", AP=0.3, AP50=0.7) == [5]
    assert judged(5, "AP50", AP=0.3, AP50=0.8) == [5]
    with checkpoints(tmp_path, folder="best", read_only=True) as held:
        assert held.position(5)["metrics"]["AP50"] == 0.8
    # Of losses the lowest.
    assert judged(7, "val/loss", **{"val/loss": 3.0, "AP50": 0.1}) == [7]
    assert judged(9, "val/loss", **{"val/loss": 2.0}) == [9]
    assert judged(10, "val/loss", **{"val/loss": 2.5}) == [9]
    assert judged(5, "AP50", AP=0.3, AP50=0.8) == [5]
    # One that was killed before it had removed what is not the best any more.
    with checkpoints(tmp_path, 9, folder="best", keep=None):
        pass
    assert judged(8, "AP50", AP=0.3, AP50=0.1) == [5]


def test_a_step_that_fails_again_leaves_nothing_of_the_first_time(tmp_path):
    batch = tiny_batch()
    replay.save(tmp_path, 3, run_at(1), batch, ["a"])
    folder = tmp_path / "failed-3"
    shutil.copy(folder / "batch-0.npz", folder / "batch-1.npz")
    replay.save(tmp_path, 3, run_at(2), batch, ["b"])
    again = replay.read(folder, Objects)
    assert (again.step, int(again.run.step), again.names) == (3, 2, ["b"])
    jax.tree.map(np.testing.assert_array_equal, again.batch, batch)


def test_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    files.write_text(path, "before")
    monkeypatch.setattr(pathlib.Path, "replace", None)
    files.write_text(path, "before")  # which is nothing to do
    with pytest.raises(TypeError):
        files.write_text(path, "after")
    assert path.read_text() == "before"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json has no 'model'"):
        predict.read_config(path)


class Stream:
    """The same batch for ever."""

    def __init__(self):
        self.number = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        return tiny_batch()

    def images(self):
        images = tiny_batch().inputs.images
        return jax.ShapeDtypeStruct(images.shape, images.dtype)

    def get_state(self):
        return self.number

    def set_state(self, state):
        self.number = state

    def close(self):
        pass


def fit(workdir, **options):
    """Two steps of a model that is one number."""

    def init(key, images):
        return {"weight": jnp.ones(())}, {}

    def loss(params, state, batch, key):
        return params["weight"] ** 2, (state, {})

    settings = {"steps": 2, "log_every": 1, "progress": False, **options}
    return train.fit(
        Model(Spec("detection", 1), init, loss, None, None),
        *optimizer(),
        Stream(),
        workdir=workdir,
        layout=sharding.make(devices=jax.devices()[:1]),
        **settings,
    )


@pytest.mark.parametrize("name", ["log_every", "checkpoint_every", "keep"])
def test_counts_below_one_are_refused(tmp_path, name):
    held = {"workdir": tmp_path, "steps": 2, name: 0}
    with pytest.raises(
        UserError, match=rf"train\.{name}=0 is not a whole number of at"
    ):
        settings.check_all("train", train.fit, held)
    assert settings.check_all("train", train.fit, {**held, name: 1})[name] == 1


def test_saving_holds_nobody_up(tmp_path, monkeypatch):
    go, write = threading.Event(), Checkpoints._write

    def held_up(self, step, args):
        assert go.wait(60)
        write(self, step, args)

    monkeypatch.setattr(Checkpoints, "_write", held_up)
    with checkpoints(tmp_path) as held:
        held.save(1, run_at(1), {})
        assert held.latest() is None
        go.set()
        held.wait()
        assert held.latest() == 1


def test_sigterm_during_the_last_write_loses_nothing(tmp_path, monkeypatch):
    write = Checkpoints._write

    def told_meanwhile(self, step, args):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        write(self, step, args)

    monkeypatch.setattr(Checkpoints, "_write", told_meanwhile)
    # What would come of it outside of `Watch`, but for the end of these tests.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    with pytest.raises(preemption.Preempted):
        fit(tmp_path)
    signal.signal(signal.SIGTERM, before)
    monkeypatch.undo()
    with checkpoints(tmp_path, read_only=True) as held:
        assert held.latest() == 2
    assert int(fit(tmp_path).step) == 2


def test_what_cannot_be_saved_in_time_is_given_up(tmp_path):
    """The write never ends, and train.grace_seconds counts it too."""
    code = """
        import os, pathlib, signal, sys, time
        sys.path.insert(0, "tests")
        import test_checkpoint
        def never(self, step, args):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(100)
        test_checkpoint.Checkpoints._write = never
        test_checkpoint.fit(pathlib.Path(sys.argv[1]), grace_seconds=0.3)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=90,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "not saved within train.grace_seconds=0.3" in done.stderr
    # The run itself had come to its end.
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_two_folders_are_written_side_by_side(tmp_path):
    """As checkpoints/ and best/ are, neither of which waits for the other."""
    both = [Checkpoints(tmp_path, folder=f, keep=2) for f in "ab"]
    for step in range(1, 8):
        for held in both:
            held.save(step, run_at(step), {"loader": {}, "log": {}})
    for held in both:
        held.close()
    for folder in "ab":
        with checkpoints(tmp_path, folder=folder, read_only=True) as held:
            assert held.steps() == [7, 6]
            assert int(held.restore_state()[1]["step"]) == 7


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    with checkpoints(tmp_path, 3):
        pass
    files_of = [p for p in (tmp_path / "checkpoints" / "3").rglob("*") if p.is_file()]
    assert len(files_of) > 5
    for path in files_of:
        data = path.read_bytes()
        if not data:
            continue
        path.write_bytes(bytes([data[0] ^ 4]) + data[1:])
        with (
            checkpoints(tmp_path, read_only=True) as held,
            pytest.raises(ValueError, match=r"3 in .* cannot be read"),
        ):
            held.restore_state()
        path.write_bytes(data)
    with checkpoints(tmp_path, read_only=True) as held:
        assert held.restore_state()[0] == 3


def test_a_checkpoint_of_a_process_that_was_killed_gets_no_checksums(tmp_path):
    with checkpoints(tmp_path, 3):
        pass
    path = tmp_path / "checkpoints" / "3" / "checksums.json"
    path.unlink()
    with checkpoints(tmp_path, 4):
        pass
    assert not path.exists()
    assert (tmp_path / "checkpoints" / "4" / "checksums.json").exists()
