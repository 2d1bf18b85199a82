"""Real processes killed at random moments: what is left equals an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_scripts import ROOT, train

from detjax import checkpoint

OPTIONS = (
    "--config.train.steps=30",
    "--config.train.log_every=3",
    "--config.train.checkpoint_every=3",
)


def command(workdir, data_dir):
    return [
        sys.executable,
        "scripts/train.py",
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        "--config.data.prepare.num_train=24",
        "--config.data.prepare.num_val=10",
        "--config.model.backbone=resnet10",
        "--config.model.backbone_width=8",
        "--config.model.features=8",
        *OPTIONS,
    ]


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "images/s": 0} for line in lines]


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
    draw, kills = random.Random(0), 0
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    workdir = tmp_path / "killed"
    for _ in range(30):
        process = subprocess.Popen(
            command(workdir, data),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            # Between its imports and its evaluation, both included.
            _, said = process.communicate(timeout=draw.uniform(2.5, 9))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, said.decode()
        break
    assert kills >= 3
    assert rows(workdir) == rows(tmp_path / "straight")
    jax.tree.map(
        np.testing.assert_array_equal, weights(workdir), weights(tmp_path / "straight")
    )
    ours, theirs = (
        json.loads((folder / "eval.json").read_text())
        for folder in (workdir, tmp_path / "straight")
    )
    assert ours == theirs
