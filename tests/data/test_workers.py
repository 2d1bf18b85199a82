"""Worker processes: the same batches, memory that stays valid, and how they end."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_ahead import Counted
from test_loader import equal, prepare, record
from test_streams import records, stream

from detjax.data import ahead, loader, workers
from detjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def started(batches, count=3):
    while len(pids := batches._batches.pids) < count:
        time.sleep(0.01)
    return pids


def test_batches_are_those_of_threads_from_any_position():
    """Of several sizes, skipping records, more batches than there are slots."""
    source, before = records(), descriptors()
    one, other = iter(stream(source)), iter(stream(source, workers=2))
    for _ in range(12):
        equal(next(one), next(other))
    pids = started(other)
    for position in (0, 8, 40):
        for batches in (one, other):
            batches.set_state({"images": position, "skipped": []})
        for _ in range(3):
            equal(next(one), next(other))
    # A position changes no process.
    assert other._batches.pids == pids
    assert len(pids) == 3
    other.close(), one.close()
    del other
    assert descriptors() == before


def test_an_evaluation_by_workers():
    source = [record(i) for i in range(11)]
    kwargs = {"batch_size": 4}
    for a, b in zip(
        loader.eval_loader(source, prepare(), **kwargs),
        loader.eval_loader(source, prepare(), workers=2, **kwargs),
        strict=True,
    ):
        equal(a, b)


def test_batches_stay_what_they_were_while_somebody_has_them():
    """Also where JAX reads their memory without a copy."""
    records = [record(i, objects=2) for i in range(8)]
    steps = prepare(size=(96, 128), mask_stride=1)
    expected = iter(loader.train_loader(records, steps, batch_size=4))
    batches = iter(loader.train_loader(records, steps, batch_size=4, workers=2))
    held = [jax.device_put(next(batches)) for _ in range(8)]
    used = batches._batches._slots._count
    assert used >= 8
    for batch in held:
        equal(next(expected), batch)
    del held, batch
    jax.block_until_ready(jax.device_put(0))
    for _ in range(20):
        equal(next(expected), next(batches))
    assert batches._batches._slots._count <= used + 1
    kept = next(batches)
    copy = jax.tree.map(np.copy, kept)
    batches.close()
    equal(kept, copy)


def test_small_arrays_hold_no_images():
    source = [record(i) for i in range(8)]
    steps = prepare(size=(128, 192))
    batches = iter(loader.train_loader(source, steps, batch_size=4, workers=1))
    held = []
    for _ in range(20):
        batch = next(batches)
        held.append((batch.index, batch.inputs.view.affine, batch.target.boxes))
    del batch
    assert batches._batches._slots._count <= ahead.AHEAD + 3
    batches.close()


class Failing(Counted):
    """Batches, one of whose rows cannot be filled."""

    def fill(self, batch, at, number, row):
        if (number, row) == (2, 3):
            raise self.error
        batch.index[at] = number * self.rows + row


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (UserError("row 3 of batch 2"), UserError, "^row 3 of batch 2$"),
        (KeyError("spam"), RuntimeError, "KeyError: 'spam'\n(.|\n)*in fill"),
        (UserError("é" * 5000), UserError, "éééé"),
    ],
)
def test_an_error_comes_with_its_batch(error, kind, words):
    batches = Failing(count=5)
    batches.error = error
    found = workers.Workers(batches, 2)
    next(found), next(found)
    with pytest.raises(kind, match=words):
        next(found)
    np.testing.assert_array_equal(next(found).index, [12, 13, 14, 15])
    found.close()


def test_what_cannot_be_loaded_is_a_sentence():
    class Local(Counted):
        pass

    with pytest.raises((AttributeError, pickle.PicklingError)):
        next(workers.Workers(Local(), 1))


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_is_killed_is_a_sentence(which):
    """As the system does where memory is short."""
    source = [record(i) for i in range(8)]
    batches = iter(loader.train_loader(source, prepare(), batch_size=2, workers=2))
    next(batches)
    pids = started(batches)
    os.kill(pids[which], signal.SIGKILL)
    with pytest.raises(UserError, match=r"data\.workers=2 worker processes has ended"):
        for _ in range(2000):
            next(batches)
            time.sleep(0.005)
    batches.close()
    assert gone(pids)


def gone(pids, patience=10):
    end = time.time() + patience
    while time.time() < end:
        if not any(map(runs, pids)):
            return True
        time.sleep(0.05)
    return False


def runs(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


LEAVE = """
import os, sys, signal
sys.path[:0] = {paths!r}
from test_loader import prepare, record
from detjax.data import loader
records = [record(i) for i in range(8)]
stream = iter(loader.train_loader(records, prepare(), batch_size=2, workers=2))
batch = next(stream)
while len(pids := stream._batches.pids) < 3:
    pass
print(*pids, flush=True)
{how}
"""
WAYS = {
    "it is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "its loop ends": "del stream, batch",
    # Which workers ignore: this process finishes its step first.
    "signals": "[os.kill(p, s) for p in pids for s in (2, 15, 1)]; next(stream)",
}


@pytest.mark.parametrize("way", WAYS)
def test_processes_end_with_their_parent(tmp_path, way):
    """In a script without a guard of `__main__`; nothing is said or left behind."""
    before = {*os.listdir("/dev/shm")}
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "data")]
    script = tmp_path / "leave.py"
    script.write_text(LEAVE.format(paths=paths, how=WAYS[way]))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    pids = [*map(int, done.stdout.split())]
    assert len(pids) == 3, done.stderr
    assert done.stderr == ""
    assert gone(pids)
    assert not {n for n in os.listdir("/dev/shm") if "detjax" in n} - before


def test_workers_follow_the_cores(monkeypatch):
    for cores, images, expected in (
        (2, 10**6, 0),
        (4, 10**6, 0),
        (8, 10**6, 7),
        (64, 10**6, 32),
        (64, 999, 0),
    ):
        monkeypatch.setattr(ahead, "cores", lambda cores=cores: cores)
        assert ahead.processes(images) == expected
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ahead.processes(10**6) == 0


def test_nothing_is_written_to_a_small_dev_shm():
    """Docker's has 64 MB: the memory of batches has no name, and needs none of it."""
    source = [record(i) for i in range(4)]
    steps = prepare(size=(512, 512), mask_stride=None)
    before = os.statvfs("/dev/shm").f_bavail
    batches = iter(loader.train_loader(source, steps, batch_size=64, workers=1))
    batch = next(batches)
    assert batch.inputs.images.nbytes == 48 << 20
    used = (before - os.statvfs("/dev/shm").f_bavail) * os.statvfs("/dev/shm").f_bsize
    assert used < 8 << 20
    batches.close()
