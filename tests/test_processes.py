"""Two real processes: they do what one does, and end when one of them has to."""

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
    if distributed:
        options = (*options, f"--distributed={distributed}")
    return call("train", *tiny(workdir, data, *OPTIONS, *options), devices=devices)


def call(script, *options, devices):
    """A process of scripts/`script`.py with as many virtual devices."""
    return subprocess.Popen(
        [sys.executable, f"scripts/{script}.py", *options],
        cwd=ROOT,
        env=environment(devices),
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
    # Together they evaluate what is written, too.
    place = f"127.0.0.1:{free_port()}"
    flags = [f"--workdir={tmp_path / 'work'}", f"--distributed={place},2,"]
    again = [call("evaluate", flags[0], flags[1] + str(i), devices=4) for i in (0, 1)]
    said = [ended(p).splitlines() for p in again]
    assert [line for line in said[1] if "/A" in line] == first


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(alone, tmp_path):
    """SIGTERM to one of them saves the run of both, for any number of devices."""
    workdir = tmp_path / "work"
    steps = "--config.train.steps=400"
    options = (
        "--config.sharding.params=fsdp",
        f"--config.train.init_from={alone / 'work'}",
    )
    processes = two(workdir, alone / "data", steps, *options)
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


TWO = """
import sys, time
from detjax import cli, cluster
from detjax.errors import UserError

def fail():
    raise UserError("the data are bad")

def main(arguments):
    what, first = arguments[0], cluster.primary()
    if what == "slow":
        cluster.primary_first(lambda: time.sleep(35) if first else None)
    elif what == "bad data":
        cluster.primary_first(fail)
    print(cluster.gather([int(first)]), flush=True)
    if what == "bad batch" and not first:
        fail()
    if what == "defect" and first:
        {}["nothing"]
    while what != "slow":
        cluster.gather([0])
        time.sleep(0.01 if first or what == "killed" else 1e6)

cli.launch(main, "Two processes.")
"""


@pytest.fixture
def together(tmp_path):
    """Starts two processes that do nothing but what their names in TWO say."""
    started = []

    def start(what):
        script = tmp_path / "scripts" / "two.py"
        script.parent.mkdir()
        script.write_text(TWO)
        place = f"127.0.0.1:{free_port()}"
        for i in range(2):
            process = subprocess.Popen(
                [sys.executable, script, what, f"--distributed={place},2,{i}"],
                env={**environment(), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("bad data", "the data are bad"),
        ("bad batch", "the data are bad"),
        ("defect", "KeyError: "),
    ],
)
def test_one_that_fails_ends_both_with_its_sentence(together, what, sentence):
    said = []
    for process in together(what):
        said.append(process.communicate(timeout=60)[1])
        assert process.returncode == 1, said
    errors = [s[s.index("error: ") :] for s in said]
    assert all(sentence in error for error in errors), said
    stopped = ["another process has stopped" in error for error in errors]
    assert stopped == [what == "bad batch", what != "bad batch"]
    traces = [("Traceback" in s) for s in said]
    assert traces == [what == "defect", False], said


def test_one_that_is_killed_ends_the_other_with_a_sentence(together):
    first, second = together("killed")
    while first.stdout.readline() != "[1, 0]\n":
        assert first.poll() is None
    second.kill()
    error = first.communicate(timeout=60)[1]
    assert first.returncode == 1
    assert "error: another process has stopped (" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_data_may_take_longer_than_devices_wait(together):
    """Processes on CPUs that meet give up after 30 seconds."""
    for process in together("slow"):
        assert ended(process).splitlines()[-1] == "[1, 0]"


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_said_so(tmp_path):
    for spec in ("auto", "somewhere", "127.0.0.1:1,2,2"):
        process = start(tmp_path, tmp_path, devices=1, distributed=spec)
        _, error = process.communicate(timeout=100)
        assert process.returncode == 1
        assert "HOST:PORT,NUMBER_OF_PROCESSES,INDEX" in error
        assert "Traceback" not in error
