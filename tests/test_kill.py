"""Real processes killed at random moments: what is left equals an undisturbed run."""

import json
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_scripts import ROOT, environment, tiny, train
from test_train import lasting

from detjax import checkpoint

STEPS, EVERY, JUDGED, KILLS = 180, 3, 36, 4
OPTIONS = (
    f"--config.train.steps={STEPS}",
    f"--config.train.log_every={EVERY}",
    f"--config.train.checkpoint_every={EVERY}",
    f"--config.train.evaluate_every={JUDGED}",
)


def lines(workdir):
    log = workdir / "metrics.jsonl"
    return log.read_text().splitlines() if log.exists() else []


def rows(workdir):
    return [lasting(json.loads(line)) for line in lines(workdir)]


def is_judged(row):
    """Whether an evaluation follows this line of the log."""
    return "loss" in row and row["step"] % JUDGED == 0


def run_until(workdir, data, count, delay, last=lambda row: True):
    """Starts the run and kills it `delay` seconds after its log has `count` lines.

    And after the `last` of them is as it says.

    Returns its exit status, None where it was killed.
    """
    with subprocess.Popen(
        [sys.executable, "scripts/train.py", *tiny(workdir, data, *OPTIONS)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            if len(rows(workdir)) >= count and last(rows(workdir)[-1]):
                time.sleep(delay)
                process.kill()
                process.wait()
                break
            time.sleep(0.02)
        return None if process.returncode == -signal.SIGKILL else process.returncode


def weights(workdir):
    held = checkpoint.Checkpoints(workdir)
    step, params, state = held.restore_weights()
    held.close()
    return step, params, state


@pytest.mark.slow
def test_killed_runs_lose_nothing(tmp_path):
    data = tmp_path / "data"
    done = train(tmp_path / "straight", data, *OPTIONS)
    assert done.returncode == 0, done.stderr
    draw, workdir = random.Random(0), tmp_path / "killed"
    for _ in range(KILLS):
        # In the middle of steps and of the checkpoints that are written all the time.
        count = len(lines(workdir)) + draw.randint(1, 4)
        assert run_until(workdir, data, count, draw.uniform(0, 0.3)) is None
    for _ in range(2):
        # In the middle of evaluations on the way.
        count, delay = len(lines(workdir)) + 1, draw.uniform(0, 0.5)
        assert run_until(workdir, data, count, delay, is_judged) is None
    # In the middle of the evaluation that follows the last step.
    count = STEPS // EVERY + STEPS // JUDGED
    assert run_until(workdir, data, count, draw.uniform(0.1, 0.5)) is None
    assert run_until(workdir, data, STEPS, 0) == 0
    assert rows(workdir) == rows(tmp_path / "straight")
    jax.tree.map(
        np.testing.assert_array_equal, weights(workdir), weights(tmp_path / "straight")
    )
    ours, theirs = (
        json.loads((folder / "eval.json").read_text())
        for folder in (workdir, tmp_path / "straight")
    )
    assert ours == theirs
