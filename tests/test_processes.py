"""Two real processes, four devices each, against one process with eight."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_scripts import ROOT, environment, tiny
from test_train import lasting

OPTIONS = ("--config.train.steps=12", "--config.train.checkpoint_every=4")


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def start(workdir, data, *options, devices, distributed=None):
    """A process of scripts/train.py with as many virtual devices."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    if distributed:
        options = (*options, f"--distributed={distributed}")
    return subprocess.Popen(
        [sys.executable, "scripts/train.py", *tiny(workdir, data, *OPTIONS, *options)],
        cwd=ROOT,
        env={**environment(), "XLA_FLAGS": flag},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two(workdir, data, *options):
    place = f"127.0.0.1:{free_port()}"
    return [
        start(workdir, data, *options, devices=4, distributed=f"{place},2,{i}")
        for i in range(2)
    ]


def ended(process):
    """Its standard output, once it has come to a good end."""
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    return out


def log_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [lasting(json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    ended(start(folder / "work", folder / "data", devices=8))
    return folder


@pytest.mark.slow
def test_two_processes_do_what_one_does(alone, tmp_path):
    """Same batches, same losses, same metrics, and one of them writes them."""
    said = [ended(p).splitlines() for p in two(tmp_path / "work", alone / "data")]
    first, second = ([line for line in s if "/A" in line] for s in said)
    assert first == second
    assert any("segm/AP50" in line for line in first)
    ours, theirs = log_of(tmp_path / "work"), log_of(alone / "work")
    assert [row["step"] for row in ours] == [2, 4, 6, 8, 10, 12]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)
    # The evaluation's last batch is not full: each image is still counted once.
    results = json.loads((tmp_path / "work" / "results.json").read_text())
    expected = json.loads((alone / "work" / "results.json").read_text())
    assert len(results) == pytest.approx(len(expected), rel=0.05)
    assert {r["image_id"] for r in results} == {r["image_id"] for r in expected}


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(alone, tmp_path):
    """SIGTERM to one of them saves the run of both, for any number of devices."""
    workdir = tmp_path / "work"
    steps = "--config.train.steps=400"
    processes = two(workdir, alone / "data", steps, "--config.sharding.params=fsdp")
    while not (workdir / "metrics.jsonl").exists() or not log_of(workdir):
        assert processes[0].poll() is None, processes[0].communicate()[1]
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        process.communicate(timeout=200)
        assert process.returncode == 143
    saved = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    more = f"--config.train.steps={saved + 2}"
    ended(start(workdir, alone / "data", more, devices=2))
    rows = log_of(workdir)
    assert rows[-1]["step"] == saved + 2
    assert [r["step"] for r in rows] == sorted({r["step"] for r in rows})


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_said_so(tmp_path):
    for spec in ("auto", "somewhere", "127.0.0.1:1,2,2"):
        process = start(tmp_path, tmp_path, devices=1, distributed=spec)
        _, error = process.communicate(timeout=100)
        assert process.returncode == 1
        assert "HOST:PORT,NUMBER_OF_PROCESSES,INDEX" in error
        assert "Traceback" not in error
